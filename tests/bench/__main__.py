"""`python -m tests.bench [B1 …]`: run the benches of `tests/bench` and print their table in Markdown.

`--quick` takes each side's turn once, to see whether a bench works; `--json FILE` writes the results to a file, too.
`python -m tests.bench bytes` prints the table of tests/README.md of bytes and GETs instead; `--write` puts it there.
`picture TABLE` draws what was printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from tests.bench import bytes_read, picture
from tests.bench.bench import Absent, Bench

ROWS = {path.name[:3].replace("b0", "b").upper(): path.stem for path in sorted(Path(__file__).parent.glob("b[01]*.py"))}
"""The benches by name, and the module of each."""
REPEATS = 3
SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Print what was asked for; the exit code says whether a bench failed to run."""
    match arguments:
        case ["bytes"]:
            print(bytes_read.table())
            return 0
        case ["bytes", "--write"]:
            bytes_read.README.write_text(bytes_read.written(), "utf-8")
            return 0
        case ["picture", table]:
            drawn = list(picture.bars(Path(table).read_text("utf-8")))
            if not drawn:
                sys.exit(f"{table} has no line with a ratio: write there what `python -m tests.bench` prints")
            print(picture.svg(drawn))
            return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # servers and mounts are to go, too
    options = argparse.ArgumentParser(prog="python -m tests.bench")
    options.add_argument("rows", nargs="*", help=f"which benches: {' '.join(ROWS)}")
    options.add_argument("--quick", action="store_true", help="one turn of each side")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    chosen = options.parse_args(arguments)
    wanted = [name.upper() for name in chosen.rows] or list(ROWS)
    if unknown := [name for name in wanted if name not in ROWS]:
        sys.exit(f"no such bench: {' '.join(unknown)}; there are {' '.join(ROWS)}")
    print("| | Job | special | beside | ratio | bar | reached |\n|---|---|--:|--:|--:|--:|---|", flush=True)
    results: list[dict[str, object]] = []
    code = max([_run(name, results, quick=chosen.quick) for name in wanted])
    if chosen.json is not None:
        machine = {"system": platform.platform(), "processors": os.cpu_count(), "python": platform.python_version()}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        chosen.json.write_text(json.dumps({"time": when, "machine": machine, "results": results}, indent=1), "utf-8")
    return code


def _run(name: str, results: list[dict[str, object]], *, quick: bool) -> int:
    """Run one bench, print its lines and add them to `results`: 0 if it ended, or what it needs is not here."""
    cache = Path(tempfile.gettempdir()) / "special-bench"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"special-{name}-") as folder:
        bench = Bench(Path(folder), cache, repeats=1 if quick else REPEATS, seconds=1.0 if quick else SECONDS)
        try:
            for result in import_module(f"tests.bench.{ROWS[name]}").run(bench):
                print(f"| {name} | {result} |", flush=True)
                results.append({"bench": name, **asdict(result)})
        except Absent as absent:
            print(f"| {name} | skipped: needs {absent} | | | | | |", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"| {name} | failed | | | | | |", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
