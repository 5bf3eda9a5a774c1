"""Files of a volume are opened and emptied without following symbolic links: a link counts as no file."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a file. Raises `FileNotFoundError` also for a link, `OSError`."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ENOENT, "a symbolic link is not followed", str(path)) from error
        raise


def read_file(path: Path, size_bytes: int = -1) -> bytes:
    """The first bytes of a file, or all. Raises `FileNotFoundError` also for a link, `OSError`."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read(size_bytes)


def remove_file(path: Path) -> None:
    """Remove a file or a link, if it is there. A file is emptied first: an open descriptor must not keep its space."""
    with suppress(FileNotFoundError):
        if not path.is_symlink():
            fd = open_file(path, os.O_WRONLY)
            try:
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)
        path.unlink()
