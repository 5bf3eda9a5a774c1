"""Which bytes a box at a size needs, and how they become a piece. Pure.

A `Plan` is geometry alone: the level, the tiles, the pixels to decode. An extract adds what the
index knows: packets where their lengths are known, else whole tiles, else the whole object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from special.errors import Malformed
from special.formats.jp2 import region, surgery
from special.formats.jp2.boxes import Container
from special.formats.jp2.header import Canvas, Header
from special.formats.jp2.locate import Untrusted, locate
from special.formats.jp2.precincts import Ints, file_order, reduced, tile_of
from special.formats.jp2.region import View
from special.formats.jp2.tileparts import SOT, PartIndex
from special.geometry import Box, Frame, Size, ceil_div
from special.layout import Extract, Piece
from special.spans import Span


@dataclass(frozen=True, slots=True)
class Plan:
    """A box at a size, as tiles and resolutions."""

    view: View
    columns: range
    """Tile columns that the window touches."""
    rows: range
    """Tile rows that the window touches."""
    is_all: bool
    """Every tile at full resolution: the object as it stands is the piece."""

    def tiles(self, canvas: Canvas) -> list[tuple[int, tuple[int, int, int, int]]]:
        """Number and bounds of each tile, row by row."""
        return [
            (row * canvas.columns + column, canvas.tile(column, row)) for row in self.rows for column in self.columns
        ]


@dataclass(frozen=True, slots=True)
class Sight:
    """What a decoder is to do with a piece."""

    reduce: int
    area: Box | None
    crop: Frame
    pixels: int


@dataclass(frozen=True, slots=True)
class Whole:
    """The object as it is."""

    sight: Sight


@dataclass(frozen=True, slots=True)
class Tiles:
    """Whole tiles as they stand."""

    sight: Sight
    canvas: Canvas
    numbers: tuple[int, ...]
    """The new number of each span's tile."""


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """Packets, tile by tile. Each array has an entry for every packet of the piece, in its new order."""

    sight: Sight
    canvas: Canvas
    drop: int
    starts: tuple[Ints, ...]
    """Where a packet starts in the file; -1 for one that becomes empty."""
    lengths: tuple[Ints, ...]
    places: tuple[Ints, ...]
    """Its number in the tile, which its SOP must name."""


def plan(header: Header, box: Box, size: Size, *, max_reduction: int) -> Plan:
    """The smallest level that is as large as `size`, and the tiles that the box touches there."""
    seen = region.view(header, box, size, max_reduction=max_reduction)
    canvas, window = header.canvas, seen.window
    # A pixel of the reduced grid belongs to the tile of the full pixel that it stands on (B-15).
    last_column = ((window[2] - 1 << seen.reduction) - canvas.tile_left) // canvas.tile_width
    last_row = ((window[3] - 1 << seen.reduction) - canvas.tile_top) // canvas.tile_height
    columns = range(((window[0] << seen.reduction) - canvas.tile_left) // canvas.tile_width, last_column + 1)
    rows = range(((window[1] << seen.reduction) - canvas.tile_top) // canvas.tile_height, last_row + 1)
    return Plan(seen, columns, rows, is_all=seen.is_whole and not seen.reduction)


def extract(header: Header, index: PartIndex, wanted: Plan, size_bytes: int, *, is_trusted: bool) -> Extract:
    """The spans of the cheapest way that is exact."""
    if is_trusted and not wanted.is_all:
        try:
            return _packets(header, index, wanted)
        except Untrusted:
            pass  # whole tiles need no packet lengths
        found = _tiles(header, index, wanted)
        if found is not None:
            return found
    sight = _sight(header, wanted.view, header.canvas, 0)
    return Extract((Span(0, size_bytes),), wanted.view.reduction, sight.pixels, Whole(sight))


def reaches(header: Header, index: PartIndex, seen: View, number: int, bounds: tuple[int, int, int, int]) -> bool:
    """Whether the index holds every packet of one tile that a view needs. Raises `Untrusted`."""
    tile = tile_of(header, bounds)
    packets = locate(header, index, number, tile)
    needed = np.repeat(region.wanted(header, tile, seen), header.layers)
    return not bool((packets.starts[needed] < 0).any())


def _packets(header: Header, index: PartIndex, wanted: Plan) -> Extract:
    """Raises `Untrusted` where a needed packet is not known."""
    if index.refusal is not None:
        raise Untrusted(index.refusal)
    drop = surgery.largest_drop(header.canvas, wanted.columns, wanted.rows, wanted.view.reduction)
    canvas = surgery.cut(header.canvas, wanted.columns, wanted.rows, drop)
    small = reduced(header, drop)
    starts: list[Ints] = []
    lengths: list[Ints] = []
    places: list[Ints] = []
    for number, bounds in wanted.tiles(header.canvas):
        tile = tile_of(header, bounds)
        packets = locate(header, index, number, tile)
        needed = np.repeat(region.wanted(header, tile, wanted.view), header.layers)
        if bool((packets.starts[needed] < 0).any()):
            raise Untrusted(f"the index does not reach all packets of tile {number}")
        left, top, right, bottom = (ceil_div(edge, 1 << drop) for edge in bounds)
        kept = tile_of(small, (left, top, right, bottom))
        # Precincts keep their component, resolution, row and column: each grid of the small tile is one of the large.
        firsts = {(grid.component, grid.resolution): grid.first for grid in tile.grids}
        same = [np.arange(g.count) + firsts[g.component, g.resolution] for g in kept.grids] or [np.zeros(0, np.int64)]
        order = file_order(small, kept)
        chosen = np.concatenate(same)[order // header.layers] * header.layers + order % header.layers
        starts.append(np.where(needed[chosen], packets.starts[chosen], -1))
        lengths.append(np.where(needed[chosen], packets.lengths[chosen], 0))
        places.append(packets.places[chosen])
    sight = _sight(header, wanted.view, canvas, drop)
    recipe = Picks(sight, canvas, drop, tuple(starts), tuple(lengths), tuple(places))
    return Extract(_runs(starts, lengths), wanted.view.reduction, sight.pixels, recipe)


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


def _tiles(header: Header, index: PartIndex, wanted: Plan) -> Extract | None:
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
    canvas = surgery.cut(header.canvas, wanted.columns, wanted.rows, 0)
    sight = _sight(header, wanted.view, canvas, 0)
    return Extract(tuple(spans), wanted.view.reduction, sight.pixels, Tiles(sight, canvas, tuple(numbers)))


def _sight(header: Header, seen: View, canvas: Canvas, drop: int) -> Sight:
    """How the window lies in a piece with this canvas, from which `drop` levels are gone already."""
    reduce = seen.reduction - drop
    scale = 1 << reduce
    left, top, right, bottom = canvas.left, canvas.top, canvas.right, canvas.bottom
    picture = (ceil_div(left, scale), ceil_div(top, scale), ceil_div(right, scale), ceil_div(bottom, scale))
    window = seen.window
    area: Box | None = None
    # OpenJPEG decodes areas of HTJ2K wrongly: decode all, then crop.
    if window == picture or header.is_high_throughput:
        window = picture
    else:
        area = Box.between(
            max(window[0] * scale, left) - left,
            max(window[1] * scale, top) - top,
            min(window[2] * scale, right) - left,
            min(window[3] * scale, bottom) - top,
        )
    size = Size(window[2] - window[0], window[3] - window[1])
    return Sight(reduce, area, seen.crop((window[0], window[1]), size), size.area)


def rebuild(container: Container, header: Header, extract: Extract, parts: Sequence[bytes]) -> Piece:
    """The piece of an extract. Copies what was read three times at most. Raises `Malformed`."""
    if [len(part) for part in parts] != [len(span) for span in extract.spans]:
        raise Malformed("parts of other lengths than the spans that were asked for")
    match extract.recipe:
        case Whole(sight):
            data = bytes(parts[0])
        case Tiles(sight, canvas, numbers):
            head = surgery.main_header(header, canvas, 0, keep_sop=True)
            for part in parts:
                if part[:4] != SOT:
                    raise Malformed(f"{bytes(part[:4]).hex()} where a tile-part (SOT) was promised")
            renumbered = [surgery.renumbered(part, number) for part, number in zip(parts, numbers, strict=True)]
            data = _wrapped(container, canvas, surgery.codestream(head, renumbered))
        case Picks(sight, canvas, drop):
            head = surgery.main_header(header, canvas, drop, keep_sop=False)
            tiles = _fill(header, extract.recipe, extract.spans, parts)
            data = _wrapped(container, canvas, surgery.codestream(head, tiles))
        case _:
            raise TypeError("an extract of another layout")
    return Piece(data, "jp2", sight.crop, sight.reduce, sight.area)


def _wrapped(container: Container, canvas: Canvas, codestream: bytes) -> bytes:
    return container.wrap(codestream, Size(canvas.right - canvas.left, canvas.bottom - canvas.top))


def _fill(header: Header, picks: Picks, spans: Sequence[Span], parts: Sequence[bytes]) -> list[bytes]:
    """Tile-parts of the picked packets, without their SOP segments. Raises `Malformed`."""
    pool = b"".join(parts)
    code = np.frombuffer(pool, np.uint8)
    span_starts = np.array([span.start for span in spans], np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(span) for span in spans], dtype=np.int64)))
    empty = surgery.EMPTY + (surgery.EPH if header.uses_eph else b"")
    view = memoryview(pool)
    tiles: list[bytes] = []
    for number, (starts, lengths, places) in enumerate(zip(picks.starts, picks.lengths, picks.places, strict=True)):
        is_picked = starts >= 0
        start, stop = starts[is_picked], starts[is_picked] + lengths[is_picked]
        span = np.searchsorted(span_starts, start, side="right") - 1
        shift = offsets[span] - span_starts[span] if len(span) else span
        start, stop = start + shift, stop + shift
        if header.uses_sop:
            start = _past_sop(code, start, stop, places[is_picked])
        bodies = np.full((len(starts), 2), -1, np.int64)
        bodies[is_picked] = np.stack((start, stop), axis=1)
        tile = surgery.tile_part(number, (view[a:b] if a >= 0 else empty for a, b in bodies.tolist()))
        _check(tile, header, len(starts))
        tiles.append(tile)
    return tiles


def _past_sop(code: np.ndarray[tuple[int], np.dtype[np.uint8]], start: Ints, stop: Ints, places: Ints) -> Ints:
    """Where packets start after their SOP segment, which must bear the packet's number (A.8.1)."""
    has = stop - start > 6
    at = start[has]
    is_sop = (code[at] == 0xFF) & (code[at + 1] == 0x91) & (code[at + 2] == 0) & (code[at + 3] == 4)
    named = code[at + 4].astype(np.int64) << 8 | code[at + 5]
    if bool((is_sop & (named != places[has] & 0xFFFF)).any()):
        raise Malformed("a packet's SOP bears another number than PLT gives it")
    moved = start.copy()
    moved[has] += np.where(is_sop, 6, 0)
    return moved


def _check(tile: bytes, header: Header, packets: int) -> None:
    """No packet may begin or end in the middle of another: markers stand only where they were put (B.10.1, A.8)."""
    found = tile.count(surgery.EPH, 14)
    if header.uses_eph and found != packets:
        raise Malformed(f"{found} packet headers end in {packets} packets: PLT is wrong")
    if tile.count(b"\xff\x91", 14):
        raise Malformed("an SOP inside a packet: PLT is wrong")


def notes(header: Header, index: PartIndex, doubts: Sequence[str], *, has_palette: bool) -> tuple[str, ...]:
    """What made a dearer way necessary, and what would make it cheaper."""
    found: list[str] = []
    if header.refusal is not None:
        found.append(f"It has {header.refusal}: the whole object is read. Re-encode it without.")
    found += [f"{doubt}: the whole object is read. Re-encode it." for doubt in doubts]
    if index.refusal is not None:
        found.append(f"It has {index.refusal}: whole tiles are read. Re-encode it without.")
    elif any(index.bodies[rows[0]] and not index.counts[rows[0]] for rows in index.rows.values()):
        read = "whole tiles are" if header.canvas.columns * header.canvas.rows > 1 else "the whole object is"
        found.append(
            f"It has no packet lengths (PLT): {read} read. Re-encode it with them"
            " (Kakadu: ORGgen_plt=yes; opj_compress: -PLT; grk_compress: -L)."
        )
    if header.is_high_throughput:
        found.append("It is HTJ2K: a region is decoded at the full extent of its level.")
    if has_palette:
        found.append("It has a palette: it is always decoded at full resolution. Re-encode it in true colour.")
    return tuple(found)
