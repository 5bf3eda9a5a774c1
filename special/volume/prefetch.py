"""Prefetch: blocks that no reader has asked for yet, fetched as long as that costs no reader anything.

A block that is prefetched is fetched like any other: a reader that wants it meanwhile joins. It evicts nothing,
it lets readers that wait go first, and the number of unused prefetched blocks is bounded by the number of used ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Literal

from special.observability import VOLUME_PREFETCHED
from special.storage import Blob, Reader, Span
from special.volume.disk import VolumeDisk
from special.volume.open_objects import OpenObject, OpenObjects

PrefetchResult = Literal["here", "some", "enough"]
"""What came of it: all of it was here, some was fetched or had to give way, or no more may be fetched."""

_FETCHED, _USED = (VOLUME_PREFETCHED.labels(what) for what in ("fetched", "used"))


class BlockPrefetcher:
    """Prefetches blocks of one volume. It is called by background tasks, not in those of requests."""

    def __init__(self, objects: OpenObjects, disk: VolumeDisk) -> None:
        self._objects = objects
        self._disk = disk
        self._waiting = 0
        self._fetching: set[asyncio.Task[dict[int, bytes]]] = set()

    @property
    def is_paused(self) -> bool:
        """Whether any reader waits for blocks."""
        return self._waiting > 0

    @contextmanager
    def foreground_read(self) -> Generator[None]:
        """The time in which a reader waits: prefetches are cancelled, unless another reader has joined them."""
        self._waiting += 1
        for task in self._fetching:
            task.cancel()
        try:
            yield
        finally:
            self._waiting -= 1

    def record_access(self, open_object: OpenObject, indices: Sequence[int]) -> None:
        """A reader asks for blocks."""
        if used := open_object.prefetch_state.record_access(indices):
            _USED.inc(sum(map(open_object.files.blocks.length, used)))

    async def fetch(self, source: Reader, blob: Blob, spans: Sequence[Span], *, most_bytes: int) -> PrefetchResult:
        """Fetch some of what is missing of the spans. Costs a read of the map, and one GET for each run of blocks.

        Raises what `source.read` raises.
        """
        open_object = await self._objects.open(blob)
        if open_object is None:
            return "enough"
        state = open_object.prefetch_state
        with open_object.reading() as files:
            blocks, here = files.blocks, set(await self._disk.read(files.published))
        # What was wanted, or prefetched, and is not on the disk is on its way there.
        missing = {index for span in spans for index in blocks.indices(span)} - here - state.wanted - state.unused
        if not missing:
            return "here"
        chosen = state.allowance(missing, most=most_bytes // blocks.block_bytes)
        need = len(chosen) * blocks.block_bytes
        if not chosen or not await self._disk.guarded(self._disk.directory.has_space, need):
            return "enough"
        if self.is_paused:
            return "some"
        task = asyncio.ensure_future(open_object.fetcher.fetch(chosen, source))
        self._fetching.add(task)
        state.unused.update(chosen)
        try:
            await asyncio.wait([task])
        finally:
            self._fetching.discard(task)
            task.cancel()
        if task.cancelled() or task.exception() is not None:
            state.unused.difference_update(chosen)
        if not task.cancelled():
            _FETCHED.inc(sum(map(len, task.result().values())))
        return "some"
