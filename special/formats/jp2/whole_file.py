"""A JPEG 2000 file that is in memory as a whole: what a decoder must know, and that nothing of it is missing.

OpenJPEG fills missing tiles with black, takes a file that stops between two tile-parts for whole, and makes wrong
pixels of a region of HTJ2K. None of that may reach a client.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from special.errors import Malformed
from special.formats.jp2.boxes import RAW, SIGNATURE, read_container
from special.formats.jp2.colours import Colours
from special.formats.jp2.main_header import Canvas, read_canvas
from special.formats.jp2.markers import Marker, read_segments
from special.formats.jp2.reader import CodestreamReader, Reading
from special.formats.jp2.tile_parts import EOC, SOT, SOT_BYTES
from special.formats.parser import solve
from special.geometry import Box

CAPABILITIES = 1 << 14
"""The bit of Rsiz that announces a CAP marker, as in every HTJ2K file (T.814 A.2)."""


@dataclass(frozen=True, slots=True)
class WholeFile:
    """What decides how a file is decoded."""

    boxed: bool
    """Whether it is a JP2 file; else a raw codestream."""
    palette: bool
    """Whether its samples are indices of a palette."""
    colours: Colours
    """What its header says of colours."""
    defines_opacity: bool
    """Whether its header names an opacity channel."""
    bounds: Box
    """Where the image is on the reference grid."""
    divisible: bool
    """Whether OpenJPEG decodes a region as it decodes the whole: not where there are capabilities (2.5.4)."""
    mixed: bool
    """Whether the first three components were mixed to be coded; decoding parts them again (A.6.1, annex G)."""
    counts: tuple[tuple[int, int], ...]
    """Where a tile's number of parts (TNsot) is too low in the file, by which OpenJPEG stops, and the right one."""

    end_at: int | None
    """Where the marker EOC is missing behind the last tile-part; None where it is there."""

    def corrected(self, data: bytes) -> bytes:
        """The file with right numbers of tile-parts, and with an end. One copy where anything was wrong."""
        if not self.counts and self.end_at is None:
            return data
        copy = bytearray(data)
        for at, count in self.counts:
            copy[at] = count
        if self.end_at is not None:
            copy[self.end_at : self.end_at] = EOC
        return bytes(copy)


def read_whole(data: bytes) -> WholeFile:
    """Check a whole file: boxes, main header, and that every tile-part is there.

    Raises `Malformed`, `Unsupported`. Costs some 50 µs and a microsecond for each tile-part; copies the headers alone.
    """
    if not data.startswith((RAW, SIGNATURE)):
        raise Malformed("not JPEG 2000: the file starts with neither a codestream nor a JP2 signature box")
    return solve(_read(CodestreamReader.of(data), data), data)


def _read(reader: CodestreamReader, data: bytes) -> Reading[WholeFile]:
    container = yield from read_container(reader)
    start, stop = container.codestream.start, container.codestream.stop
    if not data.startswith(RAW, start):
        raise Malformed("not JPEG 2000: there is no codestream that starts with the markers SOC and SIZ")
    segments, first = yield from read_segments(reader, start + 2, Marker.SOT, stop)
    siz = segments[0].body
    cod = next((segment.body for segment in segments if segment.marker == Marker.COD), b"")
    canvas = read_canvas(siz)
    counts, end_at = _check_tile_parts(data, range(first, stop), canvas)
    return WholeFile(
        boxed=bool(container.header),
        palette=bool(container.palette_channels),
        colours=container.colours,
        defines_opacity=container.defines_opacity,
        bounds=Box.between(canvas.left, canvas.top, canvas.right, canvas.bottom),
        divisible=not int.from_bytes(siz[:2], "big") & CAPABILITIES,
        mixed=cod[4:5] == b"\1",  # after Scod, the progression and the number of layers (table A.14)
        counts=counts,
        end_at=end_at,
    )


def _check_tile_parts(data: bytes, stream: range, canvas: Canvas) -> tuple[tuple[tuple[int, int], ...], int | None]:
    """Follow the tile-parts to the end: all that are announced are there, then EOC (A.4.2, A.4.4).

    Where there are more than announced, the places where that is said, and their number; and where EOC is missing.
    """
    at = stream.start
    seen: dict[int, int] = {}
    announced: dict[int, int] = {}
    said: list[tuple[int, int, int]] = []  # place, tile, number
    while data[at : at + 2] == SOT[:2] and at + SOT_BYTES <= stream.stop:
        tile, length, _, parts = struct.unpack_from(">HIBB", data, at + 4)
        seen[tile] = seen.get(tile, 0) + 1
        said.append((at + SOT_BYTES - 1, tile, parts))
        announced[tile] = max(parts, announced.get(tile, 1))
        # a length of 0: up to the end of the codestream
        end = data.rfind(EOC, at, stream.stop)
        at = at + max(length, SOT_BYTES) if length else end if end >= 0 else stream.stop
    if at != stream.stop and data[at : min(at + 2, stream.stop)] != EOC:
        raise Malformed("the codestream is truncated: its tile-parts do not end with the marker EOC")
    tiles = canvas.columns * canvas.rows
    if len(seen) != tiles or any(seen[tile] < announced[tile] for tile in seen):
        raise Malformed(f"the codestream misses tile-parts: {sum(seen.values())} of {len(seen)} of {tiles} tiles")
    wrong = tuple((place, min(seen[tile], 255)) for place, tile, parts in said if parts and parts != seen[tile])
    return wrong, at if at == stream.stop else None
