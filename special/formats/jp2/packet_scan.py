"""Packet lengths out of the packets themselves, for a master that does not list them.

Where low resolutions come first in the file, its packet headers are read from the beginning, one after the other, as
far as the wanted resolution. What is found is certain, and becomes part of the index.
"""

from __future__ import annotations

import numpy as np

from special.errors import Malformed
from special.formats.jp2.main_header import Header
from special.formats.jp2.packet_headers import PacketCutShort, Precinct
from special.formats.jp2.packet_index import Untrusted
from special.formats.jp2.precincts import LRCP, RLCP, RPCL, Ints, TileGeometry, file_order, place
from special.formats.jp2.reader import FIRST_BYTES, CodestreamReader, Reading
from special.formats.jp2.tile_parts import PartIndex, read_next_part
from special.formats.jp2.tile_selection import Selection

MAX_BLOCKS = 20_000
"""Maximum number of code-blocks of one scan: each takes some microseconds."""


def is_scannable(header: Header, plan: Selection) -> bool:
    """Whether a scan is cheaper than the whole object: an untiled master, low resolutions first, and few of them."""
    is_ascending = header.progression in (RLCP, RPCL) or (header.progression == LRCP and header.layers == 1)
    if not is_ascending or header.is_high_throughput or header.canvas.columns * header.canvas.rows > 1:
        return False
    size = header.size(plan.view.reduction)
    if not plan.view.reduction or size is None:
        return False
    blocks = 0
    for coding, (dx, dy) in zip(header.codings, header.canvas.steps, strict=True):
        blocks += size.area // (dx * dy) >> sum(coding.code_block)
    return 2 * blocks * header.layers <= MAX_BLOCKS


def scan_packets(
    reader: CodestreamReader, header: Header, index: PartIndex, tile: TileGeometry, count: int, *, share: int
) -> Reading[None]:
    """Measure the first `count` packets of the only tile, and write their lengths into the index.

    Reads the tile from its start, in ever larger steps; the first is twice a part in 4**`share` of it.
    Raises `Untrusted` for what cannot be scanned, and `Malformed`.
    """
    order = file_order(header, tile)[:count]
    budget_bytes = max(FIRST_BYTES, (index.stop - index.first) >> 2 * share - 1)
    bodies: list[bytes] = []
    while True:
        yield from _read_bodies(reader, header, index, bodies, budget_bytes)
        rows = index.rows[0][: len(bodies)]
        whole = [len(body) == index.stops[row] - index.bodies[row] for row, body in zip(rows, bodies, strict=True)]
        try:
            lengths = measure(header, tile, order, bodies, whole)
        except PacketCutShort as short:
            if all(whole) and index.is_complete(0):
                raise Untrusted("its packets go on past the end of the file") from short
            budget_bytes *= 2
            continue
        except Malformed as fault:
            raise Untrusted(f"its packets cannot be scanned ({fault})") from fault
        for row, known in zip(rows, lengths, strict=False):
            index.set_lengths(row, np.array(known, np.int64))
        index.scanned.add(0)
        return


def _read_bodies(
    reader: CodestreamReader, header: Header, index: PartIndex, bodies: list[bytes], budget_bytes: int
) -> Reading[None]:
    """Lengthen `bodies`, the tile's parts from the first on, until they hold `budget_bytes` or all there is."""
    number = 0
    while (left := budget_bytes - sum(map(len, bodies[:number]))) > 0:
        while number >= len(index.rows.get(0, ())) and index.frontier is not None:
            yield from read_next_part(reader, index, header)
        if number >= len(index.rows.get(0, ())):
            return
        row = index.rows[0][number]
        start, length = index.bodies[row], min(left, index.stops[row] - index.bodies[row])
        if number == len(bodies):
            bodies.append(b"")
        have = len(bodies[number])
        if length > have:
            bodies[number] += yield from reader.take(start + have, length - have)
        number += 1


def measure(header: Header, tile: TileGeometry, order: Ints, bodies: list[bytes], whole: list[bool]) -> list[list[int]]:
    """Lengths of the packets with these numbers, part by part. Raises `PacketCutShort` and `Malformed`."""
    precincts: dict[int, Precinct] = {}
    lengths: list[list[int]] = [[]]
    at = 0
    for number in (order // header.layers).tolist():
        while whole[len(lengths) - 1] and at == len(bodies[len(lengths) - 1]):
            if len(lengths) == len(bodies):
                raise PacketCutShort
            lengths.append([])
            at = 0
        if number not in precincts:
            precincts[number] = Precinct(header, tile.bounds, *place(tile, number))
        body = bodies[len(lengths) - 1]
        stop = precincts[number].packet(body, at)
        if whole[len(lengths) - 1] and stop > len(body):
            raise Malformed("a packet crosses the end of its tile-part")
        lengths[-1].append(stop - at)
        at = stop
    return lengths
