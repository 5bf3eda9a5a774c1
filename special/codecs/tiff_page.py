"""The first page of a small TIFF, for those tiles that are decoded without libtiff.

The format rooms plan from ranges of a large file; what comes here is the piece that they rebuilt, all of it
in memory. Sections are those of TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from special.geometry import Box, Size, ceil_div

MAX_FIELDS: Final = 1000
"""More fields than any page has."""

# Section 8 and appendix A, and section 15 for tiles; 347 from Technical Note 2; 34675 from ICC.1:2022, B.5.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 277, 284
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS, EXTRA_SAMPLES = 273, 278, 279, 338
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, JPEG_TABLES, PROFILE = 322, 323, 324, 325, 347, 34675
GREY, RGB, CMYK, YCBCR = 1, 2, 5, 6
"""Values of `PHOTOMETRIC`."""
COLOURS: Final = {GREY: 1, RGB: 3, CMYK: 4}
"""How many samples each has, without opacity."""
INTERPRETATIONS: Final = {
    (GREY, 8): "b-w",
    (GREY, 16): "grey16",
    (RGB, 8): "srgb",
    (RGB, 16): "rgb16",
    (CMYK, 8): "cmyk",
    (CMYK, 16): "cmyk",
}
"""What libvips calls them, by bits."""
_TYPES: Final = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # BYTE, SHORT, LONG, UNDEFINED, LONG8

Order = Literal["<", ">"]
"""Byte order, as `struct` writes it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One tile, or one strip."""

    plane: int
    """Which sample's grid it belongs to; 0 where samples are interleaved."""
    box: Box
    """What it shows of the page; its data may hold more."""
    offset: int
    length: int
    """In bytes; 0 for one that was never written."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says of its tiles."""

    order: Order
    tags: Mapping[int, tuple[int, ...]]
    """Its fields that hold whole numbers or bytes."""
    size: Size
    tile: Size
    """A whole tile, or a whole strip."""
    tiled: bool
    """Whether tiles at the edge are filled up to a whole one; the last strip is not."""
    planes: int
    """How many grids there are: one, or one for each sample."""
    places: tuple[tuple[int, int], ...]
    """Offset and length of each tile, plane after plane, each row by row."""

    def number(self, tag: int, default: int) -> int:
        """The first value of a field."""
        values = self.tags.get(tag)
        return values[0] if values else default

    @property
    def compression(self) -> int:
        """How tiles are compressed."""
        return self.number(COMPRESSION, 1)

    @property
    def photometric(self) -> int:
        """What samples mean."""
        return self.number(PHOTOMETRIC, -1)

    @property
    def samples(self) -> int:
        """Samples of one pixel."""
        return self.number(SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of each sample; 0 where they differ."""
        depths = set(self.tags.get(BITS, (1,)))
        return depths.pop() if len(depths) == 1 else 0

    @property
    def profile(self) -> bytes | None:
        """The colour profile (ICC)."""
        return bytes(self.tags.get(PROFILE, ())) or None

    def grid(self) -> Iterator[Place]:
        """Every tile with its place."""
        across, down = ceil_div(self.size.width, self.tile.width), ceil_div(self.size.height, self.tile.height)
        for number, (offset, length) in enumerate(self.places):
            plane, at = divmod(number, across * down)
            x, y = at % across * self.tile.width, at // across * self.tile.height
            right, bottom = min(x + self.tile.width, self.size.width), min(y + self.tile.height, self.size.height)
            yield Place(plane, Box.between(x, y, right, bottom), offset, length)


def read(data: bytes) -> Page | None:
    """The first page of a classic TIFF or a BigTIFF; None where its grid cannot be made out."""
    try:
        order, tags = _fields(data)
    except (struct.error, ValueError):
        return None

    def number(tag: int, default: int = 0) -> int:
        values = tags.get(tag)
        return values[0] if values else default

    tiled = TILE_OFFSETS in tags
    width, height = number(WIDTH), number(HEIGHT)
    across, down = (number(TILE_WIDTH), number(TILE_HEIGHT)) if tiled else (width, number(ROWS_PER_STRIP, height))
    if not (width and height and across and down):
        return None
    size, tile = Size(width, height), Size(across, min(down, height) if not tiled else down)
    planes = max(1, number(SAMPLES, 1)) if number(PLANAR, 1) == 2 else 1
    offsets = tags.get(TILE_OFFSETS if tiled else STRIP_OFFSETS, ())
    lengths = tags.get(TILE_COUNTS if tiled else STRIP_COUNTS, ())
    count = ceil_div(width, tile.width) * ceil_div(height, tile.height) * planes
    if not len(offsets) == len(lengths) == count:
        return None
    return Page(order, tags, size, tile, tiled, planes, tuple(zip(offsets, lengths, strict=True)))


def _fields(data: bytes) -> tuple[Order, dict[int, tuple[int, ...]]]:
    """Byte order, and the numeric fields of the first directory."""
    if data[:2] not in (b"II", b"MM"):
        raise ValueError("no TIFF")
    order: Order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word, word_bytes = ("Q", 8) if big else ("I", 4)
    count_format = "Q" if big else "H"
    (start,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, start)
    at = start + struct.calcsize(order + count_format)
    if count > MAX_FIELDS:
        raise ValueError("a directory of more fields than TIFF has")
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
    return order, tags
