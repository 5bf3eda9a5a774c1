"""A PNG that ends early, filled up with grey so that any decoder takes it.

libvips and pillow leave what is missing black or transparent, as if it were part of the picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from special.errors import Malformed, TooExpensive
from special.formats import PNG_DEPTHS
from special.geometry import ceil_div

SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel, by color type (W3C PNG section 11.2.1)."""
HAS_OPACITY: Final = {4, 6}
_START, _DATA, _END = 8, b"IDAT", b"IEND"
_LEVEL: Final = 1
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, and steps between them (W3C PNG section 8.2)."""


def completed(data: bytes, *, max_pixels: int) -> bytes:
    """The same picture with a grey rest. All of it is inflated and deflated again.

    Of an interlaced one, whose passes are spread over the picture, single pixels are grey. Raises `Malformed` where
    there is no whole header or no row.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise Malformed("the PNG does not start with a whole IHDR chunk")
    width, height, depth, color_type, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth not in PNG_DEPTHS.get(color_type, ()):
        raise Malformed(f"the PNG claims samples of {depth} bits of color type {color_type}")
    if width * height > max_pixels:
        raise TooExpensive(f"{width}×{height} pixels to decode; max_master_pixels allows {max_pixels}")
    passes = [
        (ceil_div(width - x, across), ceil_div(height - y, down))
        for x, y, across, down in (_PASSES if interlaced else ((0, 0, 1, 1),))
        if x < width and y < height
    ]
    grey = [_grey_row(columns, depth, color_type) for columns, _ in passes]
    size_bytes = sum(len(row) * count for row, (_, count) in zip(grey, passes, strict=True))
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(b"".join(body for kind, body in chunks if kind == _DATA), size_bytes)
    except zlib.error as error:
        raise Malformed(f"the PNG is cut short, and damaged before: {error}") from None
    if len(rows) < len(grey[0]):
        raise Malformed("the PNG ends before its first row of pixels")
    filled, at = bytearray(), 0
    for row, (_, count) in zip(grey, passes, strict=True):
        there = min(count, max(0, len(rows) - at) // len(row))
        filled += rows[at : at + there * len(row)] + row * (count - there)
        at += count * len(row)
    before = [_chunk(kind, body) for kind, body in chunks if kind not in (_DATA, _END)]
    return b"".join((data[:_START], *before, _chunk(_DATA, zlib.compress(bytes(filled), _LEVEL)), _chunk(_END, b"")))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents; the last one may be cut short, if it is one of pixels."""
    at = _START
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) == length or kind == _DATA:
            yield kind, body
        at += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def _grey_row(width: int, depth: int, color_type: int) -> bytes:
    """A row without filter: mid-grey, opaque; of a palette its first entry."""
    if color_type == 3:
        return bytes(1 + ceil_div(width * depth, 8))
    middle = (1 << depth - 1).to_bytes(ceil_div(depth, 8), "big")
    if depth < 8:
        return b"\0" + bytes((0x55 if depth == 1 else sum(1 << at for at in range(depth - 1, 8, depth)),)) * ceil_div(
            width * depth, 8
        )
    pixel = middle * (SAMPLES[color_type] - (color_type in HAS_OPACITY))
    return b"\0" + (pixel + b"\xff" * (depth // 8) * (color_type in HAS_OPACITY)) * width
