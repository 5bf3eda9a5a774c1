"""Builds pyramids of masters whose tiles are expensive, in the volume, while requests go on.

A tile of an untiled JPEG 2000 costs a tenth of a second: as soon as a viewer zooms, the volume gets a pyramid of that
master, all tiles of all levels, each encoded once. Where one tile needs most of a large master, that tile would cost
as much as all of them: it begins the pyramid, and all requests wait for their tiles of it. A deadline ends a wait and
never a build, so that the next try finds it further on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final

from special.codecs import subsampling
from special.concurrency import Deadline, KeyedTasks, LRUCache, SingleFlight
from special.errors import MasterError, Preparing, SourceError, SpecialError, TimedOut
from special.formats.tiff import HEAD_BYTES, Grid, Place, pyramid
from special.iiif import Job
from special.images import Master
from special.observability import PROMOTIONS
from special.serving.answers import PIXELS_VERSION
from special.serving.master_pixels import MasterRenderer
from special.serving.pyramid_maker import PyramidMaker, Tiles
from special.storage import Blob, Reader, Span
from special.volume import Elsewhere, NoSpace, PackDraft, PyramidWriter, Volume

FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
"""Pause after a build that failed; doubles each time, up to the longest."""
LEFT_PAUSE_S: Final = 5.0
"""Pause after a build that another process has done or does, whose store failed, or for which there is no space."""
MAX_STATES: Final = 10_000
"""Maximum number of masters whose tiles are counted; the least recently used is forgotten first."""
ELSEWHERE_POLL_S: Final = 0.1
"""How often it is looked what another process has made of a pyramid, for all who wait for it."""
ELSEWHERE_LOOKS: Final = 5
"""How often it is looked in vain before those who wait look for the whole pyramid."""
MAX_ELSEWHERE: Final = 16
"""Maximum number of pyramids of which is known what another process has made."""
EARLY_REDUCE: Final = 1
"""A flat JPEG is decoded at 1/2 of its size first, for its small levels, which viewers ask for first."""
ANSWER_S: Final = 0.25
"""Part of a deadline that is left to say that a pyramid is being prepared."""
UNKNOWN_S: Final = 3.0
"""How long a build may take of which nothing is known yet."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Draft:
    """A pyramid that is being made here: what of it is there already."""

    writer: PyramidWriter
    grid: Grid
    start_s: float
    shown: dict[Place, Span] = field(default_factory=dict)
    """Tiles as viewers ask for them."""
    whole: dict[Place, Span] = field(default_factory=dict)
    """Tiles as the directories name them: filled up where they are at an edge."""
    grew: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when there are more tiles, and at the end."""

    async def add(self, tiles: Tiles) -> None:
        names = [name for place, files in tiles for name in (_name(place), *(b"" for _ in files[1:]))]
        spans = iter(await self.writer.append([data for _, files in tiles for data in files], names))
        for place, files in tiles:
            found = [next(spans) for _ in files]
            self.shown[place], self.whole[place] = found[0], found[-1]
        self.wake()

    def wake(self) -> None:
        """Let all who wait look again."""
        grew, self.grew = self.grew, asyncio.Event()
        grew.set()

    def left_s(self, now_s: float) -> float:
        """How long the rest will take, if it goes on as it went."""
        count = sum(self.grid.columns(level) * self.grid.rows(level) for level in range(self.grid.levels))
        took_s, made = now_s - self.start_s, len(self.whole)
        return max(1.0, took_s * (count - made) / made) if made else UNKNOWN_S


@dataclass(frozen=True, slots=True)
class Seen:
    """What another process had made of a pyramid."""

    seen_s: float
    draft: PackDraft | None


@dataclass(slots=True)
class BuildState:
    """A version of a master whose tiles are expensive."""

    tiles: int = 0
    """Tiles that were asked for since the last try."""
    not_before_s: float = 0.0
    """Earliest next try, by the monotonic clock; infinity where another try cannot help."""
    pause_s: float = FIRST_PAUSE_S
    """Pause after the next failure."""
    building_until_s: float = 0.0
    """Until when some process, this one or another, is believed to build its pyramid."""
    draft: Draft | None = None
    """What is being built here."""
    trying: bool = False
    """Whether a try runs here, or waits for its turn."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when a draft comes or goes, and at the end of a try."""

    def wake(self) -> None:
        """Let all who wait look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class PyramidBuilder:
    """Counts the tiles of expensive masters, and builds a pyramid after enough of them, or when one needs it."""

    def __init__(
        self,
        renderer: MasterRenderer,
        volume: Volume,
        reader: Reader,
        *,
        after: int,
        tile: int,
        on_published: Callable[[Blob], None] = lambda blob: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`after`: how many tiles are worth a pyramid; with 0 none is ever begun.

        `on_published` is told of each master whose pyramid may be in the volume from now on.
        """
        self.name = f"pyramid-{tile}-{renderer.encoding.jpeg_quality}-{PIXELS_VERSION}"
        """Name of pyramids that are made with these settings; others are ignored."""
        self._renderer = renderer
        self._volume = volume
        self._maker = PyramidMaker(renderer, reader, tile, early_reduce=EARLY_REDUCE)
        self.tile = tile
        """Side of a tile in pixels."""
        self._after = after
        self._on_published = on_published
        self._clock = clock
        self._states: OrderedDict[str, BuildState] = OrderedDict()
        self._tasks = KeyedTasks(MAX_STATES)
        self._one_build = asyncio.Semaphore(1)
        self._elsewhere: LRUCache[str, Seen] = LRUCache(MAX_ELSEWHERE)
        self._looks: SingleFlight[bool] = SingleFlight()

    async def close(self) -> None:
        """Cancel the builds that are running or waiting."""
        await self._tasks.close()
        await self._looks.close()

    def is_building(self, master: Master) -> bool:
        """Whether a master's pyramid is being built, by this process or another."""
        state = self._states.get(master.blob.version)
        return state is not None and self._clock() < state.building_until_s

    @property
    def busy(self) -> bool:
        """Whether any pyramid is being built here, or waits for its turn."""
        return len(self._tasks) > 0

    @property
    def is_off(self) -> bool:
        """Whether no pyramid is ever begun here."""
        return self._after == 0

    def is_enough(self, tiles: int) -> bool:
        """Whether that number of tiles is worth a pyramid."""
        return 0 < self._after <= tiles

    def count_tiles(self, master: Master, tiles: int = 1) -> None:
        """Count requests for tiles that a pyramid would have answered; start a build after enough of them."""
        state = self._state(master)
        state.tiles += tiles
        if state.tiles >= self._after:
            self._start(master, state)

    def begin(self, master: Master) -> bool:
        """Start a build if none is under way; False where none can be started now, and none waits to start."""
        state = self._state(master)
        return state.trying or self.is_building(master) or self._start(master, state)

    async def peek(self, master: Master, job: Job) -> bytes | None:
        """The job's tile, if a build that is under way, here or in another process, has made it."""
        state = self._states.get(master.blob.version)
        if state is None or not job.plain or job.format != "jpg":
            return None
        place = Grid(master.layout.size, self.tile).find(job.box, job.size)
        if place is None:
            return None
        if (draft := state.draft) is not None:
            return await draft.writer.read(draft.shown[place]) if place in draft.shown else None
        if not self.is_building(master):
            return None
        known = self._elsewhere.get(master.blob.version)
        if known is None or self._clock() >= known.seen_s + ELSEWHERE_POLL_S:
            known = await self._look_elsewhere(master)
        return await self._volume.pyramids.read_draft(master.blob, known.draft, _name(place)) if known.draft else None

    async def wait(self, master: Master, job: Job, *, deadline: Deadline) -> bytes | None:
        """The job's tile, as soon as a build has made it; None at the end of the build, here or in another process.

        Raises `Preparing` at the deadline.
        """
        state = self._state(master)
        deadline = Deadline(deadline.at_s - ANSWER_S, deadline.clock)
        try:
            async with deadline.limit(f"waiting for the pyramid of {master.blob.url}"):
                while state.trying:
                    if (data := await self.peek(master, job)) is not None:
                        return data
                    await (state.draft.grew if state.draft else state.changed).wait()
                while self.is_building(master):
                    has_grown = await self._looks.run(master.blob.version, partial(self._grows_elsewhere, master))
                    if (data := await self.peek(master, job)) is not None or not has_grown:
                        return data
        except TimedOut as error:
            left_s = draft.left_s(self._clock()) if (draft := state.draft) is not None else UNKNOWN_S
            raise Preparing(str(error), after_s=left_s) from None
        return None

    async def _look_elsewhere(self, master: Master) -> Seen:
        """What another process has made by now."""
        key, now = master.blob.version, self._clock()
        if (known := self._elsewhere.get(key)) is not None:
            self._elsewhere.put(key, Seen(now, known.draft))  # one look serves all who ask meanwhile
        seen = Seen(now, await self._volume.pyramids.find_draft(master.blob, self.name))
        self._elsewhere.put(key, seen)
        return seen

    async def _grows_elsewhere(self, master: Master) -> bool:
        """Wait until another process has made more; False where it may be done: it made nothing more for a while."""
        known = self._elsewhere.get(master.blob.version)
        count = len(known.draft.parts) if known is not None and known.draft is not None else 0
        for _ in range(ELSEWHERE_LOOKS):
            await asyncio.sleep(ELSEWHERE_POLL_S)
            draft = (await self._look_elsewhere(master)).draft
            if draft is None:
                break
            if len(draft.parts) > count:
                return True
        self._on_published(master.blob)
        return False

    def _state(self, master: Master) -> BuildState:
        key = master.blob.version
        state = self._states.setdefault(key, BuildState())
        self._states.move_to_end(key)
        if len(self._states) > MAX_STATES:
            idle = next((it for it in self._states if it not in self._tasks), None)
            if idle is not None:
                del self._states[idle]
        return state

    def _start(self, master: Master, state: BuildState) -> bool:
        if self.is_off or state.not_before_s > self._clock():
            return False
        if not self._tasks.start(master.blob.version, partial(self._build, master, state)):
            return False
        state.tiles, state.trying = 0, True
        return True

    async def _build(self, master: Master, state: BuildState) -> None:
        outcome, start = "failed", self._clock()
        try:
            async with self._one_build:
                start = self._clock()
                state.building_until_s = math.inf
                try:
                    outcome = "made" if await self._build_in_volume(master, state) else "left"
                finally:
                    state.building_until_s = 0.0
                state.not_before_s = self._clock() + LEFT_PAUSE_S
        except MasterError as error:  # it would fail in the same way again
            outcome = "refused"
            state.not_before_s = math.inf
            log.info("no pyramid of %s: %s", master.blob.url, error)
        except Elsewhere:
            outcome = "left"
            state.not_before_s = state.building_until_s = self._clock() + LEFT_PAUSE_S
        except SourceError as error:
            state.not_before_s = self._clock() + LEFT_PAUSE_S
            log.warning("no pyramid of %s: %s", master.blob.url, error)
        except (SpecialError, NoSpace, OSError, sqlite3.Error) as error:
            state.not_before_s = self._clock() + state.pause_s
            state.pause_s = min(2 * state.pause_s, LONGEST_PAUSE_S)
            log.warning("no pyramid of %s: %s", master.blob.url, error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            state.trying = False
            state.wake()
            PROMOTIONS.labels(outcome).inc()
            log.info("pyramid of %s: %s after %.1f s", master.blob.url, outcome, self._clock() - start)

    async def _build_in_volume(self, master: Master, state: BuildState) -> bool:
        """Build a pyramid; False where another process has, or where the volume cannot hold it."""
        grid = Grid(master.layout.size, self.tile)
        async with self._volume.pyramids.making(master.blob, self.name, head_bytes=HEAD_BYTES) as making:
            if making is None:
                self._on_published(master.blob)  # by another process
                return False
            draft = state.draft = Draft(making, grid, self._clock())
            state.wake()
            try:
                channels = await self._maker.make(master, draft.add)
                first = making.size_bytes
                sampling = subsampling(self._renderer.encoding.jpeg_quality)
                directories = pyramid.directories(grid, draft.whole, channels=channels, subsampling=sampling, at=first)
                await making.append([directories])
                await making.publish(pyramid.head(first))
                self._on_published(master.blob)
            finally:
                state.draft = None
                draft.wake()
        return True


def _name(place: Place) -> bytes:
    """Of its tile, for other processes."""
    return struct.pack("<III", place.level, place.column, place.row)
