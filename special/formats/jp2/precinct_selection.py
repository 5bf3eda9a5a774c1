"""From a box of the picture to the level it is read at, and to the precincts that its pixels need.

Two coordinates meet here. A *picture* coordinate counts pixels of the decoded picture from its own corner;
an *absolute* one counts from the origin of the (reduced) reference grid, where tiles and precincts are anchored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from special.formats.jp2.main_header import Header
from special.formats.jp2.precincts import TileGeometry, file_order
from special.geometry import Box, Frame, Size, ceil_div

FILTER_MARGIN = 4
"""Samples of every subband, beyond the wanted ones, that one synthesis step may touch.

Tables F.2 and F.3: at most 4 samples on either side of the interleaved signal, hence 2 of a subband, and
rounding costs one more.
"""

Bounds = tuple[int, int, int, int]
"""Left, top, right and bottom."""


@dataclass(frozen=True, slots=True)
class LevelView:
    """A box of the picture, seen at one reduction. Absolute coordinates of the reduced grid."""

    reduction: int
    """Resolution levels left out."""
    frame: tuple[float, float, float, float]
    """The box's exact edges: left, top, right and bottom."""
    window: Bounds
    """The whole pixels that hold the frame."""
    picture: Bounds
    """All of the reduced picture."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the picture is wanted."""
        return self.window == self.picture

    def crop(self, origin: tuple[int, int], size: Size) -> Frame:
        """The frame in pixels of a decoded picture whose corner is at `origin`."""
        left, top, right, bottom = self.frame
        return Frame(left - origin[0], top - origin[1], right - left, bottom - top).within(size)


def view(header: Header, box: Box, size: Size, *, max_reduction: int) -> LevelView:
    """The box at the smallest level that is at least as large as `size`, or at full size where none is.

    `box` must be inside the picture, and the picture must have pixels at `max_reduction`.
    """
    best = view_at(header, box, 0)
    for reduction in range(1, max_reduction + 1):
        seen = view_at(header, box, reduction)
        left, top, right, bottom = seen.frame
        if right - left < size.width or bottom - top < size.height:
            break
        best = seen
    return best


def view_at(header: Header, box: Box, reduction: int) -> LevelView:
    """The box at this reduction.

    Edges of the box that are edges of the picture stay that; all others are divided exactly.
    """
    full, picture = header.bounds(0), header.bounds(reduction)
    edges: list[float] = []
    for side, at in enumerate((box.x, box.y, box.right, box.bottom)):
        absolute = full[side % 2] + at
        if absolute in (full[side % 2], full[side % 2 + 2]):
            edges.append(picture[side % 2 + 2 * (absolute == full[side % 2 + 2])])
        else:
            edges.append(min(max(absolute / (1 << reduction), picture[side % 2]), picture[side % 2 + 2]))
    left, top, right, bottom = edges
    window: list[int] = [0, 0, 0, 0]
    for axis, (low, high) in enumerate(((left, right), (top, bottom))):
        # Chroma samples are at multiples of their distance: begin and end the window at one.
        step = math.lcm(*(steps[axis] for steps in header.canvas.steps)) if not header.refusal else 1
        start, stop = picture[axis], picture[axis + 2]
        first = min(math.floor(low), stop - 1) // step * step
        window[axis] = max(first, start)
        window[axis + 2] = min(max(ceil_div(math.ceil(high), step) * step, window[axis] + 1), stop)
    return LevelView(reduction, (left, top, right, bottom), (window[0], window[1], window[2], window[3]), picture)


def wanted(header: Header, tile: TileGeometry, seen: LevelView) -> npt.NDArray[np.bool_]:
    """Which of the tile's precincts the window needs: an array of `tile.precincts`.

    From the highest resolution that is read down to the lowest, the needed samples are halved and widened by
    the filter's margin. Precincts of the resolutions left out are not wanted.
    """
    chosen = np.zeros(tile.precincts, bool)
    needs: dict[int, list[Bounds]] = {}
    for grid in tile.grids:
        coding = header.codings[grid.component]
        if grid.component not in needs:
            needs[grid.component] = _needs(header, grid.component, tile.bounds, seen)
        if grid.resolution > coding.levels - seen.reduction:
            continue
        left, top, right, bottom = needs[grid.component][grid.resolution]
        # Above the lowest resolution the samples are those of subbands, where a precinct is half as wide (B.7).
        halved = 1 if grid.resolution else 0
        across, down = (exponent - halved for exponent in coding.precincts[grid.resolution])
        columns = slice(max((left >> across) - grid.left, 0), max(ceil_div(right, 1 << across) - grid.left, 0))
        rows = slice(max((top >> down) - grid.top, 0), max(ceil_div(bottom, 1 << down) - grid.top, 0))
        chosen[grid.first : grid.first + grid.count].reshape(grid.rows, grid.columns)[rows, columns] = True
    return chosen


def reach(header: Header, tile: TileGeometry, seen: LevelView) -> int:
    """How many of the tile's first packets in the file hold all that the window needs. Costs one sort."""
    needed = np.repeat(wanted(header, tile, seen), header.layers)[file_order(header, tile)]
    last = np.flatnonzero(needed)
    return int(last[-1]) + 1 if len(last) else 0


def _needs(header: Header, component: int, tile: Bounds, seen: LevelView) -> list[Bounds]:
    """For each resolution of one component, which samples of its subbands the window needs."""
    dx, dy = header.canvas.steps[component]
    scale = 1 << seen.reduction
    at = [
        max(seen.window[0], ceil_div(tile[0], scale)) // dx,
        max(seen.window[1], ceil_div(tile[1], scale)) // dy,
        ceil_div(min(seen.window[2], ceil_div(tile[2], scale)), dx),
        ceil_div(min(seen.window[3], ceil_div(tile[3], scale)), dy),
    ]
    levels = header.codings[component].levels
    needs: list[Bounds] = [(0, 0, 0, 0)] * (levels + 1)
    for resolution in range(levels - seen.reduction, 0, -1):
        at = [
            max((at[0] >> 1) - FILTER_MARGIN, 0),
            max((at[1] >> 1) - FILTER_MARGIN, 0),
            ceil_div(at[2], 2) + FILTER_MARGIN,
            ceil_div(at[3], 2) + FILTER_MARGIN,
        ]
        needs[resolution] = (at[0], at[1], at[2], at[3])
    needs[0] = (at[0], at[1], at[2], at[3])
    return needs
