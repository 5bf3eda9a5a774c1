"""Stocking: blocks that nobody has asked for yet, fetched as long as that costs nobody anything.

A block that is fetched ahead is a flight like any other: whoever wants it meanwhile joins it. It evicts
nothing, it gives way to readers who wait, and what lies there unused is bounded by what was used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from special.observability import VOLUME_AHEAD
from special.storage import Blob, Reader, Span
from special.volume.block_fetch import BlockFetcher
from special.volume.object_files import ObjectFiles

PrefetchResult = Literal["here", "some", "enough"]
"""What came of it: all of it was here, some was fetched or had to give way, or no more may be fetched."""

_FETCHED, _USED = (VOLUME_AHEAD.labels(what) for what in ("fetched", "used"))


@dataclass(slots=True)
class PrefetchState:
    """Which blocks of an object were wanted, and which lie ready."""

    wanted: set[int] = field(default_factory=set)
    """Blocks that readers have asked for."""
    unused: set[int] = field(default_factory=set)
    """Blocks that were fetched ahead, and that no reader has asked for yet."""

    def record_access(self, indices: Sequence[int]) -> set[int]:
        """A reader asks for blocks: those of them that were fetched ahead."""
        self.wanted.update(indices)
        used = self.unused.intersection(indices) if self.unused else set()
        self.unused -= used
        return used

    def allowance(self, missing: Iterable[int], *, most: int) -> list[int]:
        """The first of the missing blocks that may be fetched ahead: never more unused ones than were wanted."""
        return sorted(missing)[: max(0, min(most, len(self.wanted) - len(self.unused)))]


class Stockable(Protocol):
    """An open object, as far as it matters here."""

    shelf: ObjectFiles
    flights: BlockFetcher
    stock: PrefetchState


class Keeper(Protocol):
    """What is needed of the volume; see there."""

    async def hold(self, blob: Blob) -> Stockable | None: ...
    async def has_room(self, size_bytes: int) -> bool: ...


class BlockPrefetcher:
    """What one volume fetches ahead."""

    def __init__(self, volume: Keeper) -> None:
        self._volume = volume
        self._waiting = 0
        self._fetching: set[asyncio.Task[dict[int, bytes]]] = set()

    @property
    def is_paused(self) -> bool:
        """Whether any reader waits for blocks."""
        return self._waiting > 0

    @contextmanager
    def foreground_read(self) -> Generator[None]:
        """The time in which a reader waits: what is being fetched ahead is given up, unless somebody has joined it."""
        self._waiting += 1
        for task in self._fetching:
            task.cancel()
        try:
            yield
        finally:
            self._waiting -= 1

    def record_access(self, in_use: Stockable, indices: Sequence[int]) -> None:
        """A reader asks for blocks."""
        if used := in_use.stock.record_access(indices):
            _USED.inc(sum(map(in_use.shelf.blocks.length, used)))

    async def fetch(self, source: Reader, blob: Blob, spans: Sequence[Span], *, most_bytes: int) -> PrefetchResult:
        """Fetch some of what is missing of the spans. Costs a look at the map, and one GET for each run of blocks.

        Raises what `source.read` raises.
        """
        in_use = await self._volume.hold(blob)
        if in_use is None:
            return "enough"
        shelf, blocks, stock = in_use.shelf, in_use.shelf.blocks, in_use.stock
        here = set(await asyncio.to_thread(shelf.published))
        # What was wanted, or fetched ahead, and is not on the disk is on its way there.
        missing = {index for span in spans for index in blocks.indices(span)} - here - stock.wanted - stock.unused
        if not missing:
            return "here"
        chosen = stock.allowance(missing, most=most_bytes // blocks.block_bytes)
        if not chosen or not await self._volume.has_room(len(chosen) * blocks.block_bytes):
            return "enough"
        if self.is_paused:
            return "some"
        task = asyncio.ensure_future(in_use.flights.fetch(chosen, source))
        self._fetching.add(task)
        stock.unused.update(chosen)
        try:
            await asyncio.wait([task])
        finally:
            self._fetching.discard(task)
            task.cancel()
        if task.cancelled() or task.exception() is not None:
            stock.unused.difference_update(chosen)
        if not task.cancelled():
            _FETCHED.inc(sum(map(len, task.result().values())))
        return "some"
