"""Builds pyramids of masters whose tiles are expensive, while tiles are still made from spans.

A tile of an untiled JPEG 2000 costs a tenth of a second, of a large JPEG a third. As soon as a
viewer zooms, the volume gets a pyramid of that master: all tiles of all levels, each made as it
would have been made for a viewer, and encoded once. The master is read, decoded and written in
chunks, so that memory does not grow with it; one master at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

from special.codecs import TileCut, cut_tiles, subsampling
from special.concurrency import NEVER, KeyedTasks
from special.errors import MasterError, SpecialError
from special.formats import Layout, Piece, Tiling
from special.formats.tiff import HEAD_BYTES, Grid, Place, pyramid
from special.geometry import Box, Frame, Size
from special.iiif import Job
from special.images import Master
from special.observability import PROMOTIONS
from special.serving.answers import PIXELS_VERSION
from special.serving.master_pixels import MasterRenderer
from special.storage import Reader, Span
from special.volume import Elsewhere, NoSpace, PyramidWriter, Volume
from special.workers import Lane

LANE: Final = Lane("pyramid", running=1, queue=1, deadline_s=120.0, share=0.5)
"""One chunk at a time, in a lane of its own, with at most half of the memory."""
CHUNK_PIXELS: Final = 32_000_000
"""Maximum number of pixels decoded at once: 100 MB as 8-bit RGB."""
JP2_CHUNK_PIXELS: Final = 8_000_000
"""The same for JPEG 2000, where OpenJPEG's planes take 12 bytes a pixel, and its tables as much again."""
FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
"""Pause after a build that failed; doubles each time, up to the longest."""
LEFT_PAUSE_S: Final = 5.0
"""Pause after a build that another process has done or does, or for which the volume has no space."""
MAX_STATES: Final = 10_000
"""Maximum number of masters whose tiles are counted; the least recently used is forgotten first."""

log = logging.getLogger(__name__)


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


class PyramidBuilder:
    """Counts the tiles of expensive masters, and builds a pyramid after enough of them."""

    def __init__(
        self,
        renderer: MasterRenderer,
        volume: Volume,
        reader: Reader,
        *,
        after: int,
        tile: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = f"pyramid-{tile}-{renderer.encoding.jpeg_quality}-{PIXELS_VERSION}"
        """Name of pyramids that are made with these settings; others are ignored."""
        self._renderer = renderer
        self._volume = volume
        self._reader = reader
        self.tile = tile
        """Side of a tile in pixels."""
        self._after = after
        self._clock = clock
        self._states: OrderedDict[str, BuildState] = OrderedDict()
        self._tasks = KeyedTasks(MAX_STATES)
        self._one_build = asyncio.Semaphore(1)

    async def close(self) -> None:
        """Cancel the builds that are running or waiting."""
        await self._tasks.close()

    def is_building(self, master: Master) -> bool:
        """Whether a master's pyramid is being built, by this process or another."""
        state = self._states.get(master.blob.version)
        return state is not None and self._clock() < state.building_until_s

    @property
    def busy(self) -> bool:
        """Whether any pyramid is being built here, or waits for its turn."""
        return len(self._tasks) > 0

    def grid(self, layout: Layout) -> Grid | None:
        """The grid of a master's pyramid, built or not; None for a master that needs none."""
        grid = Grid(layout.size, self.tile)
        return grid if self._after and pyramid.is_expensive(layout, grid) else None

    def tiling(self, layout: Layout) -> Tiling | None:
        """The tiling of a master's pyramid, built or not; None for a master that needs none."""
        grid = self.grid(layout)
        return None if grid is None else grid.tiling

    def count_tiles(self, master: Master, tiles: int = 1) -> None:
        """Count requests for tiles that a pyramid would have answered; start a build after enough of them."""
        key = master.blob.version
        state = self._states.setdefault(key, BuildState())
        self._states.move_to_end(key)
        state.tiles += tiles
        is_due = state.tiles >= self._after and state.not_before_s <= self._clock()
        if is_due and self._tasks.start(key, partial(self._build, master, state)):
            state.tiles = 0
        if len(self._states) > MAX_STATES:
            idle = next((it for it in self._states if it not in self._tasks), None)
            if idle is not None:
                del self._states[idle]

    async def _build(self, master: Master, state: BuildState) -> None:
        outcome, start = "failed", self._clock()
        try:
            async with self._one_build:
                start = self._clock()
                state.building_until_s = math.inf
                try:
                    outcome = "made" if await self._build_in_volume(master) else "left"
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
        except (SpecialError, NoSpace, OSError, sqlite3.Error) as error:
            state.not_before_s = self._clock() + state.pause_s
            state.pause_s = min(2 * state.pause_s, LONGEST_PAUSE_S)
            log.warning("no pyramid of %s: %s", master.blob.url, error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            PROMOTIONS.labels(outcome).inc()
            log.info("pyramid of %s: %s after %.1f s", master.blob.url, outcome, self._clock() - start)

    async def _build_in_volume(self, master: Master) -> bool:
        """Build a pyramid; False where another process has, or where the volume cannot hold it."""
        grid = Grid(master.layout.size, self.tile)
        async with self._volume.pyramids.making(master.blob, self.name, head_bytes=HEAD_BYTES) as making:
            if making is None:
                return False
            tiles: dict[Place, Span] = {}
            channels = 0
            for level, chunk in chunks(master.layout, grid):
                channels = await self._chunk(master, grid, level, chunk, making, tiles)
            first = making.size_bytes
            sampling = subsampling(self._renderer.encoding.jpeg_quality)
            await making.append([pyramid.directories(grid, tiles, channels=channels, subsampling=sampling, at=first)])
            await making.publish(pyramid.head(first))
        return True

    async def _chunk(
        self, master: Master, grid: Grid, level: int, chunk: Box, making: PyramidWriter, tiles: dict[Place, Span]
    ) -> int:
        """Make and write some tiles of a level, add them to `tiles`, and return their number of channels."""
        blob, box = master.blob, grid.box(level, chunk)
        size = grid.shown(level, box)
        layout = await self._renderer.masters.prepared(master, box, size, self._reader)
        places = [
            Place(level, column, row) for row in range(chunk.y, chunk.bottom) for column in range(chunk.x, chunk.right)
        ]
        boxes = [grid.box(level, Box(place.column, place.row, 1, 1)) for place in places]
        job = Job(box, size, False, 0.0, "default", "jpg")
        async with self._renderer.piece(blob, layout, job, self._reader, lane=LANE.name, deadline=NEVER) as (
            piece,
            admission,
        ):
            cuts = [TileCut(_crop(piece, box, part), grid.shown(level, part)) for part in boxes]
            made = await self._renderer.workers.run(
                cut_tiles,
                piece,
                cuts,
                self.tile,
                self._renderer.encoding.jpeg_quality,
                self._renderer.limits.max_pixels,
                lane=LANE.name,
                deadline=admission.deadline,
                quarantine_key=f"{blob.version} (its pyramid)",  # its tiles may go well all the same
            )
        spans = iter(await making.append([data for encoded in made.encoded for data in encoded]))
        for place, encoded in zip(places, made.encoded, strict=True):
            tiles[place] = [next(spans) for _ in encoded][-1]
        return made.channels


def chunks(layout: Layout, grid: Grid) -> Iterator[tuple[int, Box]]:
    """All tiles of all levels, as boxes of a level's tiles whose decoding takes bounded memory, one tile at least."""
    most = JP2_CHUNK_PIXELS if layout.format == "jp2" else CHUNK_PIXELS
    for level in range(grid.levels):
        count = max(1, int(most / (grid.tile**2 * _decoded_per_pixel(layout, grid.size(level)))))
        wide = min(count, grid.columns(level))
        for chunk in grid.chunks(level, wide, max(1, count // wide)):
            yield level, chunk


def _decoded_per_pixel(layout: Layout, size: Size) -> float:
    """How many pixels are decoded for one of the picture at this size."""
    if layout.format in ("jp2", "tiff"):
        enough = [it.area for it in layout.levels if Size(it.width + 1, it.height + 1).covers(size)]
        return min(enough, default=layout.size.area) / size.area
    shrunk = layout.extract(Box.whole(layout.size), size).level
    return layout.size.area / (1 << 2 * shrunk) / size.area


def _crop(piece: Piece, box: Box, part: Box) -> Frame:
    """Where a part of the piece's box is in the decoded picture: as the layout would have placed it by itself.

    Edges that the part shares with the box are where the layout placed those: at the picture's edges it may round.
    """
    whole = piece.crop
    stored = piece.orientation.upright(box.size)  # turning back swaps sides where turning upright does
    shrunk = whole.width / stored.width if stored.width > stored.height else whole.height / stored.height
    scale = 2.0 ** round(math.log2(shrunk))
    inside = piece.orientation.to_stored(Box(part.x - box.x, part.y - box.y, part.width, part.height), stored)
    right = whole.width if inside.right == stored.width else inside.right * scale
    bottom = whole.height if inside.bottom == stored.height else inside.bottom * scale
    x, y = inside.x * scale, inside.y * scale
    return Frame(whole.x + x, whole.y + y, right - x, bottom - y)
