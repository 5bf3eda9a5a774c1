"""Files that readers see whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
"""What a killed process left under the same name is written over; a symbolic link is not followed."""


def replace_file(path: Path, data: bytes, *, temporary: Path | None = None) -> None:
    """Give a file new content in one step. `temporary`, by default a hidden random name, is in the same folder.

    Not on the disk when this returns: after a crash of the machine it may be the old one, the new one, or cut short.
    """
    with temporary_file(path, temporary=temporary) as (file, name):
        file.write(data)
        file.flush()
        name.replace(path)


@contextmanager
def temporary_file(path: Path, *, temporary: Path | None = None, mode: int = 0o666) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside its future place, and its name for now; removed in the end, unless it has been renamed."""
    name = temporary or path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(name, _NEW, mode)
    try:
        with open(descriptor, "wb") as file:
            yield file, name
    finally:
        with suppress(FileNotFoundError):
            name.unlink()
