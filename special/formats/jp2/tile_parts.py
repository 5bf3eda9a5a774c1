"""The offsets of the tile-parts, and the length of each of their packets.

A codestream's body is a chain of tile-parts: SOT names the tile and the length, PLT the lengths of
the packets. TLM in the main header gives all of them at once; without it, they are read one after the
other, and only as far as a plan needs them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from special.errors import Malformed
from special.formats.jp2.main_header import Header
from special.formats.jp2.markers import REFUSED, Marker, Segment, read_segments
from special.formats.jp2.reader import CHUNK_BYTES, CodestreamReader, Reading
from special.storage import Span

Ints = npt.NDArray[np.int64]

SOT_BYTES = 12
ROWS = ("tiles", "starts", "stops", "bodies", "firsts", "counts")
"""What an index holds of each tile-part."""
PACKETS = ("lengths", "pending")
"""What it holds of packets."""
SOT = b"\xff\x90\0\x0a"
"""The marker and the length that every SOT segment has."""
EOC = b"\xff\xd9"
EOC_BYTES = len(EOC)
MAX_PARTS = 1 << 17
"""Tile-parts that an index may hold: 65,535 tiles in two parts each."""
MAX_PACKETS = 1 << 19
"""Packet lengths that an index may hold: ten times those of a large master."""


class PartIndex:
    """Tile-parts in file order, as far as they are known.

    A row for each part: its tile, where it starts and stops, where its packets start (0: its header is
    unread), and which of `lengths` are its packets'. Extended while reading; a layout's own is never changed.
    """

    def __init__(self, first: int, frontier: int | None, stop: int) -> None:
        self.first = first
        """Where the first tile-part starts."""
        self.frontier = frontier
        """The first byte that is not known; None once the chain is complete."""
        self.stop = stop
        """The end of the codestream, EOC included."""
        self.tiles, self.starts, self.stops, self.bodies = (array("q") for _ in range(4))
        self.firsts, self.counts = array("q"), array("q")
        self.lengths = array("I")
        self.pending = array("I")
        """Packet lengths out of the main header (PLM) of parts that are not known yet."""
        self.scanned: set[int] = set()
        """Tiles whose first packets were measured by their own headers."""
        self.rows: dict[int, list[int]] = {}
        """The rows of each tile, in order."""
        self.declared: dict[int, int] = {}
        """How many parts a tile has, where its SOT says so."""
        self.refusal: str | None = None
        """What was found in a tile-part's header that makes picking packets unsafe."""

    def copy(self) -> PartIndex:
        """Another index with the same content."""
        other = PartIndex(self.first, self.frontier, self.stop)
        for name in (*ROWS, *PACKETS):
            setattr(other, name, getattr(self, name)[:])
        other.rows = {tile: rows[:] for tile, rows in self.rows.items()}
        other.declared = dict(self.declared)
        other.scanned = set(self.scanned)
        other.refusal = self.refusal
        return other

    def add(self, tile: int, start: int, stop: int) -> int:
        """A part whose header is unread; its row."""
        row = len(self.tiles)
        if row >= MAX_PARTS:
            raise Malformed(f"more than {MAX_PARTS} tile-parts")
        for column, value in zip(
            (self.tiles, self.starts, self.stops, self.bodies, self.firsts, self.counts),
            (tile, start, stop, 0, 0, 0),
            strict=True,
        ):
            column.append(value)
        self.rows.setdefault(tile, []).append(row)
        return row

    def set_lengths(self, row: int, lengths: Ints) -> None:
        """The lengths of a part's packets, as many as are known."""
        if len(self.lengths) + len(lengths) > MAX_PACKETS:
            self.refusal = f"more than {MAX_PACKETS} packets"
            lengths = lengths[:0]
        self.firsts[row] = len(self.lengths)
        self.counts[row] = len(lengths)
        self.lengths.frombytes(lengths.astype(np.uint32).tobytes())

    def lengths_of(self, row: int) -> Ints:
        """The lengths of a part's packets, as far as they are known."""
        count = self.counts[row]
        if not count:
            return np.zeros(0, np.int64)
        return np.frombuffer(self.lengths, np.uint32, count, offset=4 * self.firsts[row]).astype(np.int64)

    def is_complete(self, tile: int) -> bool:
        """Whether all parts of a tile are known: all of the file's, or as many as the tile has by its SOTs (TNsot).

        Encoders miscount, so parts that follow one another must also be followed by one of another tile.
        """
        rows = self.rows.get(tile, [])
        if self.frontier is None or len(rows) != self.declared.get(tile, -1):
            return self.frontier is None
        return rows[-1] - rows[0] == len(rows) - 1 and rows[-1] < len(self.tiles) - 1

    def lacks_lengths(self, tile: int) -> bool:
        """Whether the first part of a tile that holds packets does not list them."""
        for row in self.rows.get(tile, ()):
            if self.counts[row] or not self.bodies[row]:
                return False
            if self.bodies[row] < self.stops[row]:
                return True
        return False

    def has_lengths(self, tile: int) -> bool:
        """Whether packet lengths of a tile are known."""
        return any(self.counts[row] for row in self.rows.get(tile, ()))

    def spans(self, tile: int) -> list[Span]:
        """The tile's parts, headers and all."""
        return [Span(self.starts[row], self.stops[row]) for row in self.rows.get(tile, ())]


def known_parts(header: Header, segments: Sequence[Segment], first: int, stop: int) -> PartIndex:
    """The index that the main header gives: whole where TLM agrees with the file's length, else empty."""
    index = PartIndex(first, first, stop)
    index.pending.frombytes(_main_lengths(segments).astype(np.uint32).tobytes())
    entries = None if index.pending else _tlm(segments)  # PLM counts along the chain
    if entries is None:
        return index
    tiles, lengths = entries
    known = header.canvas.columns * header.canvas.rows
    if not 0 < len(tiles) <= MAX_PARTS or int(tiles.max()) >= known or int(lengths.min()) < SOT_BYTES + 2:
        return index
    stops = first + np.cumsum(lengths)
    if int(stops[-1]) not in (stop - EOC_BYTES, stop):
        return index
    for tile, start, end in zip(tiles.tolist(), (stops - lengths).tolist(), stops.tolist(), strict=True):
        index.add(tile, start, end)
    index.frontier = None
    return index


def _tlm(segments: Sequence[Segment]) -> tuple[Ints, Ints] | None:
    """Tiles and lengths of all tile-parts (A.7.1); None without TLM or where it makes no sense."""
    bodies = sorted((s.body for s in segments if s.marker == Marker.TLM), key=lambda body: body[:1])
    tiles: list[Ints] = []
    lengths: list[Ints] = []
    count = 0
    for body in bodies:
        if len(body) < 2:
            return None
        tile_bytes, length_bytes = body[1] >> 4 & 3, 4 if body[1] >> 6 & 1 else 2
        if tile_bytes == 3 or (len(body) - 2) % (tile_bytes + length_bytes):
            return None
        entry = np.dtype([("tile", f">u{tile_bytes}"), ("length", f">u{length_bytes}")][not tile_bytes :])
        table = np.frombuffer(body, entry, offset=2)
        # Without numbers, there is one part for each tile, in order.
        tiles.append(table["tile"].astype(np.int64) if tile_bytes else np.arange(count, count + len(table)))
        lengths.append(table["length"].astype(np.int64))
        count += len(table)
    return (np.concatenate(tiles), np.concatenate(lengths)) if count else None


def _main_lengths(segments: Sequence[Segment]) -> Ints:
    """Packet lengths in the main header (A.7.2), part by part in file order; none where they make no sense."""
    bodies = sorted((s.body for s in segments if s.marker == Marker.PLM and s.body), key=lambda body: body[0])
    data = b"".join(body[1:] for body in bodies)
    groups: list[bytes] = []
    at = 0
    while at < len(data):
        groups.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    try:
        lengths = decode_lengths(b"".join(groups))
    except Malformed:
        return np.zeros(0, np.int64)
    return lengths if at == len(data) and len(lengths) <= MAX_PACKETS else lengths[:0]


def read_next_part(
    reader: CodestreamReader, index: PartIndex, header: Header, *, readahead_bytes: int = CHUNK_BYTES
) -> Reading[None]:
    """Read the header of the next tile-part of the chain, with `readahead_bytes` of what follows.

    At most one round trip, unless the header is very long. Raises `Malformed`.
    """
    start = index.frontier
    assert start is not None, "a complete chain has no next part"
    sot = yield from reader.take(start, min(SOT_BYTES, index.stop - start), readahead_bytes=readahead_bytes)
    if sot.startswith(EOC):
        index.frontier = None
        return
    if sot[:4] != SOT or len(sot) < SOT_BYTES:
        raise Malformed(f"{sot[:4].hex()} at byte {start}, where a tile-part (SOT) belongs")
    tile, part_bytes = int.from_bytes(sot[4:6], "big"), int.from_bytes(sot[6:10], "big")
    stop = start + part_bytes
    if not part_bytes:  # A.4.2: the last one may leave its length out, and reaches to EOC
        tail = yield from reader.take(index.stop - EOC_BYTES, EOC_BYTES)
        stop = index.stop - EOC_BYTES * (tail == EOC)
    if stop < start + SOT_BYTES + 2 or stop > index.stop or tile >= header.canvas.columns * header.canvas.rows:
        raise Malformed(f"the tile-part at byte {start} claims tile {tile} and {part_bytes} bytes")
    row = index.add(tile, start, stop)
    yield from read_part(reader, index, row)
    _take_pending(index, row)
    # EOC is left unread where only it is left: it may be a round trip away.
    index.frontier = stop if stop < index.stop - EOC_BYTES else None


def _take_pending(index: PartIndex, row: int) -> None:
    """Give a part its lengths out of PLM: as many as add up to it. Where none do, PLM is not believed."""
    if not index.pending or index.counts[row]:
        return
    ends = np.cumsum(np.frombuffer(index.pending, np.uint32), dtype=np.int64)
    length = index.stops[row] - index.bodies[row]
    count = int(np.searchsorted(ends, length, side="right"))
    if length and (not count or int(ends[count - 1]) != length):
        index.pending = array("I")
        return
    index.set_lengths(row, np.frombuffer(index.pending, np.uint32, count).astype(np.int64))
    index.pending = index.pending[count:]


def read_part(reader: CodestreamReader, index: PartIndex, row: int) -> Reading[None]:
    """Read the header of a known tile-part: where its packets start, and PLT. Raises `Malformed`."""
    start, stop, tile = index.starts[row], index.stops[row], index.tiles[row]
    sot = yield from reader.take(start, SOT_BYTES)
    part_bytes = int.from_bytes(sot[6:10], "big")
    if sot[:4] != SOT or part_bytes not in (stop - start, 0) or int.from_bytes(sot[4:6], "big") != tile:
        raise Malformed(f"TLM names a tile-part of tile {tile} at byte {start}, where {sot.hex()} is")
    if sot[10] != index.rows[tile].index(row):
        raise Malformed(f"the tile-part at byte {start} is number {sot[10]} of tile {tile}, out of order")
    if sot[11]:
        index.declared[tile] = sot[11]
    segments, at = yield from read_segments(reader, start + SOT_BYTES, Marker.SOD, stop)
    lengths = packet_lengths(segments)
    index.bodies[row] = at + 2
    index.set_lengths(row, lengths)
    for segment in segments:
        if segment.marker not in (Marker.PLT, Marker.COM):
            name = REFUSED.get(Marker(segment.marker)) if segment.marker in set(Marker) else None
            index.refusal = name or f"a tile with parameters of its own (marker {segment.marker:04x})"


def packet_lengths(segments: Sequence[Segment]) -> Ints:
    """What the PLT segments of one tile-part say (A.7.3). Raises `Malformed`."""
    bodies = [segment.body for segment in segments if segment.marker == Marker.PLT and segment.body]
    numbers = [body[0] for body in bodies]
    # Numbers start again after 254 or 255; then the order in the file counts.
    in_order = all(b == a + 1 or (b == 0 and a >= 254) for a, b in pairwise(numbers))
    if not in_order:
        if len(set(numbers)) != len(numbers):
            raise Malformed("PLT marker segments that cannot be put in order")
        bodies.sort(key=lambda body: body[0])
    return decode_lengths(b"".join(body[1:] for body in bodies))


def decode_lengths(data: bytes) -> Ints:
    """Numbers of 7 bits a byte, the highest first; the last byte of each has its high bit clear (A.7.3)."""
    code = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(code < 0x80)
    if not len(code):
        return np.zeros(0, np.int64)
    if not len(last) or last[-1] != len(code) - 1:
        raise Malformed("PLT ends in the middle of a packet's length")
    width = np.diff(last, prepend=-1)
    if int(width.max()) > 5:
        raise Malformed("PLT names a packet longer than 4 GB")
    value = np.zeros(len(last), np.int64)
    for place in range(int(width.max())):
        has = width > place
        value[has] |= (code[last[has] - place] & 0x7F).astype(np.int64) << (7 * place)
    if int(value.max()) >= 1 << 32:
        raise Malformed("PLT names a packet longer than 4 GB")
    return value
