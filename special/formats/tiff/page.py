"""One page of a TIFF: its pixels' grid of tiles (or strips), and whether they can be decoded.

A strip is a tile as wide as the picture; only the last one may be lower than the others.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from special.errors import Malformed, Unsupported
from special.formats.levels import checked
from special.formats.tiff.ifd import EAGER_INDEX_BYTES, Directory, Field, first_directory
from special.formats.tiff.tags import (
    COMPRESSIONS,
    COPIED,
    JOINABLE,
    JPEG_2000,
    NUMBERS,
    PHOTOMETRICS,
    REFUSED_COMPRESSIONS,
    REFUSED_PHOTOMETRICS,
    WIDTHS,
    Compression,
    Photometric,
    Tag,
)
from special.geometry import Box, Frame, Size, ceil_div
from special.storage import Span

MAX_JPEG_SIDE = 65535
"""ITU-T T.81 section B.2.2: sides have 16 bits."""
CHUNK_BYTES = 8192
"""How much of a long list of tiles is read at a time: 1,024 offsets of a BigTIFF."""


@dataclass(frozen=True, slots=True)
class TileList:
    """TileOffsets or TileByteCounts: the list's offset, and those chunks of it that are known."""

    at: int
    """Where the list starts in the file."""
    code: str
    """The `struct` code of one number, with the file's byte order."""
    width: int
    """Bytes of one number."""
    count: int
    """How many numbers there are."""
    chunk_bytes: int
    """Length of a chunk; the whole list's where it was read with its directory."""
    chunks: Mapping[int, bytes] = field(default_factory=dict)
    """What is known, by chunk number."""

    @classmethod
    def of(cls, directory: Directory, entry: Field) -> TileList:
        """The list that a field holds, known or not."""
        if entry.type not in NUMBERS:
            raise Malformed(f"{Tag(entry.tag).name} is of type {entry.type}, which holds no whole numbers")
        code, width = directory.order + NUMBERS[entry.type], WIDTHS[entry.type]
        if entry.raw is None:
            return cls(entry.at, code, width, entry.values, CHUNK_BYTES)
        return cls(entry.at, code, width, entry.values, max(EAGER_INDEX_BYTES, len(entry.raw)), {0: entry.raw})

    def __getitem__(self, number: int) -> int:
        chunk, at = divmod(number * self.width, self.chunk_bytes)
        return int(struct.unpack_from(self.code, self.chunks[chunk], at)[0])

    def known(self) -> tuple[int, ...]:
        """All numbers of a list that was read with its directory."""
        return struct.unpack(f"{self.code[0]}{self.count}{self.code[1]}", self.chunks[0])

    def missing(self, numbers: Iterable[range]) -> set[int]:
        """The chunks that these ranges need and that are not known."""
        if len(self.chunks) * self.chunk_bytes >= self.count * self.width:
            return set()
        per_chunk = self.chunk_bytes // self.width
        needed = {chunk for run in numbers for chunk in range(run.start // per_chunk, (run.stop - 1) // per_chunk + 1)}
        return needed - self.chunks.keys()

    def span(self, chunk: int) -> Span:
        """A chunk's bytes in the file."""
        start = chunk * self.chunk_bytes
        return Span(self.at + start, self.at + min(start + self.chunk_bytes, self.count * self.width))

    def with_chunks(self, chunks: Mapping[int, bytes]) -> TileList:
        """The same list with more of it known."""
        return replace(self, chunks={**self.chunks, **chunks})


class StoredTile(NamedTuple):
    """One tile, or one strip, of a page that is in memory as a whole."""

    plane: int
    """Which sample's grid it belongs to; 0 where samples are interleaved."""
    box: Box
    """What it shows of the page; its data may hold more."""
    offset: int
    length: int
    """In bytes; 0 for one that was never written."""


@dataclass(frozen=True, slots=True)
class Page:
    """One picture in a TIFF, as it is stored: not turned upright."""

    directory: Directory
    """The fields that it was made from."""
    size: Size
    """Width and height of the stored picture."""
    tile: Size
    """A whole tile, or a whole strip."""
    tiled: bool
    """Whether edge tiles are padded to full size; strips are not."""
    compression: Compression
    photometric: Photometric
    samples: int
    """Samples per pixel, alpha included."""
    bits: int
    """Bits per sample."""
    planes: int
    """How many times the grid is stored: once, or once for each sample."""
    offsets: TileList
    """Where each tile starts, plane after plane, each row by row."""
    counts: TileList
    """How many bytes each tile has; none for one that was never written."""

    @classmethod
    def of(cls, directory: Directory) -> Page:
        """The page that a directory describes. Raises `Malformed`, or `Unsupported` by name."""
        size = _size(directory, Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH)
        samples = directory.number(Tag.SAMPLES_PER_PIXEL, 1)
        bits = directory.numbers(Tag.BITS_PER_SAMPLE) or (1,)
        compression, photometric = _compression(directory), _photometric(directory)
        _check_samples(directory, samples, bits)
        for entry in directory.fields.values():
            if entry.raw is None and entry.tag in COPIED:
                raise Malformed(f"{Tag(entry.tag).name} is {entry.size_bytes} bytes long")
        tiled = Tag.TILE_WIDTH in directory.fields
        if tiled:
            tile = _size(directory, Tag.TILE_WIDTH, Tag.TILE_LENGTH)
            offsets, counts = _index(directory, Tag.TILE_OFFSETS), _index(directory, Tag.TILE_BYTE_COUNTS)
        else:
            rows = directory.number(Tag.ROWS_PER_STRIP, size.height)
            tile = Size(size.width, min(rows, size.height) or size.height)
            offsets, counts = _index(directory, Tag.STRIP_OFFSETS), _index(directory, Tag.STRIP_BYTE_COUNTS)
        planes = samples if directory.number(Tag.PLANAR_CONFIGURATION, 1) == 2 else 1
        if compression in JPEG_2000:
            _check_joinable("JPEG 2000 tiles", photometric, samples, bits[0], planes=planes)
        elif tiled and planes > 1:
            _check_joinable("separate tiles", photometric, samples, bits[0], planes=planes)
        page = cls(directory, size, tile, tiled, compression, photometric, samples, bits[0], planes, offsets, counts)
        if compression is Compression.JPEG and tile.long_side > MAX_JPEG_SIDE:
            raise Malformed(f"a JPEG cannot hold a tile of {tile} pixels; {MAX_JPEG_SIDE} is the longest side")
        listed, needed = min(offsets.count, counts.count), page.tile_count
        if listed < needed:
            raise Malformed(f"{size} pixels in tiles of {tile} need {needed} of them; {listed} are listed")
        return page

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return ceil_div(self.size.width, self.tile.width)

    @property
    def rows(self) -> int:
        """Tiles one above the other."""
        return ceil_div(self.size.height, self.tile.height)

    @property
    def tables(self) -> bytes:
        """Quantisation and Huffman tables that all tiles share, as an abbreviated JPEG; or nothing."""
        entry = self.directory.fields.get(Tag.JPEG_TABLES)
        return entry.raw or b"" if entry is not None else b""

    @property
    def profile(self) -> bytes | None:
        """The colour profile (ICC), where it was read with the directory."""
        entry = self.directory.fields.get(Tag.ICC_PROFILE)
        return entry.raw if entry is not None else None

    @property
    def tile_count(self) -> int:
        """Tiles of all planes."""
        return self.columns * self.rows * self.planes

    def tiles(self) -> Iterator[StoredTile]:
        """Every tile of a page that is in memory: plane after plane, each row by row."""
        width, height, right, bottom = self.tile.width, self.tile.height, self.size.width, self.size.height
        places = zip(self.offsets.known(), self.counts.known(), strict=False)
        for plane in range(self.planes):
            for y in range(0, bottom, height):
                for x in range(0, right, width):
                    offset, length = next(places)
                    box = Box(x, y, min(width, right - x), min(height, bottom - y))
                    yield StoredTile(plane, box, offset, length)

    def covering(self, frame: Frame) -> Box:
        """The tiles that a frame inside the picture touches; a box in the tile grid."""
        return Box.between(
            math.floor(frame.x) // self.tile.width,
            math.floor(frame.y) // self.tile.height,
            ceil_div(math.ceil(frame.x + frame.width), self.tile.width),
            ceil_div(math.ceil(frame.y + frame.height), self.tile.height),
        )

    def area(self, tiles: Box) -> Box:
        """The pixels that a box of tiles holds, cut at the picture's edges."""
        return Box.between(
            tiles.x * self.tile.width,
            tiles.y * self.tile.height,
            min(tiles.right * self.tile.width, self.size.width),
            min(tiles.bottom * self.tile.height, self.size.height),
        )

    def numbers(self, tiles: Box) -> list[range]:
        """The places of a box of tiles in the lists, a range for each row of each plane."""
        per_plane = self.columns * self.rows
        return [
            range(start + tiles.x, start + tiles.right)
            for plane in range(self.planes)
            for start in range(
                plane * per_plane + tiles.y * self.columns,
                plane * per_plane + tiles.bottom * self.columns,
                self.columns,
            )
        ]

    def span(self, number: int) -> Span | None:
        """A tile's bytes in the file; None for one that was never written: it is all zeros."""
        length = self.counts[number]
        return Span.at(self.offsets[number], length) if length else None


def read_page(data: bytes) -> Page:
    """The first page of a whole, small TIFF in memory, such as `rebuild` makes. Raises `Malformed`, `Unsupported`."""
    return Page.of(first_directory(data))


def _size(directory: Directory, width_tag: Tag, height_tag: Tag) -> Size:
    return checked("TIFF directory", directory.number(width_tag), directory.number(height_tag))


def _compression(directory: Directory) -> Compression:
    code = directory.number(Tag.COMPRESSION, Compression.NONE)
    compression = COMPRESSIONS.get(code)
    if compression is None:
        name = REFUSED_COMPRESSIONS.get(code, "an unknown one")
        raise Unsupported(f"TIFF compression {code}, {name}, cannot be read here; re-encode as JPEG or deflate")
    return compression


def _photometric(directory: Directory) -> Photometric:
    code = directory.number(Tag.PHOTOMETRIC, Photometric.MIN_IS_BLACK)
    photometric = PHOTOMETRICS.get(code)
    if photometric is None:
        name = REFUSED_PHOTOMETRICS.get(code, "an unknown one")
        raise Unsupported(f"TIFF colour model {code}, {name}, cannot be shown; re-encode as RGB or grey")
    return photometric


def _check_samples(directory: Directory, samples: int, bits: tuple[int, ...]) -> None:
    if not 1 <= samples <= 64 or len(set(bits)) != 1 or len(bits) > samples:
        raise Unsupported(f"{samples} TIFF samples of {bits[:8]} bits; all must be of one depth")
    if bits[0] not in (1, 2, 4, 8, 16):
        raise Unsupported(f"TIFF samples of {bits[0]} bits; 1, 2, 4, 8 and 16 can be shown")
    if not {1}.issuperset(directory.numbers(Tag.SAMPLE_FORMAT)):
        raise Unsupported("TIFF samples that are signed or fractions; re-encode as unsigned integers")


def _check_joinable(what: str, photometric: Photometric, samples: int, bits: int, *, planes: int) -> None:
    """Whether tiles that libvips cannot read can be decoded one by one. Raises `Unsupported`."""
    is_ycbcr = photometric is Photometric.YCBCR and planes == 1  # then decoded tiles are RGB
    colours = JOINABLE.get(Photometric.RGB if is_ycbcr else photometric, 0)
    if bits not in (8, 16) or not colours or not colours <= samples <= colours + 1:
        raise Unsupported(
            f"the TIFF keeps {samples} samples of {bits} bits, colour model {photometric.name}, in {what}; "
            "re-encode with interleaved samples as JPEG or deflate"
        )


def _index(directory: Directory, tag: Tag) -> TileList:
    entry = directory.fields.get(tag)
    if entry is None:
        raise Unsupported(f"the TIFF directory has no {tag.name}")
    return TileList.of(directory, entry)
