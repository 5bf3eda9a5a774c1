"""Pyramids: a further file of an object, made once on this machine.

A master that is expensive to cut tiles from is converted once into a file that is not (see
`serving.pyramid_builder`). It is kept beside the object's data: counted, protected and evicted with it, and bound
to its version. One process makes it while all others go on as before; it has its name when it is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from special.storage import Blob, Span
from special.volume.blocks import PAGE_BYTES, Damaged, of_page, whole_pages
from special.volume.disk import VolumeDisk, uninterrupted
from special.volume.faults import FAULTS, record_fault
from special.volume.no_follow import remove_file
from special.volume.object_files import ObjectFiles
from special.volume.open_objects import OpenObject, OpenObjects
from special.volume.pack_file import NAMED_BYTES, NEW, PackDraft, PackFile, PackWriter

T = TypeVar("T")

PREFIX = "pyramid-"
"""How the names of these files start."""
INDEX_BYTES = 2 * PAGE_BYTES
"""What the file system may take beyond a file's content, for its extents and its name."""


class NoSpace(Exception):
    """The volume has no space for a pyramid."""


class Elsewhere(Exception):
    """Another task or process is making this pyramid already."""


class PyramidWriter:
    """A pyramid that is being made: parts are appended, and at last it is published."""

    def __init__(self, draft: PackWriter, files: ObjectFiles, objects: OpenObjects) -> None:
        self._draft = draft
        self._files = files
        self._objects = objects

    async def append(self, parts: Sequence[bytes], names: Sequence[bytes] = ()) -> list[Span]:
        """Write parts; returns where they are. Raises `NoSpace`, `OSError`, `sqlite3.Error`.

        Other processes may read those with a name, of at most 16 bytes, from now on (`Pyramids.read_draft`).
        """
        start = self._draft.size_bytes
        size_bytes = sum(map(len, parts)) + NAMED_BYTES * len(names)
        await self._write(size_bytes, partial(self._draft.append, parts, names))
        spans: list[Span] = []
        for part in parts:
            spans.append(Span.at(start, len(part)))
            start += len(part)
        return spans

    async def read(self, span: Span) -> bytes | None:
        """A part that was appended; None after the making. Raises `OSError`."""
        return await asyncio.to_thread(self._draft.read, span)

    @property
    def size_bytes(self) -> int:
        """Where the next part will start."""
        return self._draft.size_bytes

    async def publish(self, head: bytes) -> None:
        """Write the first part, and let all see the file. Raises `NoSpace`, `OSError`, `sqlite3.Error`."""
        await self._write(self._draft.table_bytes, partial(self._draft.seal, head))
        await uninterrupted(asyncio.to_thread(self._draft.publish))

    async def _write(self, size_bytes: int, write: Callable[[], None]) -> None:
        need = whole_pages(size_bytes) + INDEX_BYTES
        if not await self._objects.reserve_and_write(self._files, need, write):
            raise NoSpace(f"the volume has no space for {need} bytes more")


class Pyramids:
    """The pyramids of one volume. A caller that is cancelled leaves at once, except in `making`."""

    def __init__(self, objects: OpenObjects, disk: VolumeDisk) -> None:
        self._objects = objects
        self._disk = disk

    def peek_file(self, blob: Blob) -> PackFile | None:
        """The object's pyramid, if it was found before, and protected from eviction for a while."""
        open_object = self._objects.get(of_page(blob))
        return open_object.files.pyramid if open_object is not None else None

    def peek(self, blob: Blob, span: Span) -> bytes | None:
        """Whole parts of a pyramid that was found before, if they are in memory and right. Never waits for the disk."""
        open_object = self._objects.get(of_page(blob))
        if open_object is None or open_object.files.pyramid is None:
            return None
        try:
            data = open_object.files.pyramid.peek(span)
        except Damaged:  # `read` finds it too, and handles it
            return None
        open_object.hits += data is not None
        return data

    async def find(self, blob: Blob, name: str) -> PackFile | None:
        """The object's pyramid of this name; None if there is none. Costs a look-up on the disk."""
        open_object = await self._objects.open(of_page(blob))
        if open_object is None:
            return None
        pyramid = open_object.files.pyramid
        if pyramid is not None and pyramid.path.name == name:
            return pyramid
        return await self._disk.attempt(f"finding {name} of {blob.url}", lambda: self._find(open_object, name))

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes] | None:
        """Whole parts of a pyramid that was found before; None where it is gone, or broken."""
        open_object = self._objects.get(of_page(blob))
        if open_object is None or (pyramid := open_object.files.pyramid) is None:
            return None
        found = [data for span in spans if (data := self.peek(blob, span)) is not None]
        if len(found) == len(spans):
            return found
        what = f"reading the pyramid of {blob.url}"
        return await self._disk.attempt(what, lambda: self._read(open_object, pyramid, spans))

    async def find_draft(self, blob: Blob, name: str) -> PackDraft | None:
        """What another process has made so far of a pyramid; None if none is made, as far as the disk tells."""
        open_object = await self._objects.open(of_page(blob))
        if open_object is None:
            return None
        path, digest = open_object.files.directory / name, open_object.files.blocks.digest
        return await self._read_draft(blob, lambda: PackDraft.open(path, digest))

    async def read_draft(self, blob: Blob, draft: PackDraft, name: bytes) -> bytes | None:
        """A part of a pyramid that another process makes; None where it has none of that name, or is done."""
        return await self._read_draft(blob, lambda: draft.read(name)) if name in draft else None

    async def discard(self, blob: Blob) -> None:
        """Remove a pyramid that was found and cannot be used."""
        open_object = self._objects.get(of_page(blob))
        if open_object is not None and (pyramid := open_object.files.pyramid) is not None:
            what = f"removing the pyramid of {blob.url}"
            await self._disk.attempt(what, lambda: self._discard(open_object, pyramid))

    @asynccontextmanager
    async def making(self, blob: Blob, name: str, *, head_bytes: int) -> AsyncGenerator[PyramidWriter | None, None]:
        """A pyramid to be made; what is not published in the end is removed.

        None where there is one already, or where the object is read past the volume. Raises `Elsewhere`. Not for the
        task of a request: a cancellation waits for the disk.
        """
        open_object = await self._objects.open(of_page(blob))
        if open_object is None:
            yield None
            return
        with open_object.reading() as files:
            if not files.lock_pyramid():
                raise Elsewhere(f"{name} of {blob.url} is being made")
            try:
                draft = await uninterrupted(asyncio.to_thread(_begin, files, name, head_bytes))
                if draft is None:
                    yield None
                    return
                try:
                    yield PyramidWriter(draft, files, self._objects)
                finally:
                    await uninterrupted(asyncio.to_thread(draft.close))
                    await self._objects.weigh(files)
            finally:
                files.unlock_pyramid()

    async def _read_draft(self, blob: Blob, work: Callable[[], T | None]) -> T | None:
        async def read() -> T | None:
            try:
                return await self._disk.read(work)
            except OSError as error:
                record_fault("read", error)
                return None

        return await self._disk.attempt(f"reading a pyramid of {blob.url} that is being made", read)

    async def _find(self, open_object: OpenObject, name: str) -> PackFile | None:
        with open_object.reading() as files:
            files.pyramid = await self._disk.read(_open, files, name)
            return files.pyramid

    async def _read(self, open_object: OpenObject, pyramid: PackFile, spans: Sequence[Span]) -> list[bytes] | None:
        with open_object.reading():
            try:
                return await self._disk.read(lambda: [pyramid.read(span) for span in spans])
            except (OSError, Damaged) as error:
                record_fault("corrupt", error)
                await self._discard(open_object, pyramid)
                return None

    async def _discard(self, open_object: OpenObject, pyramid: PackFile) -> None:
        with open_object.reading() as files:
            if files.pyramid is pyramid:
                files.pyramid = None
            try:
                await self._disk.read(pyramid.remove)
            except OSError as error:
                record_fault("write", error)
            await self._objects.weigh(files)


def _open(files: ObjectFiles, name: str) -> PackFile | None:
    path = files.directory / name
    try:
        return PackFile.open(path, files.blocks.digest)
    except Damaged as error:
        record_fault("corrupt", error)
        remove_file(path)
    except FAULTS as error:
        record_fault("open", error)
    return None


def _begin(files: ObjectFiles, name: str, head_bytes: int) -> PackWriter | None:
    """A draft, in place of pyramids that were made with other settings; None if there is one with these."""
    path = files.directory / name
    if path.exists():
        return None
    for other in _of(files.directory):
        remove_file(other)
    return PackWriter(path, files.blocks.digest, head_bytes=head_bytes)


def verify(files: ObjectFiles) -> tuple[int, int]:
    """Read all of an object's pyramids: how many are right, and how many were not, and are gone. Blocks."""
    right = wrong = 0
    for path in _of(files.directory):
        if path.name.endswith(NEW):  # it is being made
            continue
        try:
            parts = PackFile.open(path, files.blocks.digest)
            if parts is not None:
                parts.check()
                right += 1
        except Damaged:
            remove_file(path)
            wrong += 1
    return right, wrong


def _of(directory: Path) -> list[Path]:
    """All pyramids of an object, whole or not."""
    return sorted(directory.glob(PREFIX + "*"))
