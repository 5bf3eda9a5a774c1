"""What is asked of a JPEG 2000 file before OpenJPEG sees it.

OpenJPEG fills missing tiles with black, takes a file that stops between two tile-parts for
whole, and makes wrong pixels of a region of HTJ2K. None of that may reach a reader. The format
rooms plan from ranges of a file; here all of its bytes are at hand.

Sections are those of ITU-T T.800 (11/2015).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from special.errors import Malformed
from special.geometry import Box, ceil_div

SOC, SIZ, COD, SOT, EOC = b"\xff\x4f", b"\xff\x51", b"\xff\x52", b"\xff\x90", b"\xff\xd9"
SIZ_BYTES, SOT_BYTES = 38, 12
CAPABILITIES = 1 << 14  # of Rsiz: a CAP marker follows, as in every HTJ2K file (T.814 A.2)


@dataclass(frozen=True, slots=True)
class Head:
    """What decides how a file is decoded."""

    boxed: bool
    """Whether it is a JP2 file; else a raw codestream."""
    palette: bool
    """Whether its samples are indices of a palette."""
    bounds: Box
    """Where the image lies on the reference grid."""
    rsiz: int
    """The capabilities that decoding needs."""
    mixed: bool
    """Whether the first three components were mixed to be coded; decoding parts them again (A.6.1, annex G)."""

    @property
    def divisible(self) -> bool:
        """Whether OpenJPEG decodes a region as it decodes the whole: not where there are capabilities (2.5.4)."""
        return not self.rsiz & CAPABILITIES


def read_head(data: bytes) -> Head:
    """Look over a whole file: boxes, image size, and that every tile-part is there.

    Raises `Malformed`. Costs about a microsecond for each tile-part, no copies.
    """
    boxed, palette, stream = data[4:8] == b"jP  ", False, range(len(data))
    if boxed:
        for kind, content in _boxes(data, stream):
            if kind == b"jp2h":
                palette = any(child == b"pclr" for child, _ in _boxes(data, content))
            if kind == b"jp2c":
                stream = content
                break
        else:
            raise Malformed("the JP2 file holds no codestream")
    if not data.startswith(SOC + SIZ, stream.start) or len(stream) < len(SOC + SIZ) + SIZ_BYTES:
        raise Malformed("not JPEG 2000: there is no codestream that starts with the markers SOC and SIZ")
    rsiz, x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y = struct.unpack_from(
        ">H8I", data, stream.start + len(SOC + SIZ) + 2
    )
    if x0 >= x1 or y0 >= y1 or not tile_width or not tile_height:
        raise Malformed(f"the image is empty: from {x0},{y0} to {x1},{y1} in tiles of {tile_width},{tile_height}")
    tiles = ceil_div(x1 - tile_x, tile_width) * ceil_div(y1 - tile_y, tile_height)
    mixed, first = _main_header(data, stream)
    _check_tile_parts(data, range(first, stream.stop), tiles)
    return Head(boxed, palette, Box.between(x0, y0, x1, y1), rsiz, mixed)


def _boxes(data: bytes, within: range) -> Iterator[tuple[bytes, range]]:
    """Kind and content of each box of a file or of a superbox (I.4)."""
    start = within.start
    while start + 8 <= within.stop:
        length, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if length == 1 and start + 16 <= within.stop:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        stop = start + length if length else within.stop
        if not start + header <= stop <= within.stop:
            raise Malformed(f"the box {kind!r} at byte {start} claims {length} bytes; the file is broken or truncated")
        yield kind, range(start + header, stop)
        start = stop


def _main_header(data: bytes, stream: range) -> tuple[bool, int]:
    """Whether COD asks for a component transform (table A.14), and where the first tile-part starts."""
    at, mixed = stream.start + len(SOC), False
    while (marker := data[at : at + 2]) != SOT:
        if at + 4 > stream.stop or data[at] != 0xFF:
            raise Malformed(f"the codestream's main header is broken or truncated at byte {at}")
        if marker == COD:
            mixed = data[at + 8 : at + 9] == b"\1"  # after Lcod, Scod, the progression and the number of layers
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return mixed, at


def _check_tile_parts(data: bytes, stream: range, tiles: int) -> None:
    """Follow the tile-parts to the end: all that are announced are there, then EOC (A.4.2, A.4.4)."""
    at = stream.start
    seen: dict[int, int] = {}
    announced: dict[int, int] = {}
    while data[at : at + 2] == SOT and at + SOT_BYTES <= stream.stop:
        tile, length, _, parts = struct.unpack_from(">HIBB", data, at + 4)
        seen[tile] = seen.get(tile, 0) + 1
        announced[tile] = max(parts, announced.get(tile, 1))
        # a length of 0: up to the end of the codestream
        at = at + max(length, SOT_BYTES) if length else data.rfind(EOC, at, stream.stop)
    if data[at : min(at + 2, stream.stop)] != EOC:
        raise Malformed("the codestream is truncated: its tile-parts do not end with the marker EOC")
    if len(seen) != tiles or any(seen[tile] < announced[tile] for tile in seen):
        raise Malformed(f"the codestream misses tile-parts: {sum(seen.values())} of {len(seen)} of {tiles} tiles")
