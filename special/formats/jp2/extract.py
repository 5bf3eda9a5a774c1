"""The three ways to a plan's pixels, and the spans that each of them reads.

packets  packets, where their lengths are known
tiles    whole tiles, unchanged, in a tiled master
whole    the object as it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from special.formats.jp2 import codestream_writer, precinct_selection
from special.formats.jp2.decode_window import DecodeWindow, decode_window
from special.formats.jp2.main_header import Canvas, Header
from special.formats.jp2.packet_index import Untrusted, index_packets
from special.formats.jp2.precincts import Ints, TileGeometry, file_order, reduced, tile_of
from special.formats.jp2.tile_parts import PartIndex
from special.formats.jp2.tile_selection import Selection
from special.formats.layout import Extract
from special.geometry import ceil_div
from special.storage import Span


@dataclass(frozen=True, slots=True)
class WholeObject:
    """The object as it is."""

    window: DecodeWindow


@dataclass(frozen=True, slots=True)
class WholeTiles:
    """Whole tiles, unchanged."""

    window: DecodeWindow
    canvas: Canvas
    numbers: tuple[int, ...]
    """The new number of each span's tile."""


@dataclass(frozen=True, slots=True, eq=False)
class PickedPackets:
    """Packets, tile by tile. Each array has an entry for every packet of the piece, in its new order."""

    window: DecodeWindow
    canvas: Canvas
    drop: int
    starts: tuple[Ints, ...]
    """Where a packet starts in the file; -1 for one that becomes empty."""
    lengths: tuple[Ints, ...]
    numbers: tuple[Ints, ...]
    """Its number in its tile of the master."""
    tiles: tuple[TileGeometry, ...]
    """The master's tiles, one for each of the piece's."""


def extract(header: Header, index: PartIndex, wanted: Selection, size_bytes: int, *, is_trusted: bool) -> Extract:
    """The spans of the cheapest way that is exact."""
    if is_trusted and not wanted.is_all and not wanted.is_vast:
        try:
            return _packets(header, index, wanted)
        except Untrusted:
            pass  # whole tiles need no packet lengths
        found = _tiles(header, index, wanted)
        if found is not None:
            return found
    window = decode_window(header, wanted.view, header.canvas, 0)
    return Extract(
        (Span(0, size_bytes),), wanted.view.reduction, window.pixels, WholeObject(window), len(header.codings)
    )


def _packets(header: Header, index: PartIndex, wanted: Selection) -> Extract:
    """Raises `Untrusted` where a needed packet is not known."""
    if index.refusal is not None:
        raise Untrusted(index.refusal)
    drop = codestream_writer.largest_drop(header.canvas, wanted.columns, wanted.rows, wanted.view.reduction)
    canvas = codestream_writer.cut_canvas(header.canvas, wanted.columns, wanted.rows, drop)
    small = reduced(header, drop)
    starts: list[Ints] = []
    lengths: list[Ints] = []
    numbers: list[Ints] = []
    tiles: list[TileGeometry] = []
    for number, bounds in wanted.tiles(header.canvas):
        tile = tile_of(header, bounds)
        packets = index_packets(header, index, number, tile)
        needed = np.repeat(precinct_selection.wanted(header, tile, wanted.view), header.layers)
        if bool((packets.starts[needed] < 0).any()):
            raise Untrusted(f"the index does not reach all packets of tile {number}")
        left, top, right, bottom = (ceil_div(edge, 1 << drop) for edge in bounds)
        small_tile = tile_of(small, (left, top, right, bottom))
        # Precincts keep their component, resolution, row and column: each grid of the small tile is one of the large.
        firsts = {(grid.component, grid.resolution): grid.first for grid in tile.grids}
        same = [np.arange(g.count) + firsts[g.component, g.resolution] for g in small_tile.grids] or [
            np.zeros(0, np.int64)
        ]
        order = file_order(small, small_tile)
        chosen = np.concatenate(same)[order // header.layers] * header.layers + order % header.layers
        starts.append(np.where(needed[chosen], packets.starts[chosen], -1))
        lengths.append(np.where(needed[chosen], packets.lengths[chosen], 0))
        numbers.append(chosen)
        tiles.append(tile)
    window = decode_window(header, wanted.view, canvas, drop)
    recipe = PickedPackets(window, canvas, drop, tuple(starts), tuple(lengths), tuple(numbers), tuple(tiles))
    return Extract(_runs(starts, lengths), wanted.view.reduction, window.pixels, recipe, len(header.codings))


def _runs(starts: Sequence[Ints], lengths: Sequence[Ints]) -> tuple[Span, ...]:
    """The bytes of all picked packets; packets that touch share a span."""
    start, length = np.concatenate(starts), np.concatenate(lengths)
    picked = np.flatnonzero(start >= 0)
    if not len(picked):
        return ()
    order = picked[np.argsort(start[picked])]
    start, stop = start[order], start[order] + length[order]
    new = np.flatnonzero(start[1:] != stop[:-1]) + 1
    firsts, lasts = start[np.concatenate(([0], new))], stop[np.concatenate((new - 1, [-1]))]
    return tuple(Span(a, b) for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True))


def _tiles(header: Header, index: PartIndex, wanted: Selection) -> Extract | None:
    """Whole tiles, where that is less than all of them and all their parts are known."""
    tiles = wanted.tiles(header.canvas)
    if len(tiles) == header.canvas.columns * header.canvas.rows:
        return None
    spans: list[Span] = []
    numbers: list[int] = []
    for new, (number, _) in enumerate(tiles):
        if not index.is_complete(number) or not index.rows.get(number):
            return None
        parts = index.spans(number)
        spans += parts
        numbers += [new] * len(parts)
    canvas = codestream_writer.cut_canvas(header.canvas, wanted.columns, wanted.rows, 0)
    window = decode_window(header, wanted.view, canvas, 0)
    recipe = WholeTiles(window, canvas, tuple(numbers))
    return Extract(tuple(spans), wanted.view.reduction, window.pixels, recipe, len(header.codings))
