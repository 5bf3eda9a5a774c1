"""`python -m tests.bench [B1 …]`: run the benches of `tests/bench` and print their table.

`python -m tests.bench bytes` prints README's table of bytes and GETs instead; `--write` puts it there.
"""

from __future__ import annotations

import sys

from tests.bench import bytes_read


def main(arguments: list[str]) -> None:
    """Print what was asked for."""
    match arguments:
        case ["bytes"]:
            print(bytes_read.table())
        case ["bytes", "--write"]:
            bytes_read.README.write_text(bytes_read.written(), "utf-8")
        case _:
            sys.exit(f"no such bench: {' '.join(arguments)}")


if __name__ == "__main__":
    main(sys.argv[1:])
