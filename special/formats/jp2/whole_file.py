"""A JPEG 2000 file that is in memory as a whole: what a decoder must know, and that nothing of it is missing.

OpenJPEG fills missing tiles with black, takes a file that stops between two tile-parts for whole, and makes wrong
pixels of a region of HTJ2K. None of that may reach a client.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from special.errors import Malformed
from special.formats.jp2.boxes import RAW, SIGNATURE, read_container
from special.formats.jp2.colours import Colours
from special.formats.jp2.main_header import Canvas, read_canvas, read_header
from special.formats.jp2.markers import Marker, Segment, read_segments
from special.formats.jp2.packet_headers import PacketCutShort
from special.formats.jp2.packet_scan import measure
from special.formats.jp2.precincts import file_order, tile_of
from special.formats.jp2.reader import CodestreamReader, Reading
from special.formats.jp2.tile_parts import EOC, MAX_PACKETS, SOT, SOT_BYTES
from special.formats.parser import solve
from special.geometry import Box
from special.storage import Span

CAPABILITIES = 1 << 14
"""The bit of Rsiz that announces a CAP marker, as in every HTJ2K file (T.814 A.2)."""

IHDR_BYTES = 4 + 14
"""The type and the contents of an image header box (I.5.3.1)."""


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
    """Whether OpenJPEG decodes a region as it decodes the whole: not where there are capabilities, or PPM (2.5.4)."""
    mixed: bool
    """Whether the first three components were mixed to be coded; decoding parts them again (A.6.1, annex G)."""
    mistakes: tuple[tuple[int, bytes], ...]
    """Where the file says what OpenJPEG stops by, and what is right: numbers of tile-parts (TNsot), sides in ihdr."""

    end_at: int | None
    """Where the marker EOC is missing behind the last tile-part; None where it is there."""

    def corrected(self, data: bytes) -> bytes:
        """The file without mistakes, and with an end. One copy where anything was wrong."""
        if not self.mistakes and self.end_at is None:
            return data
        copy = bytearray(data)
        for at, right in self.mistakes:
            copy[at : at + len(right)] = right
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
    mistakes, end_at = _check_tile_parts(data, range(first, stop), canvas, segments)
    if container.header:
        mistakes += _wrong_sides(data, container.header, canvas)
    return WholeFile(
        boxed=bool(container.header),
        palette=bool(container.palette_channels),
        colours=container.colours,
        defines_opacity=container.defines_opacity,
        bounds=Box.between(canvas.left, canvas.top, canvas.right, canvas.bottom),
        divisible=not int.from_bytes(siz[:2], "big") & CAPABILITIES
        and all(segment.marker != Marker.PPM for segment in segments),
        mixed=cod[4:5] == b"\1",  # after Scod, the progression and the number of layers (table A.14)
        mistakes=mistakes,
        end_at=end_at,
    )


def _wrong_sides(data: bytes, header: bytes, canvas: Canvas) -> tuple[tuple[int, bytes], ...]:
    """The sides in `ihdr` where the codestream has others, which count (I.5.3.1)."""
    at = header.index(b"ihdr", header.index(b"jp2h"))
    right = struct.pack(">II", canvas.bottom - canvas.top, canvas.right - canvas.left)
    if header.startswith(right, at + 4):
        return ()
    return ((data.index(header[at : at + IHDR_BYTES]) + 4, right),)


def _check_tile_parts(
    data: bytes, stream: range, canvas: Canvas, segments: Sequence[Segment]
) -> tuple[tuple[tuple[int, bytes], ...], int | None]:
    """Follow the tile-parts to the end: all that are announced are there, then EOC (A.4.2, A.4.4).

    Where another number is announced than there is, the places where that is said, and the right number; and where
    EOC is missing. A tile of fewer parts than announced must have all of its packets.
    """
    at = stream.start
    seen: dict[int, list[Span]] = {}
    announced: dict[int, int] = {}
    said: list[tuple[int, int, int]] = []  # place, tile, number
    while data[at : at + 2] == SOT[:2] and at + SOT_BYTES <= stream.stop:
        tile, length, _, parts = struct.unpack_from(">HIBB", data, at + 4)
        said.append((at + SOT_BYTES - 1, tile, parts))
        announced[tile] = max(parts, announced.get(tile, 1))
        # a length of 0: up to the end of the codestream
        end = data.rfind(EOC, at, stream.stop)
        start, at = at, at + max(length, SOT_BYTES) if length else end if end >= 0 else stream.stop
        seen.setdefault(tile, []).append(Span(start, at))
    tail = data[at : min(at + 2, stream.stop)]
    if at > stream.stop or not EOC.startswith(tail):
        raise Malformed("the codestream is truncated: its tile-parts do not end with the marker EOC")
    tiles = canvas.columns * canvas.rows
    if len(seen) != tiles or any(
        len(parts) < announced[tile] and not _has_all_packets(data, segments, tile, parts)
        for tile, parts in seen.items()
    ):
        raise Malformed(f"the codestream misses tile-parts: {len(said)} of {len(seen)} of {tiles} tiles")
    wrong = tuple(
        (place, bytes((min(len(seen[tile]), 255),))) for place, tile, parts in said if parts not in (0, len(seen[tile]))
    )
    return wrong, at if tail != EOC else None


def _has_all_packets(data: bytes, segments: Sequence[Segment], tile: int, parts: Sequence[Span]) -> bool:
    """Whether the parts of a tile hold all packets that it has, by their own headers, and nothing else.

    Costs some microseconds for each code-block. False too where that cannot be told: see `Header.refusal`.
    """
    header = read_header(segments)
    canvas = header.canvas
    if header.refusal is not None or tile >= canvas.columns * canvas.rows:
        return False
    geometry = tile_of(header, canvas.tile(*divmod(tile, canvas.columns)[::-1]))
    if geometry.precincts * header.layers > MAX_PACKETS:
        return False
    bodies: list[bytes] = []
    try:
        for part in parts:
            head = read_segments(CodestreamReader.of(data), part.start + SOT_BYTES, Marker.SOD, part.stop)
            own, at = solve(head, data)
            if any(segment.marker not in (Marker.PLT, Marker.COM) for segment in own):
                return False
            bodies.append(data[at + 2 : part.stop])
        lengths = measure(header, geometry, file_order(header, geometry), bodies, [True] * len(bodies))
    except (Malformed, PacketCutShort):
        return False
    return sum(map(sum, lengths)) == sum(map(len, bodies))
