"""A small, valid codestream from packets of a large one.

The canvas is cut to the tiles that are needed, the resolutions that are not needed are dropped from
SIZ, COD, COC, QCD and QCC, and every packet that is not needed becomes an empty one. What is left decodes to
exactly the pixels that the large one has there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from special.formats.jp2.main_header import Canvas, Header, component_bytes, component_segments, step_bytes
from special.formats.jp2.markers import Marker, encode
from special.geometry import ceil_div

CAPABILITIES = 0x4000
"""The bit of Rsiz that announces a CAP segment."""
EMPTY = b"\0"
"""The header of a packet without contents, padded to a byte (B.10.3)."""
EPH = b"\xff\x92"


def cut_canvas(canvas: Canvas, columns: range, rows: range, drop: int) -> Canvas:
    """The canvas of just these tiles, without its highest `drop` resolutions.

    Tile edges keep their absolute places on the reduced grid, because wavelets and precincts are anchored there.
    With several tiles in a row or column, 2**drop must divide their width or height.
    """
    scale = 1 << drop
    left, top, _, _ = canvas.tile(columns[0], rows[0])
    _, _, right, bottom = canvas.tile(columns[-1], rows[-1])
    left, top, right, bottom = (ceil_div(edge, scale) for edge in (left, top, right, bottom))
    width, tile_left = right - left, left
    if len(columns) > 1:
        width, tile_left = (
            canvas.tile_width // scale,
            ceil_div(canvas.tile_left + columns[0] * canvas.tile_width, scale),
        )
    height, tile_top = bottom - top, top
    if len(rows) > 1:
        height, tile_top = (
            canvas.tile_height // scale,
            ceil_div(canvas.tile_top + rows[0] * canvas.tile_height, scale),
        )
    return Canvas(left, top, right, bottom, width, height, tile_left, tile_top, canvas.steps)


def largest_drop(canvas: Canvas, columns: range, rows: range, reduction: int) -> int:
    """How many of `reduction` levels the canvas of these tiles can do without; a decoder leaves out the rest."""
    sides = [canvas.tile_width] * (len(columns) > 1) + [canvas.tile_height] * (len(rows) > 1)
    while any(side % (1 << reduction) for side in sides):
        reduction -= 1
    return reduction


def main_header(header: Header, canvas: Canvas, drop: int, *, keep_sop: bool) -> bytes:
    """SOC and the main header for another canvas and fewer resolutions."""
    components = len(canvas.steps)
    wide = component_bytes(components)
    own = {component for component, _, _ in component_segments(header.segments, Marker.QCC, components)}
    shared = max((c.levels for i, c in enumerate(header.codings) if i not in own), default=drop) - drop
    parts = [Marker.SOC.to_bytes(2, "big")]
    for segment in header.segments:
        body = segment.body
        match segment.marker:
            case Marker.SIZ:
                body = _siz(body, canvas)
            case Marker.COD:
                body = bytes([body[0] & (7 if keep_sop else 5)]) + body[1:5] + _levels(body[5:], drop, body[0])
            case Marker.COC:
                body = body[: wide + 1] + _levels(body[wide + 1 :], drop, body[wide])
            case Marker.QCD:
                body = _steps(body, shared)
            case Marker.QCC:
                component = int.from_bytes(body[:wide], "big")
                body = body[:wide] + _steps(body[wide:], header.codings[component].levels - drop)
            case Marker.PRF | Marker.CPF:
                continue  # a profile says what the whole codestream is bound to, not what a part of it is
        parts.append(encode(segment.marker, body))
    return b"".join(parts)


def _siz(body: bytes, canvas: Canvas) -> bytes:
    # Profiles limit sizes and tiles in ways that a part need not keep: none is claimed.
    capabilities = int.from_bytes(body[:2], "big") & CAPABILITIES
    return (
        struct.pack(
            ">H8I",
            capabilities,
            canvas.right,
            canvas.bottom,
            canvas.left,
            canvas.top,
            canvas.tile_width,
            canvas.tile_height,
            canvas.tile_left,
            canvas.tile_top,
        )
        + body[34:]
    )


def _levels(body: bytes, drop: int, style: int) -> bytes:
    """The common part of COD and COC: fewer levels, and fewer precinct sizes where there are any."""
    levels = body[0] - drop
    return bytes([levels]) + body[1:5] + (body[5 : 6 + levels] if style & 1 else b"")


def _steps(body: bytes, levels: int) -> bytes:
    """Quantisation style and the steps of the subbands that are left; they start at the lowest (A.6.4)."""
    length = step_bytes(body[0], max(levels, 0))
    assert length is not None, "a header with another style is refused"
    return body[: 1 + length]


def tile_part(number: int, packets: Iterable[bytes | memoryview]) -> bytes:
    """A tile in one part (A.4.2). One copy."""
    body = b"".join(packets)
    return struct.pack(">HHHIBBH", Marker.SOT, 10, number, 14 + len(body), 0, 1, Marker.SOD) + body


def renumbered(part: bytes, number: int) -> bytes:
    """A tile-part, header and all, with another tile number, and with its length filled in. One copy."""
    return part[:4] + struct.pack(">HI", number, len(part)) + part[10:]


def codestream(head: bytes, parts: Sequence[bytes]) -> bytes:
    """The whole of it. One copy."""
    return b"".join((head, *parts, Marker.EOC.to_bytes(2, "big")))
