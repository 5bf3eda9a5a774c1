"""Objects whose every byte is known, and a source of them that records what it is asked for."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from special.errors import Changed, Missing
from special.storage.blob import Blob, Span

ROOT = "s3://made/"


PERIOD = 65_521
"""The bytes repeat after this number: a prime, so that no two blocks of an object are alike."""


@lru_cache(maxsize=512)
def pattern(key: str, version: int) -> bytes:
    return random.Random(f"{key} {version}").randbytes(PERIOD)


def content(key: str, version: int, span: Span) -> bytes:
    """The bytes f(key, version, offset), the same in every process."""
    first = span.start % PERIOD
    return (pattern(key, version) * (1 + (first + len(span)) // PERIOD))[first : first + len(span)]


def blob(key: str, size_bytes: int, version: int = 1) -> Blob:
    return Blob(ROOT, key, f'"{version}"', size_bytes)


def expected(of: Blob, spans: Sequence[Span]) -> list[bytes]:
    return [content(of.key, int(of.etag.strip('"')), span) for span in spans]


async def at_once(of: Blob, span: Span) -> None:
    """No latency, no fault."""


@dataclass
class Made:
    """A source of made objects. Keys that `current` does not name are missing."""

    current: dict[str, int] = field(default_factory=dict)
    """The version of each key."""
    before: Callable[[Blob, Span], Awaitable[None]] = at_once
    """Called before each GET is answered: where to wait, and where to raise."""
    log: Path | None = None
    """A file that gets a line for each GET, of whichever process."""
    gets: list[Span] = field(default_factory=list)
    """Every GET."""
    running: int = 0
    """GETs under way."""

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._get(blob, span)) for span in spans]
        except ExceptionGroup as group_of_errors:
            raise group_of_errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _get(self, blob: Blob, span: Span) -> bytes:
        assert span.stop <= blob.size
        self.gets.append(span)
        if self.log is not None:
            fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(fd, f"{os.getpid()} {blob.key} {span.start} {span.stop}\n".encode())
            os.close(fd)
        self.running += 1
        try:
            await self.before(blob, span)
        finally:
            self.running -= 1
        version = self.current.get(blob.key)
        if version is None:
            raise Missing(f"no {blob.url}")
        if blob.etag != f'"{version}"':
            raise Changed(f"{blob.url} is no longer {blob.etag}")
        return content(blob.key, version, span)


def taken_bytes(directory: Path) -> int:
    """What `du` says of a directory in which nothing moves."""
    return sum(_walk(directory).values())


def surely_taken_bytes(directory: Path) -> int:
    """What was taken at one instant of a directory in which files come, grow and go: a lower bound.

    `du` counts a file that goes and another that takes its place. What two walks both find was there between them.
    """
    before, after = _walk(directory), _walk(directory)
    return sum(min(size, after[file]) for file, size in before.items() if file in after)


def _walk(directory: Path) -> dict[tuple[str, int], int]:
    """Bytes on disk of each path and inode."""
    found: dict[tuple[str, int], int] = {}
    for where, _, files in os.walk(directory):
        for name in (".", *files):
            path = os.path.join(where, name)
            with suppress(FileNotFoundError):
                stat = os.lstat(path)
                found[path, stat.st_ino] = stat.st_blocks * 512
    return found
