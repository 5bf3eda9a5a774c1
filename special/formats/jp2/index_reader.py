"""The index of tile-parts and packets, read as far as a plan needs it, in few round trips.

With TLM every tile-part's offset is known, and the headers of those needed are read at once. Without it, tile-parts
are read one after the other, as far as the last packet that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from special.errors import Malformed
from special.formats.jp2.main_header import Header
from special.formats.jp2.packet_index import Untrusted, in_file_order, packet_count
from special.formats.jp2.packet_scan import is_scannable, scan_packets
from special.formats.jp2.precinct_selection import Bounds, reach
from special.formats.jp2.precincts import RLCP, RPCL, TileGeometry, file_order, place, tile_of
from special.formats.jp2.reader import CHUNK_BYTES, CodestreamReader, Reading
from special.formats.jp2.tile_parts import SOT_BYTES, PartIndex, read_next_part, read_part
from special.formats.jp2.tile_selection import Selection

MAX_TRIPS = 64
"""Maximum number of round trips of one plan; with more, reading the whole object is cheaper."""
MAX_STEPS = 8192
"""Maximum number of tile-parts that one plan reads."""
MIN_LEVEL_RATIO = 2.2
"""A resolution has at least this many times the bytes of the one below it."""
MAX_READAHEAD_BYTES = 4 << 20
"""The most that is read to save round trips if it may not be needed."""
BATCH = 256
"""Tile-part headers that are read at once."""


@dataclass(frozen=True, slots=True)
class ExtendedIndex:
    """An index that reaches further."""

    index: PartIndex
    doubt: str | None = None
    """What was found to be wrong."""


def is_sufficient(header: Header, index: PartIndex, wanted: Selection) -> bool:
    """Whether the index holds all that this plan needs. Cheap."""
    for number, _ in wanted.tiles(header.canvas):
        if not index.is_complete(number) or not all(index.bodies[row] for row in index.rows.get(number, ())):
            return False
        if (index.lacks_lengths(number) or number in index.scanned) and is_scannable(header, wanted):
            return False
    return True


def inconsistency(header: Header, index: PartIndex) -> str | None:
    """What is wrong with the packet lengths of the tiles that are known in full; None where nothing is."""
    canvas = header.canvas
    for number in index.rows:
        if index.has_lengths(number) and index.is_complete(number) and index.refusal is None:
            try:
                in_file_order(
                    header, index, number, tile_of(header, canvas.tile(*divmod(number, canvas.columns)[::-1]))
                )
            except Untrusted as found:
                return str(found)
    return None


def extend_index(
    reader: CodestreamReader, header: Header, index: PartIndex, wanted: Selection
) -> Reading[ExtendedIndex]:
    """An index that reaches what is wanted, or as far as `MAX_TRIPS` go. Raises `Malformed`.

    One round trip for each batch of known headers, one for each step to the next tile-part.
    """
    index = index.copy()
    tiles = wanted.tiles(header.canvas)
    try:
        yield from _read_headers(reader, index, tiles)
    except Malformed:
        if index.frontier is not None:
            raise
        index = PartIndex(index.first, index.first, index.stop)  # TLM is wrong: follow the tile-parts instead
    most = len(index.tiles) + MAX_STEPS
    for number, bounds in tiles:
        try:
            yield from _extend_tile(reader, header, index, wanted, number, tile_of(header, bounds), most)
        except Untrusted as found:
            return ExtendedIndex(index, str(found))
    return ExtendedIndex(index)


def _extend_tile(
    reader: CodestreamReader,
    header: Header,
    index: PartIndex,
    wanted: Selection,
    number: int,
    tile: TileGeometry,
    most: int,
) -> Reading[None]:
    """As much of one tile's index as the plan needs, of at most `most` parts. Raises `Untrusted` and `Malformed`."""
    if index.is_complete(number) and not index.has_lengths(number) and not is_scannable(header, wanted):
        return
    packet_count(header, number, tile)
    count = reach(header, tile, wanted.view)
    is_untiled = header.canvas.columns * header.canvas.rows == 1
    while not index.is_complete(number) and not _reaches(header, index, number, tile, count):
        # The parts of an only tile are of no use where they list no packet lengths.
        is_idle = is_untiled and (index.lacks_lengths(number) or number in index.scanned)
        if is_idle or reader.trips >= MAX_TRIPS or len(index.tiles) >= most:
            break
        yield from read_next_part(reader, index, header, readahead_bytes=_readahead_bytes(header, index, wanted, tile))
    is_unlisted = index.lacks_lengths(number) or number in index.scanned
    if not _reaches(header, index, number, tile, count) and is_unlisted and is_scannable(header, wanted):
        yield from scan_packets(reader, header, index, tile, count, share=wanted.view.reduction)


def _readahead_bytes(header: Header, index: PartIndex, wanted: Selection, tile: TileGeometry) -> int:
    """How much to read along with the next tile-part's header, where low resolutions come first in the file.

    The whole picture needs all bytes between here and its own resolution, so those bytes are not lost, and
    they may hold the next headers. A region is worth some bytes too, to save all but its last two round trips.
    """
    assert index.frontier is not None, "a complete chain has no next part"
    is_ascending = header.progression in (RLCP, RPCL) and header.canvas.columns * header.canvas.rows == 1
    if not is_ascending or index.refusal is not None or not index.lengths:
        return CHUNK_BYTES
    last = int(file_order(header, tile)[len(index.lengths) - 1]) // header.layers
    unknown = header.max_reduction - place(tile, last)[0].resolution
    missing = unknown - wanted.view.reduction
    known_bytes = index.frontier - index.first
    if wanted.view.is_whole:
        return max(CHUNK_BYTES, int(known_bytes * (MIN_LEVEL_RATIO**missing - 1)) if missing > 1 else 0)
    if missing <= 2:
        return CHUNK_BYTES
    # What the file has in all tells about how fast its resolutions grow.
    ratio = max(MIN_LEVEL_RATIO, ((index.stop - index.first) / known_bytes) ** (1 / unknown))
    return max(CHUNK_BYTES, min(int(known_bytes * (ratio ** (missing - 2) - 1)), MAX_READAHEAD_BYTES))


def _reaches(header: Header, index: PartIndex, number: int, tile: TileGeometry, count: int) -> bool:
    """Whether the places of the first `count` packets are known. Raises `Untrusted`."""
    listed = sum(index.counts[row] for row in index.rows.get(number, ()))
    if index.refusal is not None or not listed or listed < count:
        return False
    return len(in_file_order(header, index, number, tile)[0]) >= count


def _read_headers(reader: CodestreamReader, index: PartIndex, tiles: list[tuple[int, Bounds]]) -> Reading[None]:
    """Headers of the tile-parts whose places are known, in batches."""
    unread = [row for number, _ in tiles for row in index.rows.get(number, ()) if not index.bodies[row]]
    for first in range(0, len(unread), BATCH):
        batch = unread[first : first + BATCH]
        missing = [row for row in batch if not reader.holds(index.starts[row], SOT_BYTES + 2)]
        if missing:
            heads = [(index.starts[row], min(CHUNK_BYTES, index.stops[row] - index.starts[row])) for row in missing]
            yield from reader.fetch(heads)
        for row in batch:
            yield from read_part(reader, index, row)
