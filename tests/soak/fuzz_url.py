"""A coverage-guided fuzzer on what reads addresses: parse, resolve, canonicalise.

    pip install atheris
    python -m tests.soak.fuzz_url [CORPUS_DIR] [-max_total_time=60] [other options of libFuzzer]

Every address must give a request or a `RequestError`. A request must come out as a job inside the image and the
limits, or be refused; the canonical form of a job must be an address that gives the same job.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

SEEDS = [
    "a%2Fb/full/max/0/default.jpg",
    "2/a/0,0,9,9/full/!90/gray.png",
    "v3/a/pct:1.5,2,3,4/^!9,9/22.5/bitonal.webp",
    "a/square/pct:50/360/color.tif",
    "3/%C3%A9/info.json",
    "a/",
]


def main() -> None:
    """Run libFuzzer on `hostile.exercise`."""
    try:
        import atheris
    except ImportError:
        sys.exit("the fuzzer needs atheris: pip install atheris")
    # Only what is fuzzed is traced, so it is imported here.
    with atheris.instrument_imports(include=["special.iiif"]):
        from tests.support.hostile import exercise

    corpus = [] if any(not argument.startswith("-") for argument in sys.argv[1:]) else [_seeded()]
    atheris.Setup([*sys.argv, *corpus], exercise)
    atheris.Fuzz()


def _seeded() -> str:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-url-"))
    for number, seed in enumerate(SEEDS):
        (folder / f"{number}").write_text(seed)
    return str(folder)


if __name__ == "__main__":
    main()
