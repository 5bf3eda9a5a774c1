"""What to run before a commit: lint, format, types, layers and unit tests, a line each. `python -m tests.check`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
CODE: dict[str, tuple[str | Path, ...]] = {
    "lint": (sys.executable, "-m", "ruff", "check", "."),
    "format": (sys.executable, "-m", "ruff", "format", "--check", "."),
    "types": (sys.executable, "-m", "mypy"),
    "layers": (SCRIPTS / "lint-imports",),
}
UNIT = (sys.executable, "-m", "pytest", "-q", "-m", "unit")


def main() -> int:
    """Run all of them, whichever fail; the exit code is 1 if any did."""
    return max([_passed(name, command) for name, command in {**CODE, "unit": UNIT}.items()])


def _passed(name: str, command: tuple[str | Path, ...]) -> int:
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = done.returncode != 0
    print(f"{name:8} {'FAILED' if failed else 'passed'} {time.monotonic() - start:6.1f} s", flush=True)
    if failed:
        print(done.stdout + done.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
