"""JPEG tiles of a TIFF, decoded by libjpeg-turbo without libtiff in between.

The commonest master of all is a tiled TIFF with JPEG inside, and the commonest piece of it a few
tiles. Each of its tiles is a JPEG that lacks only its tables: with them it goes through simplejpeg.
(512² across nine tiles, decoded and encoded: 3.1 ms, by libvips 5.4.) Whatever is out of the ordinary is
left to libvips, which knows all of TIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg

from special.codecs.jpeg import MAX_BYTES
from special.codecs.raster import Raster
from special.geometry import Size, ceil_div

MAX_TILES: Final = 256
"""Above this a piece is no handful of tiles but a master, which libvips decodes where it is looked at."""

# TIFF 6.0 section 8 and appendix A; 347 from Technical Note 2; 34675 from ICC.1:2022, B.5.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 256, 257, 258, 259, 262, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_LENGTHS, _JPEG_TABLES, _PROFILE = 322, 323, 324, 325, 347, 34675
_JPEG, _CONTIGUOUS = 7, 1
_GREY, _RGB, _YCBCR = 1, 2, 6
_CHANNELS: Final = {_GREY: 1, _RGB: 3, _YCBCR: 3}
_TYPES: Final = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # BYTE, SHORT, LONG, UNDEFINED, LONG8
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"

# Adobe's APP14 says how three channels are meant, which TIFF says in a tag: its last byte is 0 for RGB, 1 for YCbCr.
_ADOBE: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_MEANING: Final = {_GREY: b"", _RGB: _ADOBE + b"\x00", _YCBCR: _ADOBE + b"\x01"}


@dataclass(frozen=True, slots=True)
class Head:
    """The first page of a TIFF whose tiles are plain 8-bit JPEGs."""

    size: Size
    channels: int
    profile: bytes | None
    tile: Size
    tiles: tuple[tuple[int, int], ...]
    """(offset, length) of each tile, row by row."""
    prefix: bytes
    """What a tile needs instead of its start-of-image marker to be a JPEG by itself."""


def read_head(data: bytes) -> Head | None:
    """The first page, or None where it is anything but a moderate number of 8-bit grey or colour JPEG tiles."""
    try:
        tags = _first_page(data)
    except (struct.error, ValueError):
        return None

    def number(tag: int, default: int = 0) -> int:
        values = tags.get(tag)
        return values[0] if values else default

    channels = _CHANNELS.get(number(_PHOTOMETRIC, -1))
    sides = [number(tag) for tag in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT)]
    ordinary = (
        number(_COMPRESSION) == _JPEG
        and channels == number(_SAMPLES, 1)
        and set(tags.get(_BITS, (1,))) == {8}
        and number(_PLANAR, _CONTIGUOUS) == _CONTIGUOUS
        and all(sides)
    )
    if not ordinary or channels is None:
        return None
    size, tile = Size(sides[0], sides[1]), Size(sides[2], sides[3])
    offsets, lengths = tags.get(_TILE_OFFSETS, ()), tags.get(_TILE_LENGTHS, ())
    count = ceil_div(size.width, tile.width) * ceil_div(size.height, tile.height)
    if not len(offsets) == len(lengths) == count <= MAX_TILES or size.area * channels > MAX_BYTES:
        return None
    tables = bytes(tags.get(_JPEG_TABLES, ()))
    prefix = _SOI + _MEANING[number(_PHOTOMETRIC)] + tables.removeprefix(_SOI).removesuffix(_EOI)
    profile = bytes(tags.get(_PROFILE, ()))
    return Head(size, channels, profile or None, tile, tuple(zip(offsets, lengths, strict=True)), prefix)


def decode(data: bytes, head: Head) -> Raster | None:
    """All pixels of the page, in the file's own colours; None where a tile is missing or has a fault.

    One copy, of each tile into its place; a page of one tile is not copied at all.
    """
    rows = []
    colours = "GRAY" if head.channels == 1 else "RGB"
    for x, y, offset, length in _places(head):
        body = data[offset : offset + length]
        if not body.startswith(_SOI):
            return None
        try:
            tile: Raster = simplejpeg.decode_jpeg(head.prefix + body[2:], colorspace=colours)
        except ValueError:
            return None
        if tile.shape != (head.tile.height, head.tile.width, head.channels):
            return None
        if len(head.tiles) == 1:
            return tile[: head.size.height, : head.size.width]
        rows.append((x, y, tile))
    page = np.empty((head.size.height, head.size.width, head.channels), np.uint8)
    for x, y, tile in rows:
        place = page[y : y + head.tile.height, x : x + head.tile.width]
        place[:] = tile[: place.shape[0], : place.shape[1]]
    return page


def _places(head: Head) -> Iterator[tuple[int, int, int, int]]:
    across = ceil_div(head.size.width, head.tile.width)
    for index, (offset, length) in enumerate(head.tiles):
        yield index % across * head.tile.width, index // across * head.tile.height, offset, length


def _first_page(data: bytes) -> dict[int, tuple[int, ...]]:
    """The numeric tags of the first image file directory, of a classic TIFF or a BigTIFF."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise ValueError("no TIFF")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word, word_bytes = ("Q", 8) if big else ("I", 4)
    count_format = "Q" if big else "H"
    (start,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, start)
    at = start + struct.calcsize(order + count_format)
    if count > 1000:
        raise ValueError("a directory of more tags than TIFF has")
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at, at + count * (4 + 2 * word_bytes), 4 + 2 * word_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        (length,) = struct.unpack_from(order + word, data, entry + 4)
        if kind not in _TYPES or length > len(data):
            continue
        values = f"{order}{length}{_TYPES[kind]}"
        value_at = entry + 4 + word_bytes
        if struct.calcsize(values) > word_bytes:
            (value_at,) = struct.unpack_from(order + word, data, value_at)
        tags[tag] = struct.unpack_from(values, data, value_at)
    return tags
