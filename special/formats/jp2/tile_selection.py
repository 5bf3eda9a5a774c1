"""A box at a size, as a level, tiles and pixels: geometry alone, whatever is known of packets."""

from __future__ import annotations

from dataclasses import dataclass

from special.formats.jp2 import precinct_selection
from special.formats.jp2.main_header import Canvas, Header
from special.formats.jp2.precinct_selection import Bounds, LevelView
from special.geometry import Box, Size

MAX_TILES = 2048
"""Tiles that one picture is put together of: each takes about a millisecond to plan."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A box at a size, as tiles and resolutions."""

    view: LevelView
    columns: range
    """Tile columns that the window touches."""
    rows: range
    """Tile rows that the window touches."""
    is_all: bool
    """Every tile at full resolution: the object itself is the piece."""

    @property
    def is_vast(self) -> bool:
        """Whether it touches more tiles than are worth being picked from."""
        return len(self.columns) * len(self.rows) > MAX_TILES

    def tiles(self, canvas: Canvas) -> list[tuple[int, Bounds]]:
        """Number and bounds of each tile, row by row."""
        return [
            (row * canvas.columns + column, canvas.tile(column, row)) for row in self.rows for column in self.columns
        ]


def select(header: Header, box: Box, size: Size, *, max_reduction: int) -> Selection:
    """The smallest level that is as large as `size`, and the tiles that the box touches there."""
    seen = precinct_selection.view(header, box, size, max_reduction=max_reduction)
    canvas, window = header.canvas, seen.window
    # A pixel of the reduced grid belongs to the tile of the full pixel at its position (B-15).
    last_column = ((window[2] - 1 << seen.reduction) - canvas.tile_left) // canvas.tile_width
    last_row = ((window[3] - 1 << seen.reduction) - canvas.tile_top) // canvas.tile_height
    columns = range(((window[0] << seen.reduction) - canvas.tile_left) // canvas.tile_width, last_column + 1)
    rows = range(((window[1] << seen.reduction) - canvas.tile_top) // canvas.tile_height, last_row + 1)
    return Selection(seen, columns, rows, is_all=seen.is_whole and not seen.reduction)
