"""Images that were taken down: by this file running servers learn which to forget at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from special.concurrency import replace_file

MAX_NAMES: Final = 10_000
"""Maximum number of identifiers in the file. Servers read it a second later; by then what is older does no more."""


class Takedowns:
    """The file `takedowns` in the state folder: one identifier a line, percent-encoded where it must be."""

    def __init__(self, home: Path) -> None:
        self._path = home / "takedowns"

    def add(self, identifiers: Iterable[str]) -> None:
        """Tell all servers with this state folder to forget these images. Raises `OSError`."""
        names = [*self.names(), *identifiers][-MAX_NAMES:]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, "".join(f"{_escaped(name)}\n" for name in names).encode())

    def names(self) -> list[str]:
        """The identifiers in the file, the last one last; none without a file."""
        try:
            lines = self._path.read_text("utf-8").split("\n")
        except FileNotFoundError:
            return []
        return [line.replace("%0A", "\n").replace("%25", "%") for line in lines if line]

    def stamp(self) -> tuple[int, int] | None:
        """Another value whenever the file is another one."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("\n", "%0A")
