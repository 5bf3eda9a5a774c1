"""Makes all tiles of a master's pyramid, which a volume or a store of renditions then stores.

A large flat master is decoded once, in a job that asks for its bytes (see `codecs.pyramid_cutter`). Any other is cut in
chunks, each of which is read and decoded by itself, the smallest level first: so memory does not grow with the
master, and a view of the whole picture need not wait for all of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from special.codecs import FlatPicture, TileCut, cut_pyramid, cut_tiles, memory_estimate
from special.concurrency import NEVER
from special.errors import Malformed
from special.formats import Extract, Layout, Piece, WholeLayout
from special.formats.tiff import Grid, Place, TiffLayout
from special.geometry import Box, Frame, Orientation, Size
from special.iiif import Job
from special.images import Master
from special.serving.master_pixels import MasterRenderer
from special.serving.read_piece import read_piece
from special.storage import Blob, Reader, Span
from special.workers import Lane, Talk

LANE: Final = Lane("pyramid", running=1, queue=1, deadline_s=120.0, share=0.5)
"""One master at a time, in a lane of its own, with at most half of the memory. The deadline is for one step of it."""
LARGE_PIXELS: Final = 16_000_000
"""Smallest size of a flat master that is decoded once for all tiles: some 0.2 s."""
CHUNK_PIXELS: Final = 32_000_000
"""Maximum number of pixels decoded at once: 100 MB as 8-bit RGB."""
JP2_CHUNK_PIXELS: Final = 8_000_000
"""The same for JPEG 2000, where OpenJPEG's planes take 12 bytes a pixel, and its tables as much again."""
TIFF_ROWS: Final = 512
"""Rows of a flat TIFF that are read at a time, about: in whole strips."""
MOST_TILE_BYTES: Final = 2 * 16 * (65536 + 6 * 2048**2)
"""Maximum length of what a job hands over at a time: 16 tiles of the largest side, twice, that nothing compresses."""

Tiles = Sequence[tuple[Place, Sequence[bytes]]]
"""Tiles with their files: the tile as it is shown and, if that is no whole one, the tile filled up to one."""
Put = Callable[[Tiles], Awaitable[None]]


def is_flat(layout: Layout, *, large_pixels: int = LARGE_PIXELS) -> bool:
    """Whether a master is so large, and so stored, that all tiles are best made of one decode."""
    if layout.size.area < large_pixels:
        return False
    return layout.format in ("jpeg", "png") or (isinstance(layout, TiffLayout) and len(layout.levels) == 1)


@dataclass(frozen=True, slots=True)
class PyramidMaker:
    """Makes pyramids with one tile size."""

    renderer: MasterRenderer
    reader: Reader
    tile: int
    """Side of a tile in pixels."""
    large_pixels: int = LARGE_PIXELS
    """Smallest size of a flat master that is decoded once for all tiles."""
    early_reduce: int = 0
    """As in `FlatPicture`."""
    lane: str = LANE.name
    """The lane of its jobs."""

    async def make(self, master: Master, put: Put) -> int:
        """Make all tiles, and hand each to `put` once; returns their number of channels, 1 or 3.

        Raises `SourceError`, `MasterError`, `DecodeError`, and what `put` raises.
        """
        if is_flat(master.layout, large_pixels=self.large_pixels):
            return await self._make_flat(master, put)
        grid, channels = Grid(master.layout.size, self.tile), 0
        for level, chunk in chunks(master.layout, grid):
            channels = await self._chunk(master, grid, level, chunk, put)
        return channels

    async def _make_flat(self, master: Master, put: Put) -> int:
        layout, renderer = master.layout, self.renderer
        strips = _Strips(master, renderer, self.reader) if isinstance(layout, TiffLayout) else None
        ahead = _ReadAhead(strips or _Stream(master.blob, self.reader))
        picture = FlatPicture(
            layout.format,
            master.blob.size,
            _stored_size(layout),
            _orientation(layout),
            self.tile,
            renderer.encoding,
            renderer.limits.max_pixels,
            self.early_reduce,
        )
        grid = picture.grid

        async def take(value: Any, parts: Sequence[bytes]) -> None:
            await put(_tiles(value, parts, grid))

        extract = layout.extract(_upright(strips.box(0), layout) if strips else Box.whole(layout.size), layout.size)
        renderer.limits.check(master.blob, extract)
        cost_bytes = memory_estimate.pyramid_bytes(picture, extract, in_memory=_is_held(layout, extract))
        async with renderer.admission.admit(self.lane, cost_bytes, deadline=NEVER, master=master.blob.version):
            talk, key = Talk(ahead.answer, take, MOST_TILE_BYTES), _quarantine_key(master)
            try:
                channels = await renderer.workers.run(
                    cut_pyramid, picture, lane=self.lane, deadline=NEVER, quarantine_key=key, talk=talk
                )
            finally:
                await ahead.close()
        if channels not in (1, 3):
            raise Malformed(f"its pyramid has tiles of {channels} channels")
        return channels

    async def _chunk(self, master: Master, grid: Grid, level: int, chunk: Box, put: Put) -> int:
        """Make some tiles of a level, and return their number of channels."""
        blob, box, renderer = master.blob, grid.box(level, chunk), self.renderer
        size = grid.shown(level, box)
        layout = await renderer.masters.prepared(master, box, size, self.reader)
        places = [
            Place(level, column, row) for row in range(chunk.y, chunk.bottom) for column in range(chunk.x, chunk.right)
        ]
        boxes = [grid.box(level, Box(place.column, place.row, 1, 1)) for place in places]
        job = Job(box, size, False, 0.0, "default", "jpg")
        async with renderer.piece(blob, layout, job, self.reader, lane=self.lane, deadline=NEVER) as (
            piece,
            admission,
        ):
            cuts = [TileCut(_crop(piece, box, part), grid.shown(level, part)) for part in boxes]
            made = await renderer.workers.run(
                cut_tiles,
                piece,
                cuts,
                self.tile,
                renderer.encoding,
                renderer.limits.max_pixels,
                lane=self.lane,
                deadline=admission.deadline,
                quarantine_key=_quarantine_key(master),
            )
        await put(list(zip(places, made.encoded, strict=True)))
        return made.channels


def _quarantine_key(master: Master) -> str:
    return f"{master.blob.version} (its pyramid)"  # its tiles may go well all the same


def _tiles(value: Any, parts: Sequence[bytes], grid: Grid) -> Tiles:
    """What a decoder handed over. Raises `ValueError` where it is not what `cut_pyramid` gives."""
    tiles: list[tuple[Place, Sequence[bytes]]] = []
    at = 0
    for level, column, row, count in value:
        is_place = 0 <= level < grid.levels and 0 <= column < grid.columns(level) and 0 <= row < grid.rows(level)
        if not is_place or count not in (1, 2):
            raise ValueError("a tile that is not of this picture")
        tiles.append((Place(level, column, row), parts[at : at + count]))
        at += count
    if at != len(parts):
        raise ValueError("files that belong to no tile")
    return tiles


class _Feed(Protocol):
    """Parts of a master, as a decoder asks for them."""

    async def read(self, numbers: Sequence[int]) -> object:
        """The part of these numbers. Raises `MasterError`, `SourceError`; `ValueError` where there is none."""
        ...

    def after(self, numbers: Sequence[int]) -> tuple[int, ...] | None:
        """The part that is likely asked for next."""
        ...


class _ReadAhead:
    """Reads the next part while the last one is decoded."""

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed
        self._next: tuple[tuple[int, ...], asyncio.Task[object]] | None = None

    async def answer(self, numbers: Sequence[int]) -> object:
        asked = tuple(numbers)
        expected, self._next = self._next, None
        if expected is not None and expected[0] != asked:
            expected[1].cancel()
        is_expected = expected is not None and expected[0] == asked
        part = await (expected[1] if expected is not None and is_expected else self._feed.read(asked))
        following = self._feed.after(asked)
        if following is not None:
            self._next = following, asyncio.ensure_future(self._feed.read(following))
        return part

    async def close(self) -> None:
        if self._next is not None:
            self._next[1].cancel()
            await asyncio.gather(self._next[1], return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Stream:
    """A master's bytes: from the first number to the second."""

    blob: Blob
    reader: Reader

    async def read(self, numbers: Sequence[int]) -> bytes:
        start, stop = numbers
        if stop > self.blob.size:
            raise ValueError("bytes behind the master's last")
        (data,) = await self.reader.read(self.blob, [Span(start, stop)])
        return data

    def after(self, numbers: Sequence[int]) -> tuple[int, ...] | None:
        start, stop = numbers
        return (stop, min(2 * stop - start, self.blob.size)) if stop < self.blob.size else None


@dataclass(frozen=True, slots=True)
class _Strips:
    """Bands of a flat TIFF, by their first row: whole strips, or rows of tiles."""

    master: Master
    renderer: MasterRenderer
    reader: Reader

    def box(self, y: int) -> Box:
        """The band that starts at a row, in the stored picture. Raises `ValueError`."""
        stored, height = _stored_size(self.master.layout), self._height
        if not 0 <= y < stored.height or y % height:
            raise ValueError("no row at which a band starts")
        return Box(0, y, stored.width, min(height, stored.height - y))

    async def read(self, numbers: Sequence[int]) -> Piece:
        (y,) = numbers
        layout, renderer = self.master.layout, self.renderer
        box = _upright(self.box(y), layout)
        prepared = await renderer.masters.prepared(self.master, box, box.size, self.reader)
        piece, _ = await read_piece(self.reader, self.master.blob, prepared, box, box.size, limits=renderer.limits)
        return piece

    def after(self, numbers: Sequence[int]) -> tuple[int, ...] | None:
        y = numbers[0] + self._height
        return (y,) if y < _stored_size(self.master.layout).height else None

    @property
    def _height(self) -> int:
        assert isinstance(self.master.layout, TiffLayout), "others have no strips"
        strip = self.master.layout.full.tile.height
        return strip * max(1, TIFF_ROWS // strip)


def _orientation(layout: Layout) -> Orientation:
    assert isinstance(layout, (TiffLayout, WholeLayout)), "JPEG 2000 is never flat"
    return layout.orientation


def _stored_size(layout: Layout) -> Size:
    return _orientation(layout).upright(layout.size)  # turning back swaps sides where turning upright does


def _upright(box: Box, layout: Layout) -> Box:
    """A box of the stored picture in the coordinates of the upright one."""
    turn = _orientation(layout)
    back = {Orientation.TURN_90: Orientation.TURN_270, Orientation.TURN_270: Orientation.TURN_90}.get(turn, turn)
    return back.to_stored(box, layout.size)


def _is_held(layout: Layout, extract: Extract) -> bool:
    """Whether a codec holds all pixels of what it is given at once."""
    return layout.format == "tiff" or (isinstance(layout, WholeLayout) and layout.progressive)


def chunks(layout: Layout, grid: Grid) -> Iterator[tuple[int, Box]]:
    """All tiles of all levels, the smallest first, as boxes of tiles that take bounded memory, one tile at least."""
    most = JP2_CHUNK_PIXELS if layout.format == "jp2" else CHUNK_PIXELS
    for level in reversed(range(grid.levels)):
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
