"""The pyramids that special makes: a BigTIFF of whole JPEGs, on the grid that viewers ask for.

A tile of IIIF ends at the picture's edge, a tile of TIFF is always whole. So a tile at the right
or lower edge is stored twice: as viewers ask for it, which no directory names, and right behind
that, filled up, as TIFF wants it. Each can be sent as it is; none lacks tables or needs a marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from special.formats.layout import Layout, Tiling
from special.formats.tiff import writer
from special.formats.tiff.ifd import Dialect
from special.formats.tiff.layout import MAX_TILES, TiffLayout
from special.formats.tiff.tags import Compression, Photometric, Tag, Type
from special.geometry import Box, Size, ceil_div
from special.storage import Span

HEAD_BYTES = 16
"""Length of a BigTIFF's header."""
DIALECT = Dialect("<", big=True)
CHEAP_PIXELS = 4_000_000
"""Maximum number of pixels to decode for a tile of the whole picture: some 30 ms."""
SLIVER_PIXELS = 16
"""A level that is less than a pixel short serves for more pixels than these, always: see `levels.serves`."""


@dataclass(frozen=True, slots=True)
class Place:
    """One tile of a grid."""

    level: int
    """0 for the full picture, 1 for half of it, …"""
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Grid:
    """The tiles of a picture at all levels: halves, rounded up, down to the one that fits in a tile."""

    full: Size
    """The whole picture, upright."""
    tile: int
    """Length of a whole tile's sides, in pixels of its level."""

    @property
    def levels(self) -> int:
        """How many there are."""
        return (ceil_div(self.full.long_side, self.tile) - 1).bit_length() + 1

    @property
    def tiling(self) -> Tiling:
        """As it is offered to viewers."""
        return Tiling(Size(self.tile, self.tile), tuple(1 << level for level in range(self.levels)))

    def size(self, level: int) -> Size:
        """Size of a level."""
        return self.full.reduced(level)

    def columns(self, level: int) -> int:
        """Tiles side by side."""
        return ceil_div(self.size(level).width, self.tile)

    def rows(self, level: int) -> int:
        """Tiles one above the other."""
        return ceil_div(self.size(level).height, self.tile)

    def box(self, level: int, tiles: Box) -> Box:
        """What a box of a level's tiles shows of the full picture."""
        step = self.tile << level
        within = Box(tiles.x * step, tiles.y * step, tiles.width * step, tiles.height * step).within(self.full)
        assert within is not None, "tiles of the grid are in the picture"
        return within

    def shown(self, level: int, box: Box) -> Size:
        """A box of the full picture at a level's scale: rounded up, as viewers do (implementation notes, section 8)."""
        return box.size.reduced(level)

    def is_whole(self, size: Size) -> bool:
        """Whether a tile of this size is no edge."""
        return size.width == size.height == self.tile

    def find(self, box: Box, size: Size) -> Place | None:
        """The tile that is exactly this box at this size."""
        for level in range(self.levels):
            step = self.tile << level
            if (
                size == self.shown(level, box)
                and not (box.x % step or box.y % step)
                and box.right == min(box.x + step, self.full.width)
                and box.bottom == min(box.y + step, self.full.height)
            ):
                return Place(level, box.x // step, box.y // step)
        return None

    def is_exact(self, box: Box, size: Size) -> bool:
        """Whether the box at this size is whole pixels of a level, which need no resampling."""
        return any(
            size == self.shown(level, box)
            and not (box.x % (1 << level) or box.y % (1 << level))
            and (not box.width % (1 << level) or box.right == self.full.width)
            and (not box.height % (1 << level) or box.bottom == self.full.height)
            for level in range(self.levels)
        )

    def chunks(self, level: int, tiles_wide: int, tiles_high: int) -> Iterator[Box]:
        """All tiles of a level, in boxes of at most `tiles_wide` × `tiles_high`.

        A sliver at the edge is by itself: what it is made from may be another level of the master than for the rest.
        """
        size = self.size(level)
        for rows in self._runs(size.height, tiles_high):
            for columns in self._runs(size.width, tiles_wide):
                yield Box.between(columns.start, rows.start, columns.stop, rows.stop)

    def _runs(self, side: int, most: int) -> list[range]:
        count = ceil_div(side, self.tile)
        even = count - 1 if 0 < side % self.tile <= SLIVER_PIXELS else count
        runs = [range(start, min(start + most, even)) for start in range(0, even, most)]
        return runs if even == count else [*runs, range(even, count)]


@dataclass(frozen=True, slots=True)
class PyramidIndex:
    """Where each tile is in a pyramid's file."""

    grid: Grid
    layout: TiffLayout

    def find(self, box: Box, size: Size, *, whole_part_before: Callable[[int], Span | None]) -> Span | None:
        """The stored JPEG of exactly this box at this size, if it is a tile of the grid.

        `whole_part_before` gives what ends where a directory's tile starts: there a tile at the edge is unfilled.
        """
        place = self.grid.find(box, size)
        if place is None:
            return None
        span = self.span(place)
        return span if self.grid.is_whole(size) else whole_part_before(span.start)

    def span(self, place: Place) -> Span:
        """The stored JPEG of a tile; at an edge the one that is filled up."""
        page = self.layout.pyramid[place.level].page
        span = page.span(place.row * page.columns + place.column)
        assert span is not None, "a pyramid has all its tiles"
        return span

    def source_size(self, box: Box, size: Size) -> Size:
        """The size that a level must have for this box at this size.

        Twice that of the answer, where it is resampled: what is halved again loses nothing that the master would show.
        """
        if self.grid.is_exact(box, size):
            return size
        return Size(min(2 * size.width, box.width), min(2 * size.height, box.height))


def is_possible(layout: Layout, grid: Grid) -> bool:
    """Whether a master is larger than a tile, and a file can hold its pyramid."""
    width, height = grid.full.width, grid.full.height
    # A line of pixels has no smaller levels that TIFF could tell from other pictures.
    return max(width, height) > grid.tile and min(width, height) > 1 and grid.columns(0) * grid.rows(0) <= MAX_TILES


def is_expensive(layout: Layout, grid: Grid) -> bool:
    """Whether a pyramid makes a master's tiles much cheaper.

    It does not for a TIFF with tiles of its own and levels down to a moderate one. Everything else is decoded
    from its start, or by a codec that takes ten times as long (JPEG 2000).
    """
    if not is_possible(layout, grid):
        return False
    return layout.format != "tiff" or layout.tiling is None or layout.levels[-1].area > CHEAP_PIXELS


Wanted = Callable[[Layout, Grid], bool]
"""Which masters get pyramids."""
WANTED: Mapping[Literal["expensive", "all"], Wanted] = {"expensive": is_expensive, "all": is_possible}
"""By the value of the setting `pyramids`."""


@dataclass(frozen=True, slots=True)
class PyramidGrids:
    """Which masters have pyramids, and the tile grid of each. It does not matter which server makes one, and when."""

    tile: int
    """Length of a whole tile's sides, in pixels of its level."""
    wanted: Wanted

    def of(self, layout: Layout) -> Grid | None:
        """The grid of a master's pyramid; None for a master that has none."""
        grid = Grid(layout.size, self.tile)
        return grid if self.wanted(layout, grid) else None

    def tiling(self, layout: Layout) -> Tiling | None:
        """The tiles of a master's pyramid; None for a master that has none."""
        grid = self.of(layout)
        return None if grid is None else grid.tiling


def head(first_directory: int) -> bytes:
    """The file's first `HEAD_BYTES`."""
    return writer.header(DIALECT, first_directory)


def directories(grid: Grid, tiles: Mapping[Place, Span], *, channels: int, subsampling: int, at: int) -> bytes:
    """All directories, for byte `at`; `tiles` are those that are filled up."""
    out: list[bytes] = []
    for level in range(grid.levels):
        spans = [
            tiles[Place(level, column, row)] for row in range(grid.rows(level)) for column in range(grid.columns(level))
        ]
        fields = _fields(grid, level, spans, channels=channels, subsampling=subsampling)
        out.append(writer.directory(DIALECT, fields, at=at, is_last=level == grid.levels - 1))
        at += len(out[-1])
    return b"".join(out)


def _fields(grid: Grid, level: int, spans: Sequence[Span], *, channels: int, subsampling: int) -> list[writer.Value]:
    size, is_color = grid.size(level), channels == 3
    fields: list[tuple[Tag, Type, list[int]]] = [
        (Tag.NEW_SUBFILE_TYPE, Type.LONG, [int(level > 0)]),
        (Tag.IMAGE_WIDTH, Type.LONG, [size.width]),
        (Tag.IMAGE_LENGTH, Type.LONG, [size.height]),
        (Tag.BITS_PER_SAMPLE, Type.SHORT, [8] * channels),
        (Tag.COMPRESSION, Type.SHORT, [Compression.JPEG]),
        (Tag.PHOTOMETRIC, Type.SHORT, [Photometric.YCBCR if is_color else Photometric.MIN_IS_BLACK]),
        (Tag.SAMPLES_PER_PIXEL, Type.SHORT, [channels]),
        (Tag.PLANAR_CONFIGURATION, Type.SHORT, [1]),
        (Tag.TILE_WIDTH, Type.LONG, [grid.tile]),
        (Tag.TILE_LENGTH, Type.LONG, [grid.tile]),
        (Tag.TILE_OFFSETS, Type.LONG8, [span.start for span in spans]),
        (Tag.TILE_BYTE_COUNTS, Type.LONG, [len(span) for span in spans]),
    ]
    if is_color:
        fields.append((Tag.YCBCR_SUB_SAMPLING, Type.SHORT, [subsampling, subsampling]))
    return [writer.numbers(DIALECT, tag, kind, values) for tag, kind, values in fields]
