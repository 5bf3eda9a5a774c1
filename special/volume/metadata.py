"""Metadata: what was parsed from a master's headers, kept beside its data.

After a restart, or in another process, the headers are not read again: only whether the stored version is still the
current one has to be asked. The text is one small file among the object's own: counted and evicted with them, and
checked against the object's digest, so that another version's text is as wrong as a broken one.

A file and not a row of the ledger, although a row is quicker (0.1 ms for 0.9 to write 4 KB, 0.35 for 1.1 to write
200 KB): SQLite gives nothing back to the disk when rows go, and one text of `MAX_BYTES` needs six times the space
that is set apart for the ledger.

    0    16 bytes  magic, with the format's version
    16    4 bytes  CRC32C of the object's digest and of the text
    20             text
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import google_crc32c

from special.concurrency import replace_file
from special.storage import Blob
from special.volume.blocks import PAGE_BYTES, PAGE_MARK, Damaged, of_page, whole_pages
from special.volume.directory import VolumeDirectory
from special.volume.disk import VolumeDisk
from special.volume.faults import FAULTS, record_fault
from special.volume.no_follow import read_file
from special.volume.object_files import ObjectFiles, read_block_map
from special.volume.open_objects import OpenObjects
from special.volume.pack_file import NEW

NAME = "note"
MAGIC = b"special-note\0\0\0\1"
MAX_BYTES = 4 << 20
"""Maximum length of a text: more than the longest list of packets or tiles that is worth keeping."""
MAX_WAITING = 1000
"""Maximum number of texts that wait to be written. One that is not written costs reading the headers again."""

_FIXED = struct.Struct("<16sI")


@dataclass(frozen=True, slots=True)
class StoredMetadata:
    """A text, and which version of which object it describes."""

    url: str
    etag: str
    size_bytes: int
    """Length of the object."""
    text: bytes


class MetadataStore:
    """The metadata in one volume."""

    def __init__(self, objects: OpenObjects, disk: VolumeDisk, *, name_of: Callable[[str], str]) -> None:
        self._objects = objects
        self._disk = disk
        self._name_of = name_of
        self._waiting: dict[Blob, Callable[[], bytes]] = {}
        self._writer: asyncio.Task[None] | None = None

    def put(self, blob: Blob, text: Callable[[], bytes]) -> None:
        """Store a text in the background, in place of an earlier one; `text` is called in a thread.

        A fault of the disk is counted, nothing is raised.
        """
        if self._disk.broken is not None or (blob not in self._waiting and len(self._waiting) >= MAX_WAITING):
            return
        self._waiting[blob] = text
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def get(self, urls: Sequence[str], page: int = 1) -> StoredMetadata | None:
        """The text of the version that was read last, of a page of the first of these objects that has one.

        Costs a query of the ledger and a file of some KB; it does not say which version is current by now. A caller
        that is cancelled leaves at once.
        """
        stored_as = {url: self._name_of(url if page == 1 else f"{url}{PAGE_MARK}{page}") for url in urls}
        work = partial(self._disk.guarded, partial(_find, self._disk.directory, stored_as))
        return await self._disk.attempt("reading metadata", work)

    async def flush(self) -> None:
        """Wait until everything that was put is written."""
        if self._writer is not None:
            await self._writer

    async def close(self) -> None:
        """Finish the text that is being written, and leave the others."""
        self._waiting.clear()
        await self.flush()

    async def _write_all(self) -> None:
        while self._waiting:
            blob = next(iter(self._waiting))
            text = await asyncio.to_thread(self._waiting.pop(blob))
            open_object = await self._objects.open(of_page(blob)) if len(text) <= MAX_BYTES else None
            if open_object is None:
                continue
            with open_object.reading() as files:  # it is not evicted meanwhile
                try:
                    if await self._disk.read(_read, files) != text:
                        need = whole_pages(_FIXED.size + len(text)) + PAGE_BYTES
                        await self._objects.reserve_and_write(files, need, partial(_write, files, text))
                except FAULTS as error:
                    record_fault("write", error)


def verify(files: ObjectFiles) -> bool:
    """Whether an object's metadata, if it has any, is right; else it is removed. Blocks."""
    try:
        _parse(files, read_file(files.directory / NAME))
    except FileNotFoundError:
        return True
    except Damaged:
        (files.directory / NAME).unlink(missing_ok=True)
        return False
    return True


def _find(directory: VolumeDirectory, stored_as: Mapping[str, str]) -> StoredMetadata | None:
    with directory.open_ledger() as ledger:
        names = [(url, ledger.current(name)) for url, name in stored_as.items()]
    for url, name in names:
        if name is None:
            continue
        try:
            blocks = read_block_map(directory.object_directory(name))
        except FileNotFoundError:  # just evicted
            continue
        except Damaged as error:
            record_fault("corrupt", error)
            continue
        files = directory.find(blocks)
        if files is not None:
            with closing(files):
                text = _read(files)
            if text is not None:
                return StoredMetadata(url, blocks.etag, blocks.size_bytes, text)
    return None


def _read(files: ObjectFiles) -> bytes | None:
    """The stored text; None if there is none, or it is broken."""
    try:
        return _parse(files, read_file(files.directory / NAME))
    except FileNotFoundError:
        return None
    except Damaged as error:
        record_fault("corrupt", error)
    except OSError as error:
        record_fault("read", error)
    return None


def _parse(files: ObjectFiles, data: bytes) -> bytes:
    text = data[_FIXED.size :]
    if len(data) < _FIXED.size or _FIXED.unpack_from(data) != (MAGIC, _bound(files, text)):
        raise Damaged(f"{files.directory / NAME} is of another version, of another object, or broken")
    return text


def _write(files: ObjectFiles, text: bytes) -> None:
    temporary = files.directory / f"{NAME}-{os.getpid()}{NEW}"
    replace_file(files.directory / NAME, _FIXED.pack(MAGIC, _bound(files, text)) + text, temporary=temporary)


def _bound(files: ObjectFiles, text: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(files.blocks.digest), text))
