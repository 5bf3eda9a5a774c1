"""Prefetch: the surroundings of the tiles that a viewer asks for, read into the volume while it is idle.

An access pattern is several different parts of one master at one scale. The next access is likely
near the last one, so the volume is asked for rings around what was accessed, until the rest of that level is
there. The volume bounds the blocks that are prefetched and not used yet, and lets readers that wait go first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final

from special.concurrency import KeyedTasks
from special.errors import SpecialError
from special.geometry import Box, Size
from special.iiif import Job
from special.images import Master, Masters
from special.storage import Blob, Source, Span
from special.volume import PrefetchResult, Volume

MAX_ACCESSES: Final = 16
"""Maximum number of accesses that are kept of a pattern: some two screens."""
MIN_ACCESSES: Final = 4
"""Different accesses at one scale from which on they are a pattern."""
SMALL_BYTES: Final = 1 << 20
"""An object up to this length is prefetched as a whole."""
BATCH_BYTES: Final = 1 << 20
"""Maximum number of bytes on their way at once, for all patterns: 8 ms at 128 MiB/s."""
RINGS: Final = 16
"""Wide enough for the rest of most levels, and never all of the index of a very large one."""
PAUSE_S: Final = 0.02
"""Pause between two looks whether the server is idle."""
READY_S: Final = 30.0
"""How long prefetched blocks are believed to be in the volume still."""
STALE_S: Final = 10.0
"""A viewer without an access for this long has left."""
MAX_PATTERNS: Final = 256
"""Maximum number of patterns; the least recently used goes first."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TileAccess:
    """A part of a master that was asked for."""

    box: Box
    size: Size

    @property
    def scale(self) -> int:
        """Number of halvings. Rounded: a tile at the picture's edge has a size that is rounded up."""
        return round(math.log2(self.box.width / self.size.width))


def surroundings(accesses: Sequence[TileAccess], full: Size) -> Iterator[TileAccess]:
    """What to prefetch, the nearest first: the area of the accesses at the last one's scale, a ring wider each time.

    Each item includes those before it. Nothing where the accesses are no pattern.
    """
    last = accesses[-1]
    seen = {it.box for it in accesses if it.scale == last.scale}
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


def _wider(box: Box, access: TileAccess, full: Size) -> Box:
    """A box with an access's width and height more on each side, as far as the picture goes."""
    step = access.box.size
    return Box.between(
        max(0, box.x - step.width),
        max(0, box.y - step.height),
        min(full.width, box.right + step.width),
        min(full.height, box.bottom + step.height),
    )


def _covers(box: Box, other: Box) -> bool:
    return box.x <= other.x and box.y <= other.y and box.right >= other.right and box.bottom >= other.bottom


def _scaled(side: int, access: TileAccess) -> int:
    return max(1, math.ceil(side * access.size.width / access.box.width))


@dataclass(slots=True, eq=False)
class AccessPattern:
    """The last accesses to one version of a master."""

    master: Master
    accesses: deque[TileAccess] = field(default_factory=lambda: deque(maxlen=MAX_ACCESSES))
    """Those that were not inside a prefetched area."""
    last_access_s: float = 0.0
    """Time of the last one, by the monotonic clock."""
    ready: dict[int, tuple[Box, float]] = field(default_factory=dict)
    """For each scale the prefetched area, and until when it is believed to be in the volume."""

    def is_new(self, access: TileAccess) -> bool:
        """Whether an access reaches the edge of the prefetched area."""
        box, until_s = self.ready.get(access.scale, (None, 0.0))
        return (
            box is None
            or self.last_access_s > until_s
            or not _covers(box, _wider(access.box, access, self.master.layout.size))
        )


class Prefetcher:
    """Follows access patterns: one batch of blocks at a time, and only while no reader waits and no decoder works."""

    def __init__(
        self,
        volume: Volume,
        source: Source,
        masters: Masters,
        *,
        is_busy: Callable[[], bool],
        in_place: Set[str] = frozenset(),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`in_place`: roots of local folders, of whose masters the volume keeps no copies."""
        self._blocks = volume.prefetcher
        self._in_place = in_place
        self._reader = volume.reader(source)
        self._source = source
        self._masters = masters
        self._is_busy = is_busy
        self._clock = clock
        self._patterns: OrderedDict[str, AccessPattern] = OrderedDict()
        self._tasks = KeyedTasks(MAX_PATTERNS)
        self._running = asyncio.Semaphore(1)

    async def close(self) -> None:
        """Cancel what is being prefetched."""
        await self._tasks.close()

    def record(self, master: Master, job: Job) -> None:
        """A part of a master was read."""
        if master.blob.root in self._in_place:
            return
        key = master.blob.version
        pattern = self._patterns.setdefault(key, AccessPattern(master))
        self._patterns.move_to_end(key)
        self._add(pattern, job)
        if len(self._patterns) > MAX_PATTERNS:
            oldest, _ = self._patterns.popitem(last=False)
            self._tasks.cancel(oldest)

    def record_cached(self, blob: Blob, job: Job) -> None:
        """A part of a master was answered from memory."""
        pattern = self._patterns.get(blob.version)
        if pattern is not None:
            self._add(pattern, job)

    def _add(self, pattern: AccessPattern, job: Job) -> None:
        access = TileAccess(job.box, job.size)
        pattern.last_access_s = self._clock()
        if not pattern.is_new(access):
            return
        pattern.accesses.append(access)
        if len(pattern.accesses) >= MIN_ACCESSES:
            self._tasks.start(pattern.master.blob.version, partial(self._follow, pattern))

    async def _follow(self, pattern: AccessPattern) -> None:
        try:
            async with self._running:
                while await self._fetch_around(pattern, tuple(pattern.accesses)):
                    pass
        except (SpecialError, OSError) as error:  # a request for these bytes will meet the same error, and report it
            log.info("prefetch failed: %s", error)

    async def _fetch_around(self, pattern: AccessPattern, accesses: tuple[TileAccess, ...]) -> bool:
        """Prefetch what surrounds some accesses, as far as the volume allows; True if there were others meanwhile."""
        for access in surroundings(accesses, pattern.master.layout.size):
            result: PrefetchResult = "some"
            while result == "some":
                await self._idle()
                if self._clock() - pattern.last_access_s > STALE_S:
                    return False
                if tuple(pattern.accesses) != accesses:
                    return True
                spans = await self._spans(pattern.master, access)
                result = await self._blocks.fetch(self._source, pattern.master.blob, spans, most_bytes=BATCH_BYTES)
            if result == "enough":
                return False
            pattern.ready[access.scale] = access.box, self._clock() + READY_S
        return False

    async def _idle(self) -> None:
        while self._is_busy() or self._blocks.is_paused:  # noqa: ASYNC110  several packages make it true
            await asyncio.sleep(PAUSE_S)

    async def _spans(self, master: Master, access: TileAccess) -> Sequence[Span]:
        if master.blob.size <= SMALL_BYTES:
            return [Span.whole(master.blob)]
        layout = await self._masters.prepared(master, access.box, access.size, self._reader)
        return layout.extract(access.box, access.size).spans
