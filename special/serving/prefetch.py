"""Read-ahead: the surroundings of what a viewer walks over, fetched while nobody waits for anything.

A walk is told by its looks: several different parts of one master at one scale. What comes next
is near what came last, so the volume is asked for rings around it, and so on until the rest of that level is
there. The volume bounds what may lie there unused, and gives way to whoever waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from special.errors import SpecialError
from special.geometry import Box, Size
from special.iiif import Job
from special.images import Master, Masters
from special.storage import Blob, Source, Span
from special.volume import PrefetchResult, Volume

MAX_ACCESSES: Final = 16
"""So many are remembered of a walk: some two screens."""
MIN_ACCESSES: Final = 4
"""From so many different ones at one scale on it is a walk, and no glance."""
SMALL_BYTES: Final = 1 << 20
"""An object up to this long follows as a whole."""
BATCH_BYTES: Final = 1 << 20
"""So much is on its way at once, in all: 8 ms at 128 MiB/s."""
RINGS: Final = 16
"""Wide enough for the rest of most levels, and never all of the index of a vast one."""
PAUSE_S: Final = 0.02
"""How often is looked whether nobody waits any more."""
READY_S: Final = 30.0
"""How long it is believed that what was fetched is still there."""
STALE_S: Final = 10.0
"""A viewer who has not looked for so long has gone."""
MAX_PATTERNS: Final = 256
"""Walks that are remembered, the latest ones."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TileAccess:
    """A part of a master that somebody wanted."""

    box: Box
    size: Size

    @property
    def scale(self) -> int:
        """How often it was halved. Rounded: a tile at the picture's edge has a size that is rounded up."""
        return round(math.log2(self.box.width / self.size.width))


def surroundings(looks: Sequence[TileAccess], full: Size) -> Iterator[TileAccess]:
    """What comes next, the nearest first: what was seen at the last look's scale, a ring of looks wider each time.

    Each one includes those before it. Nothing where that is no walk.
    """
    last = looks[-1]
    seen = {look.box for look in looks if look.scale == last.scale}
    if len(seen) < MIN_ACCESSES:
        return
    left, top = min(box.x for box in seen), min(box.y for box in seen)
    box = Box.between(left, top, max(box.right for box in seen), max(box.bottom for box in seen))
    for _ in range(RINGS):
        wider = _wider(box, last, full)
        if wider == box:
            return
        box = wider
        yield TileAccess(box, Size(_scaled(box.width, last), _scaled(box.height, last)))


def _wider(box: Box, look: TileAccess, full: Size) -> Box:
    """A box with a look's width and height more on each side, as far as there is picture."""
    step = look.box.size
    return Box.between(
        max(0, box.x - step.width),
        max(0, box.y - step.height),
        min(full.width, box.right + step.width),
        min(full.height, box.bottom + step.height),
    )


def _covers(box: Box, other: Box) -> bool:
    return box.x <= other.x and box.y <= other.y and box.right >= other.right and box.bottom >= other.bottom


def _scaled(side: int, look: TileAccess) -> int:
    return max(1, math.ceil(side * look.size.width / look.box.width))


@dataclass(slots=True, eq=False)
class AccessPattern:
    """The last looks at one version of a master."""

    master: Master
    accesses: deque[TileAccess] = field(default_factory=lambda: deque(maxlen=MAX_ACCESSES))
    """Those that were not inside what lies ready."""
    last_access_s: float = 0.0
    """When the last one was, by the monotonic clock."""
    ready: dict[int, tuple[Box, float]] = field(default_factory=dict)
    """For each scale what lies ready, and until when that is believed."""
    task: asyncio.Task[None] | None = None
    """What is being fetched for it."""

    def is_new(self, look: TileAccess) -> bool:
        """Whether a look leads to the edge of what lies ready."""
        box, until_s = self.ready.get(look.scale, (None, 0.0))
        return (
            box is None
            or self.last_access_s > until_s
            or not _covers(box, _wider(look.box, look, self.master.layout.size))
        )


class Prefetcher:
    """Follows walks: one batch of blocks at a time, in all, and only while nobody waits and no decoder works."""

    def __init__(
        self,
        volume: Volume,
        source: Source,
        masters: Masters,
        *,
        is_busy: Callable[[], bool],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._stocking = volume.prefetcher
        self._reader = volume.reader(source)
        self._source = source
        self._masters = masters
        self._is_busy = is_busy
        self._clock = clock
        self._walks: OrderedDict[str, AccessPattern] = OrderedDict()
        self._turn = asyncio.Semaphore(1)

    async def close(self) -> None:
        """Give up what is being fetched."""
        tasks = [walk.task for walk in self._walks.values() if walk.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def record(self, master: Master, job: Job) -> None:
        """Somebody has been given a part of a master, through the volume."""
        key = master.blob.version
        walk = self._walks.setdefault(key, AccessPattern(master))
        self._walks.move_to_end(key)
        self._go_on(walk, job)
        if len(self._walks) > MAX_PATTERNS:
            _, oldest = self._walks.popitem(last=False)
            if oldest.task is not None:
                oldest.task.cancel()

    def record_cached(self, blob: Blob, job: Job) -> None:
        """The same, where nothing had to be waited for."""
        walk = self._walks.get(blob.version)
        if walk is not None:
            self._go_on(walk, job)

    def _go_on(self, walk: AccessPattern, job: Job) -> None:
        look = TileAccess(job.box, job.size)
        walk.last_access_s = self._clock()
        if not walk.is_new(look):
            return
        walk.accesses.append(look)
        if walk.task is None and len(walk.accesses) >= MIN_ACCESSES:
            # Not in the context of the request at hand: what this reads is not that request's cost.
            walk.task = asyncio.create_task(self._follow(walk), context=Context())

    async def _follow(self, walk: AccessPattern) -> None:
        try:
            async with self._turn:
                while await self._has_more(walk, tuple(walk.accesses)):
                    pass
        except (SpecialError, OSError) as error:  # whoever wants these bytes will be told
            log.info("not read ahead: %s", error)
        finally:
            walk.task = None

    async def _has_more(self, walk: AccessPattern, looks: tuple[TileAccess, ...]) -> bool:
        """Fetch what surrounds some looks, as far as may be; True if there were others meanwhile."""
        for look in surroundings(looks, walk.master.layout.size):
            stocked: PrefetchResult = "some"
            while stocked == "some":
                await self._quiet()
                if self._clock() - walk.last_access_s > STALE_S:
                    return False
                if tuple(walk.accesses) != looks:
                    return True
                spans = await self._spans(walk.master, look)
                stocked = await self._stocking.fetch(self._source, walk.master.blob, spans, most_bytes=BATCH_BYTES)
            if stocked == "enough":
                return False
            walk.ready[look.scale] = look.box, self._clock() + READY_S
        return False

    async def _quiet(self) -> None:
        while self._is_busy() or self._stocking.is_paused:  # noqa: ASYNC110  several rooms make it true
            await asyncio.sleep(PAUSE_S)

    async def _spans(self, master: Master, look: TileAccess) -> Sequence[Span]:
        if master.blob.size <= SMALL_BYTES:
            return [Span.whole(master.blob)]
        layout = await self._masters.prepared(master, look.box, look.size, self._reader)
        return layout.extract(look.box, look.size).spans
