"""The packets of one tile: how many there are, and their order in the file.

A tile-component's resolution is cut into precincts, a grid that is anchored at the origin of the
resolution's own coordinates (B.6). Each precinct has one packet in each layer. The progression says in
which of five orders packets follow each other (B.12.1); all five are a sort by the right keys.

Packets have a *number* here that does not depend on the progression: `precinct * layers + layer`, with
precincts counted by component, resolution, row and column.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from special.formats.jp2.main_header import Header
from special.geometry import ceil_div

Ints = npt.NDArray[np.int64]

LRCP, RLCP, RPCL, PCRL = range(4)
"""Progression orders, by their number in COD (table A.16); the fifth is CPRL."""


@dataclass(frozen=True, slots=True)
class PrecinctGrid:
    """The precincts of one resolution of one tile-component."""

    component: int
    resolution: int
    left: int
    """Column of the first precinct, counted from the origin of the coordinates."""
    top: int
    """Row of the first precinct."""
    columns: int
    rows: int
    first: int
    """How many precincts of the tile come before these."""
    bounds: tuple[int, int, int, int]
    """Left, top, right and bottom of the tile-component at this resolution (B-15)."""

    @property
    def count(self) -> int:
        """Precincts in the grid."""
        return self.columns * self.rows


@dataclass(frozen=True, slots=True)
class TileGeometry:
    """The precinct grids of one tile."""

    bounds: tuple[int, int, int, int]
    """Left, top, right and bottom on the reference grid."""
    grids: tuple[PrecinctGrid, ...]
    """By component, then by resolution; those without precincts left out."""
    precincts: int
    """Of all grids together."""


def tile_of(header: Header, bounds: tuple[int, int, int, int]) -> TileGeometry:
    """The precinct grids of the tile with these bounds.

    Integer arithmetic in proportion to components times resolutions.
    """
    grids: list[PrecinctGrid] = []
    first = 0
    for component, (coding, (dx, dy)) in enumerate(zip(header.codings, header.canvas.steps, strict=True)):
        for resolution in range(coding.levels + 1):
            depth = coding.levels - resolution
            left, right = (ceil_div(bounds[i], dx << depth) for i in (0, 2))
            top, bottom = (ceil_div(bounds[i], dy << depth) for i in (1, 3))
            if left >= right or top >= bottom:
                continue
            across, down = coding.precincts[resolution]
            column, row = left >> across, top >> down
            columns, rows = ceil_div(right, 1 << across) - column, ceil_div(bottom, 1 << down) - row  # B-16
            grids.append(
                PrecinctGrid(component, resolution, column, row, columns, rows, first, (left, top, right, bottom))
            )
            first += columns * rows
    return TileGeometry(bounds, tuple(grids), first)


def place(tile: TileGeometry, precinct: int) -> tuple[PrecinctGrid, int, int]:
    """The grid of a precinct, and its column and row from the origin of the coordinates."""
    grid = tile.grids[bisect_right(tile.grids, precinct, key=lambda grid: grid.first) - 1]
    row, column = divmod(precinct - grid.first, grid.columns)
    return grid, grid.left + column, grid.top + row


def file_order(header: Header, tile: TileGeometry) -> Ints:
    """Packet numbers in the order in which the progression lays them down: an array of `precincts * layers`.

    A few array operations and one sort. The caller bounds the number of packets.
    """
    if not tile.precincts:
        return np.zeros(0, np.int64)
    counts = [grid.count for grid in tile.grids]
    component = np.repeat([grid.component for grid in tile.grids], counts)
    resolution = np.repeat([grid.resolution for grid in tile.grids], counts)
    precinct = np.arange(tile.precincts, dtype=np.int64)
    if header.progression in (LRCP, RLCP):
        # Numbers extend_index with component, then resolution: a stable sort by resolution keeps the rest in order.
        by_resolution = np.argsort(resolution, kind="stable")
        if header.progression == LRCP:
            layer = np.arange(header.layers, dtype=np.int64)
            return (by_resolution[None, :] * header.layers + layer[:, None]).ravel()  # layers, precincts
        runs = np.split(by_resolution, np.flatnonzero(np.diff(resolution[by_resolution])) + 1)
        layer = np.arange(header.layers, dtype=np.int64)[:, None]
        return np.concatenate([(run[None, :] * header.layers + layer).ravel() for run in runs])
    x, y = _positions(header, tile)
    match header.progression:
        case 2:  # RPCL
            keys = (precinct, component, x, y, resolution)
        case 3:  # PCRL
            keys = (precinct, resolution, component, x, y)
        case _:  # CPRL
            keys = (precinct, resolution, x, y, component)
    order = np.lexsort(keys)  # the last key counts most
    return (order[:, None] * header.layers + np.arange(header.layers, dtype=np.int64)).ravel()  # precincts, layers


def _positions(header: Header, tile: TileGeometry) -> tuple[Ints, Ints]:
    """Of each precinct, the point of the reference grid at which a position progression comes upon it.

    That is its upper left corner, or the tile's edge where it begins outside the tile (B.12.1.3 to B.12.1.5).
    """
    xs: list[Ints] = []
    ys: list[Ints] = []
    for grid in tile.grids:
        coding, (dx, dy) = header.codings[grid.component], header.canvas.steps[grid.component]
        depth = coding.levels - grid.resolution
        across, down = coding.precincts[grid.resolution]
        x = np.maximum(np.arange(grid.left, grid.left + grid.columns) * (dx << depth + across), tile.bounds[0])
        y = np.maximum(np.arange(grid.top, grid.top + grid.rows) * (dy << depth + down), tile.bounds[1])
        xs.append(np.tile(x, grid.rows))
        ys.append(np.repeat(y, grid.columns))
    return np.concatenate(xs), np.concatenate(ys)


def reduced(header: Header, drop: int) -> Header:
    """The header of the same tile, by itself, without its highest `drop` resolutions: for packet geometry only.

    Precincts and step sizes belong to resolutions, which keep their numbers.
    """
    codings = tuple(
        replace(coding, levels=coding.levels - drop, precincts=coding.precincts[: coding.levels - drop + 1])
        for coding in header.codings
    )
    return replace(header, codings=codings)
