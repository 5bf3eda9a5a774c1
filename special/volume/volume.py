"""A bounded local disk in front of a store, shared by all processes of a machine.

A reader of a blob gets the same bytes and the same errors through the volume as from the source itself, and most of
the time sooner. A block that is in the page cache is read in the event loop; everything that may wait happens in
tasks and threads of its own. Any fault of the local disk ends in a read from the source, and is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from special.errors import ConfigurationError
from special.observability import VOLUME_BLOCKS
from special.storage import Blob, Reader, Span
from special.volume.admin import VolumeStat, survey
from special.volume.block_fetch import FetchLimits
from special.volume.blocks import PAGE_BYTES, BlockMap
from special.volume.directory import Step, VolumeDirectory
from special.volume.disk import VolumeDisk
from special.volume.faults import record_fault
from special.volume.membership import VolumeTerms
from special.volume.metadata import MetadataStore
from special.volume.open_objects import OpenObject, OpenObjects
from special.volume.prefetch import BlockPrefetcher
from special.volume.pyramids import Pyramids

DEFAULT_BLOCK_BYTES = 64 << 10
"""As quick as 128 KiB and 256 KiB at 20 ms per request, for 20 % and 60 % fewer bytes, and the cheapest to read warm.

Smaller blocks cost more GETs. See tests/bench/volume_blocks.py."""
LEAST_BYTES = 8 << 20
"""Below this the ledger alone would take most of the space."""
PEEK_BYTES = 1 << 20
"""Maximum number of bytes read and checked in the event loop at once: some 100 µs."""
SLOW_S = 5.0
"""How long a reader waits for the local disk, as long as for another process that fetches.

Shorter, and a flood on a machine without a free processor goes past the volume, each reader with GETs of its own."""

_HIT, _PASSED = (VOLUME_BLOCKS.labels(how) for how in ("hit", "passed"))


class Volume:
    """A directory of a declared size. Open it before reading, in the event loop that reads.

    Several processes may open one directory. Every `maintenance_s` uses are written down and idle
    objects closed; a broken directory is tried again after ten times that. `at` is called before
    each named step, for tests that stop a process or fail a disk there.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size_bytes: int,
        name_of: Callable[[str], str] = str,
        block_bytes: int = DEFAULT_BLOCK_BYTES,
        run_bytes: int = 8 << 20,
        budget_bytes: int = 64 << 20,
        leader_timeout_s: float = 5.0,
        linger_s: float = 1.0,
        failure_memory_s: float = 0.25,
        maintenance_s: float = 1.0,
        max_open: int = 128,
        at: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """`name_of` gives what an object is called on the disk, from its URL: the store's endpoint may belong to it."""
        if size_bytes < LEAST_BYTES:
            raise ConfigurationError(
                f"a volume (volume_size) needs at least {LEAST_BYTES >> 20} MiB, not {size_bytes} bytes"
            )
        if block_bytes < PAGE_BYTES or block_bytes % PAGE_BYTES:
            raise ConfigurationError(f"a block is a multiple of {PAGE_BYTES} bytes, not {block_bytes}")
        self.directory = directory
        self._maintenance_s = maintenance_s
        limits = FetchLimits(run_bytes, budget_bytes, leader_timeout_s, linger_s, failure_memory_s)
        self.disk = VolumeDisk(VolumeDirectory(directory, at=at), VolumeTerms(size_bytes, block_bytes), slow_s=SLOW_S)
        self._name_of = name_of
        self.objects = OpenObjects(self.disk, limits=limits, max_open=max_open, name_of=name_of)
        self.pyramids = Pyramids(self.objects, self.disk)
        self.prefetcher = BlockPrefetcher(self.objects, self.disk)
        self.metadata = MetadataStore(self.objects, self.disk, name_of=name_of)
        self._scratch = bytearray(block_bytes)
        self._maintenance: asyncio.Task[None] | None = None

    @property
    def broken(self) -> str | None:
        """Why the directory cannot be used, and every read goes to the source; None if it can."""
        return self.disk.broken

    async def open(self) -> None:
        """Join the directory and bring it to its size.

        Raises `ConfigurationError` where another server uses it on other terms. A disk that
        fails is bypassed until it works: `broken` says why.
        """
        self.disk.start()
        try:
            await self.disk.join()
        except BaseException:
            self.disk.stop()
            raise
        self._maintenance = asyncio.create_task(self._maintain())

    async def close(self) -> None:
        """Stop what is being fetched, write down what was used, and leave the directory."""
        if self._maintenance is None:
            return
        await self.metadata.close()
        self._maintenance.cancel()
        await asyncio.gather(self._maintenance, return_exceptions=True)
        self._maintenance = None
        worked, self.disk.broken = self.broken is None, "closed"
        uses = self.objects.take_uses()
        await self.objects.close()
        if worked:
            await self.disk.guarded(self.disk.directory.touch, uses)
        await self.disk.write(self.disk.directory.leave)
        self.disk.stop()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    def reader(self, source: Reader, *, in_place: Set[str] = frozenset()) -> Reader:
        """The source's blobs, through the volume; those below the roots in `in_place` from the source itself."""
        return VolumeReader(self, source, in_place)

    async def read(self, source: Reader, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, in order. What is missing costs one GET for each run of adjacent blocks.

        A caller that is cancelled leaves at once. Raises what `source.read` raises.
        """
        if not spans:
            return []
        read = await self._read(source, blob, spans)
        if read is None:
            _PASSED.inc(len(spans))
            return await source.read(blob, spans)
        blocks, found = read
        return [blocks.cut(span, found) for span in spans]

    async def read_parts(self, source: Reader, blob: Blob, span: Span) -> list[memoryview]:
        """The bytes of a span as parts that follow each other, as `read` gives them, without the copy into one."""
        read = await self._read(source, blob, [span])
        if read is None:
            _PASSED.inc()
            return [memoryview(data) for data in await source.read(blob, [span])]
        blocks, found = read
        return blocks.parts(span, found)

    def peek(self, blob: Blob, spans: Sequence[Span]) -> list[bytes] | None:
        """The bytes of each span, if all of them are in memory. Never waits."""
        peeked = self._peek_all(blob, spans)
        return [peeked[0].cut(span, peeked[1]) for span in spans] if peeked else None

    def peek_parts(self, blob: Blob, span: Span) -> list[memoryview] | None:
        """The bytes of a span as parts that follow each other, if all of them are in memory. Never waits."""
        peeked = self._peek_all(blob, [span])
        return peeked[0].parts(span, peeked[1]) if peeked else None

    def in_use(self, blob: Blob) -> bool:
        """Count an object as read just now, so that it is not evicted; whether it is open here."""
        return self.objects.get(blob) is not None

    async def remove(self, url: str) -> None:
        """Remove all versions of an object from the disk, but those that are being read here or by other processes."""
        self.objects.retire(url)
        await self.disk.guarded(self.disk.directory.clear, self._name_of(url))

    async def stat(self, *, top: int = 10) -> VolumeStat | None:
        """How the volume does; None while it is `broken` or slow. What was read in the last second may be missing."""
        work = partial(self.disk.guarded, partial(survey, self.disk.directory, top=top))
        return await self.disk.attempt("reading the ledger", work)

    async def _read(
        self, source: Reader, blob: Blob, spans: Sequence[Span]
    ) -> tuple[BlockMap, dict[int, bytes]] | None:
        """The blocks that the spans touch; None if they have to be read past the volume."""
        open_object = await self.objects.open(blob)
        if open_object is None or any(span.stop > blob.size for span in spans):
            return None
        wanted, found = self._peek(open_object, spans)
        if len(found) < len(wanted):
            if self.disk.is_stuck:
                return None
            missing = [index for index in wanted if index not in found]
            with open_object.reading(), self.prefetcher.foreground_read():
                found |= await open_object.fetcher.fetch(missing, source)
        return open_object.files.blocks, found

    def _peek_all(self, blob: Blob, spans: Sequence[Span]) -> tuple[BlockMap, dict[int, bytes]] | None:
        """The blocks that the spans touch, if all of them are in memory."""
        open_object = self.objects.get(blob)
        if open_object is None or any(span.stop > blob.size for span in spans):
            return None
        wanted, found = self._peek(open_object, spans)
        return (open_object.files.blocks, found) if len(found) == len(wanted) else None

    def _peek(self, open_object: OpenObject, spans: Sequence[Span]) -> tuple[Sequence[int], dict[int, bytes]]:
        """The blocks that the spans touch, and those of them that are in memory."""
        blocks = open_object.files.blocks
        if len(spans) == 1:
            wanted: Sequence[int] = blocks.indices(spans[0])
        else:
            wanted = sorted({index for span in spans for index in blocks.indices(span)})
        self.prefetcher.record_access(open_object, wanted)
        found = open_object.files.peek(wanted[: PEEK_BYTES // blocks.block_bytes + 1], self._scratch)
        _HIT.inc(len(found))
        open_object.hits += len(found)
        return wanted, found

    async def _maintain(self) -> None:
        retry = monotonic() + 10 * self._maintenance_s
        while True:
            await asyncio.sleep(self._maintenance_s)
            if self.broken is None and await self.disk.guarded(lambda: self.disk.directory.is_lost):
                self.disk.broken = f"{self.directory} was removed or replaced"
                record_fault("open", self.disk.broken)
                self.objects.retire_all()
                retry = monotonic()
            if self.broken is None:
                await self.disk.guarded(self.disk.directory.touch, self.objects.take_uses())
            elif monotonic() > retry:
                retry = monotonic() + 10 * self._maintenance_s
                with suppress(ConfigurationError):  # another server is there by now, on other terms
                    await self.disk.join()
            self.objects.maintain()


@dataclass(frozen=True, slots=True)
class VolumeReader:
    """A `Reader` of a source's blobs, through a volume."""

    volume: Volume
    source: Reader
    """Where missing bytes come from."""
    in_place: Set[str] = frozenset()
    """Roots of local folders: the volume keeps no copies of what is there."""

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        if blob.root in self.in_place:
            return await self.source.read(blob, spans)
        return await self.volume.read(self.source, blob, spans)
