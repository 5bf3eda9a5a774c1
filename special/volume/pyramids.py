"""Pyramids: a further file of an object, made once on this machine.

What is dear to cut tiles from is made over once into something that is not (see `promote`), and
kept beside the object's data: counted with it, held and evicted with it, and as bound to its
version. One process makes it while all others go on as before; it is there when it is whole.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from special.storage import Blob, Span
from special.volume.block_fetch import uninterrupted
from special.volume.blocks import PAGE_BYTES, Damaged, whole_pages
from special.volume.faults import FAULTS, record_fault
from special.volume.object_files import ObjectFiles
from special.volume.pack_file import NEW, PackFile, PackWriter

PREFIX = "pyramid-"
"""How the names of these files start."""
INDEX_BYTES = 2 * PAGE_BYTES
"""What the file system may take beyond a file's content, for its extents and its name."""


class NoRoom(Exception):
    """The volume has no room for a pyramid."""


class Elsewhere(Exception):
    """Somebody is making this pyramid already."""


class InUse(Protocol):
    """An open object, as far as it matters here."""

    shelf: ObjectFiles
    readers: int
    hits: int


class Keeper(Protocol):
    """What is needed of the volume; see there."""

    def in_use(self, blob: Blob) -> InUse | None: ...
    async def hold(self, blob: Blob) -> InUse | None: ...
    async def spend(self, shelf: ObjectFiles, need: int, write: Callable[[], None]) -> bool: ...
    async def weigh(self, shelf: ObjectFiles) -> None: ...


class Making:
    """A pyramid in the making: parts are appended, and at last it is published."""

    def __init__(self, draft: PackWriter, spend: Callable[[int, Callable[[], None]], Awaitable[bool]]) -> None:
        self._draft = draft
        self._spend = spend

    async def append(self, parts: Sequence[bytes]) -> list[Span]:
        """Write parts; where they lie. Raises `NoRoom`, `OSError`, `sqlite3.Error`."""
        start = self._draft.size_bytes
        await self._write(sum(map(len, parts)), partial(self._draft.append, parts))
        spans: list[Span] = []
        for part in parts:
            spans.append(Span.at(start, len(part)))
            start += len(part)
        return spans

    @property
    def size_bytes(self) -> int:
        """Where the next part will lie."""
        return self._draft.size_bytes

    async def publish(self, head: bytes) -> None:
        """Write the first part, and let all see the file. Raises `NoRoom`, `OSError`, `sqlite3.Error`."""
        await self._write(self._draft.table_bytes, partial(self._draft.seal, head))
        await uninterrupted(asyncio.to_thread(self._draft.publish))

    async def _write(self, size_bytes: int, write: Callable[[], None]) -> None:
        need = whole_pages(size_bytes) + INDEX_BYTES
        if not await self._spend(need, write):
            raise NoRoom(f"the volume has no room for {need} bytes more")


class Pyramids:
    """The pyramids of one volume."""

    def __init__(self, volume: Keeper) -> None:
        self._volume = volume

    def peek_file(self, blob: Blob) -> PackFile | None:
        """The object's pyramid, if it was found before, and held against eviction for a while."""
        in_use = self._volume.in_use(blob)
        return in_use.shelf.pyramid if in_use is not None else None

    def peek(self, blob: Blob, span: Span) -> bytes | None:
        """Whole parts of a pyramid that is at hand, if they are in memory and right. Never waits for the disk."""
        in_use = self._volume.in_use(blob)
        if in_use is None or in_use.shelf.pyramid is None:
            return None
        try:
            data = in_use.shelf.pyramid.peek(span)
        except Damaged:  # `read` will find it out again, and see to it
            return None
        in_use.hits += data is not None
        return data

    async def find(self, blob: Blob, name: str) -> PackFile | None:
        """The object's pyramid of this name; None if there is none. Costs a look at the disk."""
        in_use = await self._volume.hold(blob)
        if in_use is None:
            return None
        shelf = in_use.shelf
        if shelf.pyramid is None or shelf.pyramid.path.name != name:
            in_use.readers += 1
            try:
                shelf.pyramid = await uninterrupted(asyncio.to_thread(_open, shelf, name))
            finally:
                in_use.readers -= 1
        return shelf.pyramid

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes] | None:
        """Whole parts of a pyramid that is at hand; None where that is not so any more, or it is broken."""
        in_use = self._volume.in_use(blob)
        if in_use is None or (pyramid := in_use.shelf.pyramid) is None:
            return None
        in_use.readers += 1
        try:
            found: list[bytes] = []
            for span in spans:
                data = self.peek(blob, span)
                found.append(await uninterrupted(asyncio.to_thread(pyramid.read, span)) if data is None else data)
        except (OSError, Damaged) as error:
            record_fault("corrupt", error)
            await self.discard(blob)
            return None
        finally:
            in_use.readers -= 1
        return found

    async def discard(self, blob: Blob) -> None:
        """Remove a pyramid that is at hand and cannot be used."""
        in_use = self._volume.in_use(blob)
        if in_use is None or (pyramid := in_use.shelf.pyramid) is None:
            return
        in_use.shelf.pyramid = None
        try:
            await uninterrupted(asyncio.to_thread(pyramid.remove))
        except OSError as error:
            record_fault("write", error)
        await self._volume.weigh(in_use.shelf)

    @asynccontextmanager
    async def making(self, blob: Blob, name: str, *, head_bytes: int) -> AsyncGenerator[Making | None, None]:
        """A pyramid to be made; what is not published in the end is removed.

        None where one stands already, or where the object goes past the volume. Raises `Elsewhere`.
        """
        in_use = await self._volume.hold(blob)
        if in_use is None:
            yield None
            return
        shelf = in_use.shelf
        in_use.readers += 1  # keeps it from being evicted, and its files open
        try:
            if not shelf.lock_pyramid():
                raise Elsewhere(f"{name} of {blob.url} is being made")
            try:
                draft = await uninterrupted(asyncio.to_thread(_begin, shelf, name, head_bytes))
                if draft is None:
                    yield None
                    return
                try:
                    yield Making(draft, partial(self._volume.spend, shelf))
                finally:
                    await uninterrupted(asyncio.to_thread(draft.close))
                    await self._volume.weigh(shelf)
            finally:
                shelf.unlock_pyramid()
        finally:
            in_use.readers -= 1


def _open(shelf: ObjectFiles, name: str) -> PackFile | None:
    path = shelf.directory / name
    try:
        return PackFile.open(path, shelf.blocks.digest)
    except Damaged as error:
        record_fault("corrupt", error)
        _remove(path)
    except FAULTS as error:
        record_fault("open", error)
    return None


def _begin(shelf: ObjectFiles, name: str, head_bytes: int) -> PackWriter | None:
    """A draft, in place of pyramids that were made by other settings; None if there is nothing to do."""
    path = shelf.directory / name
    if path.exists():
        return None
    for other in _of(shelf.directory):
        _remove(other)
    return PackWriter(path, shelf.blocks.digest, head_bytes=head_bytes)


def verify(shelf: ObjectFiles) -> tuple[int, int]:
    """Read all of an object's pyramids: how many are right, and how many were not, and are gone. Blocks."""
    right = wrong = 0
    for path in _of(shelf.directory):
        if path.name.endswith(NEW):  # somebody is at it
            continue
        try:
            parts = PackFile.open(path, shelf.blocks.digest)
            if parts is not None:
                parts.check()
                right += 1
        except Damaged:
            _remove(path)
            wrong += 1
    return right, wrong


def _remove(path: Path) -> None:
    """Emptied first: an open descriptor in another process must not keep its space."""
    with suppress(FileNotFoundError):
        os.truncate(path, 0)
        path.unlink()


def _of(directory: Path) -> list[Path]:
    """All pyramids of an object, whole or not."""
    return sorted(directory.glob(PREFIX + "*"))
