"""Packet headers (B.10): what tells how long a packet is where nothing else does.

A header says which code-blocks of a precinct the packet adds to, and by how many bytes. It is coded in bits, with
tag trees, against what the precinct's earlier packets said, so packets of a precinct are read in order of layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from special.errors import Malformed
from special.formats.jp2.main_header import Header
from special.formats.jp2.precincts import PrecinctGrid
from special.geometry import ceil_div

BYPASS, TERMINATE = 1, 4
"""Code-block styles that cut a code-block's bytes into several segments (table A.19)."""
HIGH_THROUGHPUT = 0x40
MAX_ZERO_PLANES = 80
"""More leading zero bit planes than any precision has."""


class PacketCutShort(Exception):
    """The packet goes on past the bytes that were read."""


class Bits:
    """The bits of packet headers: after a byte of 255 comes a bit of 0 that is left out (B.10.1)."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self._byte = 0
        self._left = 0

    def read(self, count: int) -> int:
        """`count` bits as a number, the highest first. Raises `PacketCutShort`."""
        value = 0
        while count:
            if not self._left:
                if self.at >= len(self.data):
                    raise PacketCutShort
                self._left = 7 if self._byte == 0xFF else 8
                self._byte = self.data[self.at]
                self.at += 1
            taken = min(count, self._left)
            self._left -= taken
            value = value << taken | self._byte >> self._left & (1 << taken) - 1
            count -= taken
        return value

    def finish(self) -> int:
        """Where the header ends: at the next byte, or past the one that a last 255 draws after it."""
        if self._byte == 0xFF:
            self.at += 1
        return self.at


class TagTree:
    """A tag tree (B.10.2): a number for each leaf, coded as the least number of ever larger squares."""

    def __init__(self, width: int, height: int) -> None:
        self._widths: list[int] = []
        self._low: list[list[int]] = []
        self._known: list[list[bool]] = []
        while True:
            self._widths.append(width)
            self._low.append([0] * (width * height))
            self._known.append([False] * (width * height))
            if width * height <= 1:
                break
            width, height = (width + 1) // 2, (height + 1) // 2

    def is_below(self, bits: Bits, x: int, y: int, threshold: int) -> bool:
        """Whether the leaf's number is less than `threshold`; reads no more bits than this needs."""
        low = 0
        for level in range(len(self._widths) - 1, -1, -1):
            at = (y >> level) * self._widths[level] + (x >> level)
            values, known = self._low[level], self._known[level]
            low = max(low, values[at])
            while low < threshold and not known[at]:
                if bits.read(1):
                    known[at] = True
                else:
                    low += 1
            values[at] = low
        return low < threshold


@dataclass(slots=True)
class Block:
    """What earlier packets said of one code-block."""

    length_bits: int = 3
    """Lblock (B.10.7.1)."""
    passes: int = 0
    """Coding passes so far."""


@dataclass(slots=True)
class Band:
    """The code-blocks of one subband in one precinct."""

    width: int
    height: int
    inclusion: TagTree
    zero_planes: TagTree
    blocks: dict[int, Block] = field(default_factory=dict)


class Precinct:
    """One precinct, and all that its packets have said so far."""

    def __init__(
        self, header: Header, tile: tuple[int, int, int, int], grid: PrecinctGrid, column: int, row: int
    ) -> None:
        self._style = header.codings[grid.component].style
        self._uses_eph = header.uses_eph
        self._bands = list(_bands(header, tile, grid, column, row))
        self._layer = 0

    def packet(self, data: bytes, at: int) -> int:
        """Where the next packet ends that starts at `at`. Raises `PacketCutShort`, `Malformed`."""
        if data.startswith(b"\xff\x91\0\x04", at):
            at += 6
        bits = Bits(data, at)
        length = 0
        if bits.read(1):
            for band in self._bands:
                for number in range(band.width * band.height):
                    length += self._contribution(bits, band, number)
        at = bits.finish()
        if self._uses_eph:
            if len(data) < at + 2:
                raise PacketCutShort
            if not data.startswith(b"\xff\x92", at):
                raise Malformed("a packet header without the EPH marker that the file promises")
            at += 2
        self._layer += 1
        return at + length

    def _contribution(self, bits: Bits, band: Band, number: int) -> int:
        """Bytes that a packet adds to one code-block (B.10.4 to B.10.7)."""
        block = band.blocks.get(number)
        y, x = divmod(number, band.width)
        if block is None:
            if not band.inclusion.is_below(bits, x, y, self._layer + 1):
                return 0
            planes = 1
            while not band.zero_planes.is_below(bits, x, y, planes):
                planes += 1
                if planes > MAX_ZERO_PLANES:
                    raise Malformed("a code-block with more empty bit planes than a sample has bits")
            block = band.blocks[number] = Block()
        elif not bits.read(1):
            return 0
        passes = _passes(bits)
        while bits.read(1):
            block.length_bits += 1
            if block.length_bits > 40:
                raise Malformed("a code-block that claims a length of more than 40 bits")
        total = 0
        for count in _segments(self._style, block.passes, passes):
            total += bits.read(block.length_bits + count.bit_length() - 1)
        block.passes += passes
        return total


def _passes(bits: Bits) -> int:
    """The number of new coding passes (table B.4)."""
    if not bits.read(1):
        return 1
    if not bits.read(1):
        return 2
    few = bits.read(2)
    if few < 3:
        return 3 + few
    more = bits.read(5)
    return 6 + more if more < 31 else 37 + bits.read(7)


def _segments(style: int, before: int, passes: int) -> list[int]:
    """How many passes each new codeword segment has (B.10.7.2, D.4.2, D.6; of HTJ2K, T.814 B.3)."""
    if style & HIGH_THROUGHPUT:  # the cleanup pass by itself, then all refinement
        first = [1] if not before else []
        return first + ([passes - len(first)] if passes > len(first) else [])
    if style & TERMINATE:
        return [1] * passes
    if not style & BYPASS:
        return [passes]
    counts: list[int] = []
    at, end = before, before + passes
    while at < end:
        # The first ten passes are one segment; then alternately two raw ones and a coded one.
        stop = 10 if at < 10 else at + (2 - (at - 10) % 3 if (at - 10) % 3 < 2 else 1)
        counts.append(min(stop, end) - at)
        at += counts[-1]
    return counts


def _bands(header: Header, tile: tuple[int, int, int, int], grid: PrecinctGrid, column: int, row: int) -> list[Band]:
    """The subbands of a precinct, each with its code-blocks (B.7, equation B-15)."""
    coding, (dx, dy) = header.codings[grid.component], header.canvas.steps[grid.component]
    across, down = coding.precincts[grid.resolution]
    halved = 1 if grid.resolution else 0
    level = coding.levels - grid.resolution + halved
    wide, high = min(coding.code_block[0], across - halved), min(coding.code_block[1], down - halved)
    bands: list[Band] = []
    for x_high, y_high in ((1, 0), (0, 1), (1, 1)) if halved else ((0, 0),):
        width = _blocks((tile[0], tile[2]), dx, level, x_high, column, across - halved, wide)
        height = _blocks((tile[1], tile[3]), dy, level, y_high, row, down - halved, high)
        if width and height:
            bands.append(Band(width, height, TagTree(width, height), TagTree(width, height)))
    return bands


def _blocks(tile: tuple[int, int], step: int, level: int, high: int, precinct: int, side: int, block: int) -> int:
    """Code-blocks along one axis of a precinct in one subband; 0 where it has no samples.

    `side` and `block` are log2 of the precinct's and the code-block's, in samples of the subband.
    """
    offset = high << level - 1 if high else 0
    first, last = (ceil_div(ceil_div(edge, step) - offset, 1 << level) for edge in tile)
    start, stop = max(first, precinct << side), min(last, (precinct + 1) << side)
    return ceil_div(stop, 1 << block) - (start >> block) if start < stop else 0
