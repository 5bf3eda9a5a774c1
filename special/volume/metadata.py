"""Notes: what was found out about an object by reading it, kept beside its data.

Whoever parsed a master's headers leaves what they say here, so that after a restart, or in another process,
nobody reads them again: it only has to be asked whether the version noted is still the current one. A note is
one small file among the object's own: counted with them, evicted with them, and checked against the object's
digest, so that another version's note is as wrong as a broken one.

    0    16 bytes  magic, with the format's version
    16    4 bytes  CRC32C of the object's digest and of the text
    20             text: whatever was noted
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import google_crc32c

from special.storage import Blob
from special.volume.blocks import PAGE_BYTES, Damaged, whole_pages
from special.volume.directory import VolumeDirectory, described
from special.volume.faults import FAULTS, record_fault
from special.volume.object_files import ObjectFiles
from special.volume.pack_file import NEW
from special.volume.pyramids import InUse

T = TypeVar("T")

NAME = "note"
MAGIC = b"special-note\0\0\0\1"
MAX_BYTES = 4 << 20
"""Longest text: more than the longest list of packets or tiles that is worth keeping."""
MAX_WAITING = 1000
"""Notes that may wait to be written; one that is not costs its headers once more, and nothing else."""

_FIXED = struct.Struct("<16sI")


@dataclass(frozen=True, slots=True)
class StoredMetadata:
    """A note, and which version of which object it is of."""

    url: str
    etag: str
    size_bytes: int
    """Length of the object."""
    text: bytes


class Keeper(Protocol):
    """What is needed of the volume; see there."""

    broken: str | None

    async def hold(self, blob: Blob) -> InUse | None: ...
    async def spend(self, shelf: ObjectFiles, need: int, write: Callable[[], None]) -> bool: ...
    async def consult(self, question: Callable[[VolumeDirectory], T]) -> T | None: ...


class MetadataStore:
    """The notes of one volume."""

    def __init__(self, volume: Keeper) -> None:
        self._volume = volume
        self._waiting: dict[Blob, Callable[[], bytes]] = {}
        self._writer: asyncio.Task[None] | None = None

    def put(self, blob: Blob, text: Callable[[], bytes]) -> None:
        """Note something in the background, in place of what was noted before; `text` is called in a thread.

        A fault of the disk is counted, nothing is raised.
        """
        if self._volume.broken is not None or (blob not in self._waiting and len(self._waiting) >= MAX_WAITING):
            return
        self._waiting[blob] = text
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def get(self, urls: Sequence[str]) -> StoredMetadata | None:
        """The note of the version that was read last, of the first of these objects that has one.

        Costs a look at the books and a file of some KB; it says nothing of which version is current by now.
        """
        return await self._volume.consult(partial(_recall, urls=urls))

    async def flush(self) -> None:
        """Wait until everything that was jotted down is written."""
        if self._writer is not None:
            await self._writer

    async def close(self) -> None:
        """Finish the note that is being written, and leave the others."""
        self._waiting.clear()
        await self.flush()

    async def _write_all(self) -> None:
        while self._waiting:
            blob = next(iter(self._waiting))
            text = await asyncio.to_thread(self._waiting.pop(blob))
            in_use = await self._volume.hold(blob) if len(text) <= MAX_BYTES else None
            if in_use is None:
                continue
            in_use.readers += 1  # keeps it from being evicted
            try:
                if await asyncio.to_thread(_read, in_use.shelf) != text:
                    need = whole_pages(_FIXED.size + len(text)) + PAGE_BYTES
                    await self._volume.spend(in_use.shelf, need, partial(_write, in_use.shelf, text))
            except FAULTS as error:
                record_fault("write", error)
            finally:
                in_use.readers -= 1


def verify(shelf: ObjectFiles) -> bool:
    """Whether an object's note, if it has one, is right; one that is not is removed. Blocks."""
    try:
        _parse(shelf, (shelf.directory / NAME).read_bytes())
    except FileNotFoundError:
        return True
    except Damaged:
        (shelf.directory / NAME).unlink(missing_ok=True)
        return False
    return True


def _recall(stacks: VolumeDirectory, *, urls: Sequence[str]) -> StoredMetadata | None:
    with stacks.open_ledger() as ledger:
        names = [(url, ledger.current(url)) for url in urls]
    for url, name in names:
        if name is None:
            continue
        try:
            blocks = described(stacks.object_directory(name))
        except FileNotFoundError:  # just evicted
            continue
        except Damaged as error:
            record_fault("corrupt", error)
            continue
        shelf = stacks.find(blocks)
        if shelf is not None:
            with closing(shelf):
                text = _read(shelf)
            if text is not None:
                return StoredMetadata(url, blocks.etag, blocks.size_bytes, text)
    return None


def _read(shelf: ObjectFiles) -> bytes | None:
    """What is noted; None if nothing is that can be believed."""
    try:
        return _parse(shelf, (shelf.directory / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except Damaged as error:
        record_fault("corrupt", error)
    except OSError as error:
        record_fault("read", error)
    return None


def _parse(shelf: ObjectFiles, data: bytes) -> bytes:
    text = data[_FIXED.size :]
    if len(data) < _FIXED.size or _FIXED.unpack_from(data) != (MAGIC, _bound(shelf, text)):
        raise Damaged(f"{shelf.directory / NAME} is of another version, of another object, or broken")
    return text


def _write(shelf: ObjectFiles, text: bytes) -> None:
    """Under another name first: what has its own name is whole."""
    path: Path = shelf.directory / NAME
    new = path.with_name(f"{NAME}-{os.getpid()}{NEW}")
    try:
        new.write_bytes(_FIXED.pack(MAGIC, _bound(shelf, text)) + text)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _bound(shelf: ObjectFiles, text: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(shelf.blocks.digest), text))
