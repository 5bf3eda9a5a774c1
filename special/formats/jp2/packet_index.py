"""The offset of each packet of a tile in the file, or why it cannot be trusted.

Packet lengths come from the encoder. They are trusted where the lengths of a tile add up to its tile-parts and where
there are as many as the geometry has packets; otherwise the whole object is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from special.formats.jp2.main_header import Header
from special.formats.jp2.precincts import Ints, TileGeometry, file_order
from special.formats.jp2.tile_parts import MAX_PACKETS, PartIndex


class Untrusted(Exception):
    """Packet lengths that are missing or that contradict the file. The text becomes part of `advice`."""


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """Packets of one tile, by number (see `precincts`)."""

    starts: Ints
    """First byte in the file; -1 where it is not known yet."""
    lengths: Ints
    """In bytes."""


def index_packets(header: Header, index: PartIndex, number: int, tile: TileGeometry) -> Packets:
    """All packets of one tile whose lengths are known so far. Raises `Untrusted`.

    One sort and a few array operations over the tile's packets.
    """
    starts, lengths = in_file_order(header, index, number, tile)
    order = file_order(header, tile)[: len(starts)]
    count = tile.precincts * header.layers
    packets = Packets(np.full(count, -1, np.int64), np.zeros(count, np.int64))
    packets.starts[order] = starts
    packets.lengths[order] = lengths
    return packets


def packet_count(header: Header, number: int, tile: TileGeometry) -> int:
    """How many packets a tile has. Raises `Untrusted` where an index cannot hold that many."""
    count = tile.precincts * header.layers
    if count > MAX_PACKETS:
        raise Untrusted(f"tile {number} has {count} packets, more than {MAX_PACKETS}")
    return count


def in_file_order(header: Header, index: PartIndex, number: int, tile: TileGeometry) -> tuple[Ints, Ints]:
    """Starts and lengths of a tile's packets, as far as they are known, in file order. Raises `Untrusted`."""
    count = packet_count(header, number, tile)
    rows = [row for row in index.rows.get(number, ()) if index.bodies[row]]
    if number in index.scanned:
        return _measured(index, rows)
    is_complete = index.is_complete(number) and len(rows) == len(index.rows.get(number, ()))
    return _promised(index, rows, number, count, is_complete=is_complete)


def _measured(index: PartIndex, rows: list[int]) -> tuple[Ints, Ints]:
    """Starts and lengths of the first packets of a tile, in file order, from their own headers."""
    lengths = [index.lengths_of(row) for row in rows]
    starts = [index.bodies[row] + np.cumsum(known) - known for row, known in zip(rows, lengths, strict=True)]
    return np.concatenate(starts), np.concatenate(lengths)


def _promised(index: PartIndex, rows: list[int], number: int, count: int, *, is_complete: bool) -> tuple[Ints, Ints]:
    """Starts and lengths of the first packets of a tile, in file order, from PLT. Raises `Untrusted`."""
    known = np.concatenate([np.zeros(0, np.int64), *(index.lengths_of(row) for row in rows)])
    if not len(known) and count:
        raise Untrusted("packet lengths (PLT) are missing")
    if len(known) > count or (is_complete and len(known) != count):
        raise Untrusted(f"PLT names {len(known)} packets of tile {number}, which has {count}")
    if not known.all():
        raise Untrusted(f"PLT names a packet without bytes in tile {number}")
    # Lengths of all parts, one after the other, over the bodies of all parts, one after the other: some
    # encoders put every PLT of a tile into its first part.
    ends = np.cumsum(known)
    bodies = np.array([index.bodies[row] for row in rows], np.int64)
    edges = np.cumsum(np.array([index.stops[row] for row in rows], np.int64) - bodies)
    total = int(edges[-1]) if len(edges) else 0
    promised = int(ends[-1]) if len(ends) else 0
    if (is_complete and promised != total) or (not is_complete and promised < total):
        raise Untrusted(f"PLT adds up to {promised} bytes in tile {number}, which has {total}")
    if not np.isin(edges[edges > 0], ends).all():
        raise Untrusted(f"a packet of tile {number} would cross the end of a tile-part")
    reached = int(np.searchsorted(ends, total, side="right"))
    ends, known = ends[:reached], known[:reached]
    part = np.searchsorted(edges, ends, side="left")
    return ends - known - np.concatenate(([0], edges))[part] + bodies[part], known
