"""Reading an index as far as a plan needs it, in few round trips.

With TLM every tile-part's place is known, and the headers of those needed are read at once. Without, the chain
is walked from part to part, and no farther than the last packet that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from special.errors import Malformed
from special.formats.jp2 import extracts
from special.formats.jp2.header import Header
from special.formats.jp2.locate import Untrusted
from special.formats.jp2.planning import Plan
from special.formats.jp2.region import Bounds
from special.formats.jp2.tileparts import SOT_BYTES, PartIndex, read_part, walk_part
from special.formats.jp2.walking import is_walkable, walk_packets
from special.formats.jp2.window import CHUNK_BYTES, Reading, Window

MAX_TRIPS = 64
"""Round trips that one walk along the chain is worth; past them the whole object is cheaper."""
BATCH = 256
"""Tile-part headers that are read at once."""


@dataclass(frozen=True, slots=True)
class Grown:
    """A longer index."""

    index: PartIndex
    doubt: str | None = None
    """What was found to be untrue."""


def is_grown(header: Header, index: PartIndex, wanted: Plan) -> bool:
    """Whether there is nothing more to learn for this plan. Cheap."""
    for number, _ in wanted.tiles(header.canvas):
        if not index.is_complete(number) or not all(index.bodies[row] for row in index.rows.get(number, ())):
            return False
        if (index.lacks_lengths(number) or number in index.walked) and is_walkable(header, wanted):
            return False
    return True


def grow(window: Window, header: Header, index: PartIndex, wanted: Plan) -> Reading[Grown]:
    """An index that reaches what is wanted, or as far as `MAX_TRIPS` go. Raises `Malformed`.

    One round trip for each batch of known headers, one for each step along the chain.
    """
    index = index.copy()
    tiles = wanted.tiles(header.canvas)
    try:
        yield from _read_headers(window, index, tiles)
    except Malformed:
        if index.frontier is not None:
            raise
        index = PartIndex(index.first, index.first, index.stop)  # TLM lied: walk instead
    for number, bounds in tiles:
        try:
            yield from _grow_tile(window, header, index, wanted, number, bounds)
        except Untrusted as lie:
            return Grown(index, str(lie))
    return Grown(index)


def _grow_tile(
    window: Window, header: Header, index: PartIndex, wanted: Plan, number: int, bounds: Bounds
) -> Reading[None]:
    """As much of one tile's index as the plan needs. Raises `Untrusted` and `Malformed`."""
    is_untiled = header.canvas.columns * header.canvas.rows == 1
    while not index.is_complete(number) and not _reaches(header, index, wanted, number, bounds):
        # The parts of an only tile are of no use without packet lengths.
        if window.trips >= MAX_TRIPS or (is_untiled and index.lacks_lengths(number)):
            break
        yield from walk_part(window, index, header)
    is_unlisted = index.lacks_lengths(number) or number in index.walked
    if not _reaches(header, index, wanted, number, bounds) and is_unlisted and is_walkable(header, wanted):
        yield from walk_packets(window, header, index, bounds, wanted)


def _reaches(header: Header, index: PartIndex, wanted: Plan, number: int, bounds: Bounds) -> bool:
    """Whether all packets wanted of a tile are known. Without their lengths, never. Raises `Untrusted`."""
    if index.refusal is not None or not index.has_lengths(number):
        return False
    return extracts.reaches(header, index, wanted.view, number, bounds)


def _read_headers(window: Window, index: PartIndex, tiles: list[tuple[int, Bounds]]) -> Reading[None]:
    """Headers of the tile-parts whose places are known, in batches."""
    unread = [row for number, _ in tiles for row in index.rows.get(number, ()) if not index.bodies[row]]
    for first in range(0, len(unread), BATCH):
        batch = unread[first : first + BATCH]
        missing = [row for row in batch if not window.holds(index.starts[row], SOT_BYTES + 2)]
        if missing:
            heads = [(index.starts[row], min(CHUNK_BYTES, index.stops[row] - index.starts[row])) for row in missing]
            yield from window.fetch(heads)
        for row in batch:
            yield from read_part(window, index, row)
