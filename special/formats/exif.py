"""The one thing that Exif tells an image server: which way is up."""

from __future__ import annotations

import struct

from special.geometry import Orientation

PREFIX = b"Exif\0\0"
"""The bytes before the TIFF structure in a JPEG's APP1 segment, and in some WebP files."""

ORIENTATION = 274
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
"""Byte orders, by how the block starts."""
KINDS = {3: "H", 4: "I"}
"""SHORT, as the standard has it, and LONG, as some writers do."""


def orientation(exif: bytes) -> Orientation:
    """The orientation that an Exif block gives, with or without its prefix.

    A block that is broken, or does not say, counts as upright: the pixels are whole, and every viewer
    shows such files so. Source: CIPA DC-008 section 4.6.5, tag 274.
    """
    tiff = exif.removeprefix(PREFIX)
    order = ORDERS.get(tiff[:4])
    if order is None:
        return Orientation.UPRIGHT
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for number in range(min(count, 200)):
            tag, kind, values = struct.unpack_from(order + "HHI", tiff, at + 2 + 12 * number)
            if tag == ORIENTATION and kind in KINDS and values == 1:  # of more, this is where they are
                return Orientation.of(*struct.unpack_from(order + KINDS[kind], tiff, at + 2 + 12 * number + 8))
    except struct.error:
        return Orientation.UPRIGHT
    return Orientation.UPRIGHT
