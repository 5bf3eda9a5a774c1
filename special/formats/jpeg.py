"""JPEG: read whole, shrunk while it is decoded.

Its scans can only be decoded from the start, so any part needs all of the bytes; but the
decoder can leave out the higher frequencies and give 1/2, 1/4 or 1/8 of the pixels for a
fraction of the time. Markers are read as far as the frame header, no further.

A progressive JPEG is read whole too. At 1/8 its mean values alone would do, but encoders put their last bit
(successive approximation) near the end: after 86 to 88 % of the file in libjpeg's own order of scans (three
photographs of 0.15 to 0.3 MB at quality 85), and nothing says where that is but the scans before.
"""

from __future__ import annotations

import struct

from special.errors import Malformed, Unsupported
from special.formats import exif
from special.formats.density import of_units
from special.formats.extras import require_extra
from special.formats.layout import Layout
from special.formats.levels import checked
from special.formats.parser import Parser
from special.formats.whole import WholeLayout
from special.geometry import Orientation
from special.storage import Span

MAX_SEGMENTS = 1000
"""Most marker segments before the frame header; profiles of printers and panoramas take about 50."""
MARKER_BYTES = 20
"""Bytes read at each marker: enough for a frame header of 3 components, or an Exif prefix."""
LOSSY_BITS, LOSSLESS_BITS = (8, 12), range(2, 17)
"""Depths of samples (T.81 table B.2)."""
MAX_REDUCE = 3
"""libjpeg decodes at 1/2, 1/4 and 1/8."""
PROGRESSIVE, LOSSLESS = 0xC2, 0xC3
FRAMES = {0xC0, 0xC1, PROGRESSIVE, LOSSLESS}
"""Frame headers of what is decoded here: baseline, extended sequential, progressive. ITU-T T.81, table B.1."""
REFUSED_FRAMES = {
    0xC5: "hierarchical",
    0xC6: "hierarchical progressive",
    0xC7: "hierarchical lossless",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded progressive",
    0xCB: "arithmetic-coded lossless",
    0xCD: "arithmetic-coded hierarchical",
    0xCE: "arithmetic-coded hierarchical progressive",
    0xCF: "arithmetic-coded hierarchical lossless",
    0xF7: "JPEG-LS",
}
"""Frame headers with a name that nothing here decodes."""
APP0, APP1, SCAN, END = 0xE0, 0xE1, 0xDA, 0xD9
BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment: TEM, RST, SOI."""


def sniff(head: bytes) -> bool:
    """Whether a file that starts like this is a JPEG."""
    return head[:3] == b"\xff\xd8\xff"


def parse(size_bytes: int) -> Parser[Layout]:
    """The layout of a JPEG, from its markers. Raises `Malformed`, or `Unsupported` by name."""
    at, upright, has_exif, density = 2, Orientation.UPRIGHT, False, None
    for _ in range(MAX_SEGMENTS):
        if at + 4 > size_bytes:
            raise Malformed(f"the JPEG ends at byte {size_bytes}, before its frame header")
        (head,) = yield [Span(at, min(at + MARKER_BYTES, size_bytes))]
        if head[0] != 0xFF:
            raise Malformed(f"byte {at} of the JPEG is {head[0]:#04x}, where a marker should start")
        marker = head[1]
        if marker == 0xFF:  # fill bytes are allowed before any marker: T.81 section B.1.1.2
            at += 1
            continue
        if marker in BARE:
            at += 2
            continue
        if marker in FRAMES:
            return _layout(head, upright, density, size_bytes=size_bytes)
        if marker in REFUSED_FRAMES:
            raise Unsupported(f"the JPEG is {REFUSED_FRAMES[marker]}; re-encode as baseline or progressive")
        length = int.from_bytes(head[2:4])
        if length < 2 or marker in (SCAN, END):
            raise Malformed(f"the JPEG has marker {marker:#04x} of {length} bytes at {at}, before any frame header")
        is_exif = marker == APP1 and head[4:10] == exif.PREFIX and length > 2 + len(exif.PREFIX)
        if is_exif and not has_exif and at + 2 + length <= size_bytes:
            (block,) = yield [Span.at(at + 4, length - 2)]
            upright, has_exif, density = exif.orientation(block), True, density or exif.density(block)
        if marker == APP0 and head[4:9] == b"JFIF\0" and len(head) >= 16:
            unit, across, down = struct.unpack_from(">BHH", head, 11)  # JFIF 1.02: dots per inch (1) or centimetre (2)
            density = of_units(across, down, unit, inch=1) or density
        at += 2 + length
    raise Malformed(f"the JPEG has no frame header among its first {MAX_SEGMENTS} segments")


def _layout(head: bytes, upright: Orientation, density: float | None, *, size_bytes: int) -> Layout:
    """From a frame header: marker, length, precision, height, width, components. T.81 section B.2.2."""
    try:
        marker, _length, bits, height, width, components = struct.unpack_from(">xBHBHHB", head)
    except struct.error:
        raise Malformed(f"the JPEG ends at byte {size_bytes}, inside its frame header") from None
    is_deep = marker == LOSSLESS or bits != 8
    if bits not in (LOSSLESS_BITS if marker == LOSSLESS else LOSSY_BITS) or (is_deep and components == 4):
        raise Unsupported(f"the JPEG has {components} components of {bits} bits; re-encode in 8 bits")
    if is_deep:
        require_extra("imagecodecs", f"a {'lossless JPEG' if marker == LOSSLESS else f'JPEG of {bits} bits'}")
    if components not in (1, 3, 4):
        raise Unsupported(f"the JPEG has {components} components; 1, 3 and 4 can be shown")
    if not height:
        raise Unsupported("the JPEG leaves its height to a later DNL marker; re-encode it")
    return WholeLayout(
        "jpeg",
        size_bytes,
        checked("JPEG", width, height),
        upright,
        has_color=components != 1,
        max_reduce=0 if is_deep else MAX_REDUCE,
        progressive=is_deep or marker == PROGRESSIVE,
        density=density,
    )
