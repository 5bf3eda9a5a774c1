"""A source as files and folders: what names stand for, what a folder has, and what bytes a file has.

One look-up costs a HEAD, and a listing of one key where there is no such object. A folder is listed a page at a time.
Bytes come through the volume, in blocks that servers on this machine share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from special.concurrency import LRUCache, SingleFlight
from special.errors import Denied, MasterError, Missing, SourceError, Unreachable
from special.formats import drive, tiff
from special.images import TAIL_BYTES, TailReads
from special.mount.names import FOLDER_SUFFIX, FolderNames, folder_prefix, is_nameable
from special.mount.read_ahead import ReadAhead, Spread
from special.storage import Blob, Folder, Span, Tree
from special.volume import Volume

log = logging.getLogger(__name__)

HEAD_BYTES = 65536
"""What is read of a file when it is opened."""
KNOWN_VERSIONS = 4096
"""Versions whose headers have been fetched, and of which it is known how they are read."""
MOST_FETCHES = 64
"""Fetches ahead that are under way at once, for all files. Further ones are left out: programs ask by themselves."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that a program has open."""

    blob: Blob
    """The version that it reads to the end."""
    spread: Spread
    """How all programs read that version here and there."""
    read_ahead: ReadAhead
    """How this program reads on."""


class FileSystem:
    """Files and folders of one source, read through a volume."""

    def __init__(self, source: Tree, volume: Volume, *, lists: bool) -> None:
        """`lists`: whether the store is asked for what folders have. If not, any name without an object is a folder."""
        self._source = source
        self._volume = volume
        self._in_place = isinstance(source, Folder)
        self._lists = lists
        self._look_ups: SingleFlight[Blob | str] = SingleFlight()
        self._fetches: set[asyncio.Task[None]] = set()
        self._tail_reads = TailReads()
        self._spreads: LRUCache[str, Spread] = LRUCache(KNOWN_VERSIONS)

    async def check(self) -> None:
        """Find out whether folders can be listed at all. Raises `Unreachable`."""
        try:
            await self._has_children("")
        except Unreachable:
            raise
        except SourceError as error:
            log.warning("%s cannot be listed, so any name without an object is a folder: %s", self._source.root, error)
            self._lists = False

    async def look_up(self, prefix: str, name: str) -> Blob | str:
        """What a name in the folder of `prefix` stands for: a file's version, or a folder's prefix.

        Programs that ask at once share the answer. Raises `Missing`, `Denied`, `Unreachable`.
        """
        return await self._look_ups.run((prefix, name), lambda: self._look_up(prefix, name))

    async def _look_up(self, prefix: str, name: str) -> Blob | str:
        folder = folder_prefix(prefix, name)
        absent: SourceError = Missing(f"{self._source.root} has nothing at {prefix}{name}")
        if not name.endswith(FOLDER_SUFFIX):
            try:
                return await self._source.stat(prefix + name)
            except (Missing, Denied) as error:  # S3 denies what is not there, where we may not list
                absent = error
        if not self._lists or await self._has_children(folder):
            return folder
        raise absent

    async def _has_children(self, prefix: str) -> bool:
        async with aclosing(self._source.children(prefix, first_only=True)) as found:
            return await anext(found, None) is not None

    async def entries(self, prefix: str) -> AsyncGenerator[tuple[str, Blob | str], None]:
        """Names in the folder of `prefix` and what they stand for, in the order of the keys. Raises as `look_up`."""
        if not self._lists:
            raise Denied(f"{self._source.root} is not listed")
        names = FolderNames()
        async for child in self._source.children(prefix):
            key = child.key if isinstance(child, Blob) else child.removesuffix("/")
            segment = key.removeprefix(prefix)
            if is_nameable(segment):
                name = names.of_object(segment) if isinstance(child, Blob) else names.of_folder(segment)
                yield name, child

    def open(self, blob: Blob) -> OpenFile:
        """A file to be read. The first time, its headers begin to come."""
        spread = self._spreads.get(blob.version)
        if spread is None:
            self._spreads.put(blob.version, spread := Spread(blob.size))
            if not self._in_place and blob.size > HEAD_BYTES:
                self._start(self._study(blob))
        return OpenFile(blob, spread, ReadAhead(blob.size))

    def peek(self, file: OpenFile, span: Span) -> list[memoryview] | None:
        """Parts of the bytes of a span, in order, if all of them are in memory. Never waits."""
        parts = self._volume.peek_parts(file.blob, span)
        if parts is not None:
            self._read_ahead(file, span)
        return parts

    async def read(self, file: OpenFile, span: Span) -> list[memoryview]:
        """Parts of the bytes of a span of the file's version, in order. Raises `SourceError`."""
        if self._in_place:
            return [memoryview(data) for data in await self._source.read(file.blob, [span])]
        self._read_ahead(file, span)
        near = span
        if span.start >= HEAD_BYTES:
            near, around = file.spread.record_miss(span)
            for piece in around:
                self._start(self._fetch(file.blob, piece))
        return _first_bytes(await self._volume.read_parts(self._source, file.blob, near), len(span))

    async def close(self) -> None:
        """Stop what is being fetched ahead."""
        for task in self._fetches:
            task.cancel()
        await asyncio.gather(*self._fetches, return_exceptions=True)

    def _read_ahead(self, file: OpenFile, span: Span) -> None:
        for piece in file.read_ahead.record(span):
            self._start(self._fetch(file.blob, piece))

    async def _fetch(self, blob: Blob, span: Span) -> None:
        await self._volume.read_parts(self._source, blob, span)

    async def _study(self, blob: Blob) -> None:
        """Bring a file's head, its tail where programs look there, and all directories of a TIFF.

        Each is linked from the one before, and programs follow the links one by one. Our parser knows where libvips
        and others put them, and reads most of them at once.
        """
        reader, spans = self._volume.reader(self._source), [Span(0, HEAD_BYTES)]
        if self._tail_reads.is_useful(blob.key):
            spans.append(Span(max(HEAD_BYTES, blob.size - TAIL_BYTES), blob.size))
        data = await reader.read(blob, spans)
        self._tail_reads.record(blob.key, data[0], blob.size)
        if tiff.sniff(data[0]):
            parser = tiff.parse(blob.size, tail_bytes=sum(map(len, data[1:])))
            await drive(parser, reader, blob, max_gap_bytes=0, seen=list(zip(spans, data, strict=True)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what no program waits for: it is told of errors when it reads the same."""
        if len(self._fetches) >= MOST_FETCHES:
            work.close()
            return

        async def quietly() -> None:
            with suppress(SourceError, MasterError):
                await work

        task = asyncio.create_task(quietly())
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)


def _first_bytes(parts: Iterable[memoryview], count: int) -> list[memoryview]:
    """As many bytes of some parts as that."""
    found: list[memoryview] = []
    for part in parts:
        if count <= 0:
            break
        found.append(part[:count])
        count -= len(part)
    return found
