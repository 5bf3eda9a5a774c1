"""A read-only view of a folder that folds case, as a Mac's file system does.

    python -m tests.support.folding_files A B

shows folder A at the mount point B, in the foreground, until it is ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from errno import ENOENT
from pathlib import Path

from mfusepy import FUSE, FuseOSError, Operations


class FoldingFiles(Operations):  # type: ignore[misc]
    """Every spelling of a name is the file."""

    use_ns = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = self._find(path).stat()
        names = ("st_mode", "st_nlink", "st_size", "st_ino", "st_uid", "st_gid", "st_mtime_ns", "st_ctime_ns")
        return {name.removesuffix("_ns"): getattr(found, name) for name in names}

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        yield from (".", "..", *os.listdir(self._find(path)))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._find(path).read_bytes()[offset : offset + size]

    def _find(self, path: str) -> Path:
        found = self._folder
        for part in filter(None, path.split("/")):
            found = next((it for it in found.iterdir() if it.name.casefold() == part.casefold()), Path())
            if found == Path():
                raise FuseOSError(ENOENT)
        return found


if __name__ == "__main__":
    FUSE(FoldingFiles(Path(sys.argv[1])), sys.argv[2], foreground=True, ro=True)
