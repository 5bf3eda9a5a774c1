"""From the bytes of an extract to a piece: a whole file that a stock decoder takes.

Packets are checked on the way: lengths that put a boundary inside a packet are found here at the latest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from special.errors import Malformed
from special.formats.jp2 import codestream_writer
from special.formats.jp2.boxes import Container
from special.formats.jp2.extract import PickedPackets, WholeObject, WholeTiles
from special.formats.jp2.main_header import Canvas, Header
from special.formats.jp2.packet_headers import PacketCutShort, Precinct
from special.formats.jp2.precincts import Ints, TileGeometry, place
from special.formats.jp2.tile_parts import EOC, SOT
from special.formats.layout import Extract, Piece
from special.geometry import Size
from special.storage import Span


def rebuild(container: Container, header: Header, extract: Extract, parts: Sequence[bytes]) -> Piece:
    """The piece of an extract. Copies what was read three times at most. Raises `Malformed`."""
    if [len(part) for part in parts] != [len(span) for span in extract.spans]:
        raise Malformed("parts of other lengths than the spans that were asked for")
    incomplete = ""
    match extract.recipe:
        case WholeObject(window):
            data = bytes(parts[0])
            if data[container.codestream.stop - len(EOC) : container.codestream.stop] != EOC:
                incomplete = "the codestream has no end (EOC)"
        case WholeTiles(window, canvas, numbers):
            head = codestream_writer.main_header(header, canvas, 0, keep_sop=True)
            for part in parts:
                if part[:4] != SOT:
                    raise Malformed(f"{bytes(part[:4]).hex()} where a tile-part (SOT) was promised")
            renumbered = [
                codestream_writer.renumbered(part, number) for part, number in zip(parts, numbers, strict=True)
            ]
            data = _wrapped(container, canvas, codestream_writer.codestream(head, renumbered))
        case PickedPackets(window, canvas, drop):
            head = codestream_writer.main_header(header, canvas, drop, keep_sop=False)
            tiles = _fill(header, extract.recipe, extract.spans, parts)
            data = _wrapped(container, canvas, codestream_writer.codestream(head, tiles))
        case _:
            raise TypeError("an extract of another layout")
    return Piece(
        data, "jp2", window.crop, window.reduce, window.area, orientation=container.orientation, incomplete=incomplete
    )


def _wrapped(container: Container, canvas: Canvas, codestream: bytes) -> bytes:
    return container.wrap(codestream, Size(canvas.right - canvas.left, canvas.bottom - canvas.top))


def _fill(header: Header, picks: PickedPackets, spans: Sequence[Span], parts: Sequence[bytes]) -> list[bytes]:
    """Tile-parts of the picked packets, without their SOP segments. Raises `Malformed`."""
    pool = b"".join(parts)
    span_starts = np.array([span.start for span in spans], np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(span) for span in spans], dtype=np.int64)))
    empty = codestream_writer.EMPTY + (codestream_writer.EPH if header.uses_eph else b"")
    view = memoryview(pool)
    tiles: list[bytes] = []
    for number, (starts, lengths) in enumerate(zip(picks.starts, picks.lengths, strict=True)):
        picked = np.flatnonzero(starts >= 0)
        span = np.searchsorted(span_starts, starts[picked], side="right") - 1
        start = starts[picked] + (offsets[span] - span_starts[span] if len(picked) else span)
        stop = start + lengths[picked]
        begins, ends = _edges(picked, start, stop)
        if header.uses_sop and len(picked):
            start = _past_sop(np.frombuffer(pool, np.uint8), start, stop)
        edges = np.flatnonzero(ends if header.uses_sop else begins | ends)  # an SOP shows where a packet begins
        _try_packets(header, picks.tiles[number], picks.numbers[number][picked], edges, pool, start, stop)
        bodies = np.full((len(starts), 2), -1, np.int64)  # packets, (start, stop)
        bodies[picked, 0], bodies[picked, 1] = start, stop
        tile = codestream_writer.tile_part(number, (view[a:b] if a >= 0 else empty for a, b in bodies.tolist()))
        _check(tile, header, len(starts))
        tiles.append(tile)
    return tiles


def _edges(picked: Ints, start: Ints, stop: Ints) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which packets begin, and which end, a run of packets that stay together: booleans, (packets,).

    Inside a run it does not matter where one packet ends and the next begins.
    """
    is_joined = (np.diff(picked) == 1) & (start[1:] == stop[:-1])
    begins, ends = np.ones(len(picked), bool), np.ones(len(picked), bool)
    begins[1:] = ends[:-1] = ~is_joined
    return begins, ends


def _try_packets(
    header: Header, tile: TileGeometry, numbers: Ints, edges: Ints, pool: bytes, start: Ints, stop: Ints
) -> None:
    """Read the packet headers of the precincts at the edges: do their packets end where PLT says? Raises `Malformed`.

    Costs some microseconds for each code-block of those precincts.
    """
    for precinct in dict.fromkeys((numbers[edges] // header.layers).tolist()):
        packets = np.flatnonzero(numbers // header.layers == precinct)
        state = Precinct(header, tile.bounds, *place(tile, precinct))
        for packet in packets[np.argsort(numbers[packets])].tolist():
            try:
                end = state.packet(pool, int(start[packet]))
            except PacketCutShort:
                end = -1
            if end != stop[packet]:
                raise Malformed(f"PLT is wrong: a packet of {stop[packet] - start[packet]} bytes is not that long")


def _past_sop(code: npt.NDArray[np.uint8], start: Ints, stop: Ints) -> Ints:
    """Where packets start after their SOP segment (A.8.1): before every packet there is one, or before none.

    Their numbers are ignored: Grok counts wrongly across tile-parts.
    """
    at = np.minimum(start, stop - 4)
    is_sop = (
        (code[at] == 0xFF) & (code[at + 1] == 0x91) & (code[at + 2] == 0) & (code[at + 3] == 4) & (stop - start > 6)
    )
    if not is_sop.any():
        return start
    if not is_sop.all():
        raise Malformed("some packets begin with an SOP segment, others do not: PLT is wrong")
    return start + 6


def _check(tile: bytes, header: Header, packets: int) -> None:
    """No packet may begin or end in the middle of another: markers are only where they were put (B.10.1, A.8)."""
    found = tile.count(codestream_writer.EPH, 14)
    if header.uses_eph and found != packets:
        raise Malformed(f"{found} packet headers end in {packets} packets: PLT is wrong")
    if tile.count(b"\xff\x91", 14):
        raise Malformed("an SOP inside a packet: PLT is wrong")
