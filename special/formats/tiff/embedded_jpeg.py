"""Stored JPEG tiles that are sent as they are.

A JPEG tile of a TIFF lacks the tables that all tiles share and, where it holds RGB, any sign of
that: libtiff never writes a marker for it. Put in front, both make it a whole JPEG of its own.
"""

from __future__ import annotations

import struct

from special.formats.layout import Stored
from special.formats.tiff.ifd import Field
from special.formats.tiff.page import Page
from special.formats.tiff.tags import Compression, Photometric
from special.storage import Span

SOI = b"\xff\xd8"
EOI = b"\xff\xd9"
JFIF = bytes.fromhex("ffe0 0010 4a46494600 0102 00 0001 0001 0000")
"""APP0 of JFIF 1.02, no density: three components are YCbCr, one is grey. ITU-T T.871, section 10."""
ADOBE_RGB = bytes.fromhex("ffee 000e 41646f6265 0064 0000 0000 00")
"""APP14 with transform 0: three components are RGB. ITU-T T.872, section 6.5.3."""
MARKERS = {
    (Photometric.YCBCR, 3): JFIF,
    (Photometric.MIN_IS_BLACK, 1): JFIF,
    (Photometric.RGB, 3): ADOBE_RGB,
}
"""The marker that gives the components' meaning, by colour model and number of samples."""


def stored(page: Page, span: Span, profile: Field | None) -> Stored | None:
    """The tile at `span` as a whole JPEG; None unless it shows the right colours by itself."""
    marker = MARKERS.get((page.photometric, page.samples))
    tables = page.tables or SOI + EOI
    if (
        page.compression is not Compression.JPEG
        or page.bits != 8
        or page.planes != 1
        or marker is None
        or not (tables.startswith(SOI) and tables.endswith(EOI))
        or not (profile is None or (page.samples == 3 and is_srgb(profile.raw or b"")))
    ):
        return None
    return Stored((span,), skip=len(SOI), head=SOI + marker + tables[2:-2])


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile calls itself sRGB: then a browser shows the same colours without it.

    Compares the description alone (ICC.1:2022 section 9.2.41; ICC.1:2001 section 6.5.17 for version 2).
    """
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for signature, at, length in struct.iter_unpack(">4sII", profile[132 : 132 + 12 * min(count, 100)]):
            if signature == b"desc":
                text = profile[at : at + length].replace(b"\0", b"")  # UTF-16 and ASCII alike
                return b"sRGB" in text
    except struct.error:
        return False
    return False
