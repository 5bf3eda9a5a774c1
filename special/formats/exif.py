"""What Exif tells an image server: which way is up, and how many pixels an inch has."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from special.formats import density as densities
from special.geometry import Orientation

PREFIX = b"Exif\0\0"
"""The bytes before the TIFF structure in a JPEG's APP1 segment, and in some WebP files."""

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
RATIONAL = 5
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
"""Byte orders, by how the block starts."""
KINDS = {3: "H", 4: "I"}
"""SHORT, as the standard has it, and LONG, as some writers do."""


def orientation(exif: bytes) -> Orientation:
    """The orientation that an Exif block gives, with or without its prefix.

    A block that is broken, or does not say, counts as upright: the pixels are whole, and every viewer
    shows such files so. Source: CIPA DC-008 section 4.6.5, tag 274.
    """
    return next((Orientation.of(int(value)) for tag, value in _values(exif) if tag == ORIENTATION), Orientation.UPRIGHT)


def density(exif: bytes) -> float | None:
    """Pixels per inch, by the same section, tags 282, 283 and 296; None where it does not say."""
    known = {RESOLUTION_UNIT: 2.0, **dict(_values(exif))}
    if not {X_RESOLUTION, Y_RESOLUTION} <= known.keys():
        return None
    return densities.of_units(known[X_RESOLUTION], known[Y_RESOLUTION], int(known[RESOLUTION_UNIT]), inch=2)


def _values(exif: bytes) -> Iterator[tuple[int, float]]:
    """Tags and values of the first directory where these are one number each, as far as it can be read."""
    tiff = exif.removeprefix(PREFIX)
    order = ORDERS.get(tiff[:4])
    if order is None:
        return
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for number in range(min(count, 200)):
            entry = at + 2 + 12 * number
            tag, kind, values = struct.unpack_from(order + "HHI", tiff, entry)
            if kind in KINDS and values == 1:  # of more, this is where they are
                yield tag, *struct.unpack_from(order + KINDS[kind], tiff, entry + 8)
            elif tag in (X_RESOLUTION, Y_RESOLUTION) and kind == RATIONAL and values == 1:
                (far,) = struct.unpack_from(order + "I", tiff, entry + 8)
                if far + 8 <= len(tiff):  # one that leads astray hides no other field
                    above, below = struct.unpack_from(order + "II", tiff, far)
                    yield tag, above / below if below else 0.0
    except struct.error:
        return
