"""Images that are to be forgotten: a file in the state folder by which the servers of a machine learn of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from special.concurrency import replace_file

MAX_BYTES: Final = 1 << 20
"""A longer file is replaced by an empty one."""


class PurgeList:
    """Identifiers, one a line as JSON text, that writers append and servers read on from where they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = self._size()

    def add(self, identifiers: Iterable[str]) -> None:
        """Have all servers with this state folder forget these images. Raises `OSError`."""
        if self._size() > MAX_BYTES:
            replace_file(self._path, b"")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, b"".join(json.dumps(it).encode() + b"\n" for it in identifiers))
        finally:
            os.close(file)

    def news(self) -> list[str]:
        """What was added since this was called last, or since this object was made. Raises `OSError`, `ValueError`."""
        size = self._size()
        if size == self._read_to:
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_to if self._read_to < size else 0)
            lines = file.read().split(b"\n")
            self._read_to = file.tell() - len(lines[-1])  # a line that is being written is read the next time
        return [json.loads(line) for line in lines[:-1]]

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
