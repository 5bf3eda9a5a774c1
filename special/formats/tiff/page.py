"""One page of a TIFF: its pixels' grid of tiles (or strips), and whether they can be decoded.

A strip is a tile as wide as the picture; only the last one may be lower than the others.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from special.errors import Malformed, Unsupported
from special.formats.extras import require_extra
from special.formats.levels import checked
from special.formats.tiff.ifd import EAGER_INDEX_BYTES, Directory, Field, first_directory
from special.formats.tiff.tags import (
    BEYOND_LIBVIPS,
    BYTES,
    CCITT,
    COLOUR_SAMPLES,
    COMPRESSIONS,
    COPIED,
    IMAGECODECS,
    JOINABLE,
    JPEG_2000,
    LAB,
    NUMBERS,
    OLD_JPEG,
    PHOTOMETRICS,
    PREDICTED,
    REFUSED_COMPRESSIONS,
    REFUSED_PHOTOMETRICS,
    WIDTHS,
    Compression,
    Photometric,
    SampleFormat,
    Tag,
    Type,
)
from special.geometry import Box, Frame, Size, ceil_div
from special.storage import Span

MAX_JPEG_SIDE = 65535
"""ITU-T T.81 section B.2.2: sides have 16 bits."""
JPEG_BITS, DEEP_JPEG_BITS = 8, 12
"""Depths of JPEG: what all decoders take, and what imagecodecs decodes too."""
MAX_SAMPLES = 64
DEPTHS: dict[int, tuple[int, ...]] = {
    SampleFormat.UNSIGNED: (*range(1, 17), 32),
    SampleFormat.SIGNED: (8, 16, 32),
    SampleFormat.FLOAT: (16, 32, 64),
}
"""Bits of samples that are read, by their format."""
DEPTHS_OF = {
    Photometric.PALETTE: (1, 2, 4, 8),
    Photometric.YCBCR: (8, 16),
    Photometric.CIELAB: (8, 16),
    Photometric.ICCLAB: (8, 16),
}
"""Bits of samples, unsigned, of colour models in which no others are read."""
DEEP_JPEG_SAMPLES = frozenset({1, 3})
DEEP_JPEG_MODELS = frozenset({Photometric.MIN_IS_WHITE, Photometric.MIN_IS_BLACK, Photometric.RGB, Photometric.YCBCR})
"""Samples of a tile, and colour models, in which JPEG of 12 bits is decoded."""
OPACITIES = frozenset({1, 2})
"""Values of ExtraSamples that are opacity, multiplied with the colours and not (TIFF 6.0 section 18)."""
COREL_OPACITY = 999
"""What Corel's programs write for opacity there."""
SINGLE = (
    Tag.COMPRESSION,
    Tag.PHOTOMETRIC,
    Tag.FILL_ORDER,
    Tag.SAMPLES_PER_PIXEL,
    Tag.PLANAR_CONFIGURATION,
    Tag.PREDICTOR,
)
"""Fields of one value: where there are more, the first one counts."""
MISREAD_IN_PLANES = frozenset({Photometric.MIN_IS_BLACK, Photometric.MIN_IS_WHITE, Photometric.YCBCR})
"""Colour models that libvips takes for others where samples are in strips of their own."""
SUBSAMPLINGS = frozenset({1, 2, 4})
"""What YCbCrSubSampling may be (TIFF 6.0 section 21)."""
OLD_PLACES = frozenset(
    {
        Tag.STRIP_OFFSETS,
        Tag.STRIP_BYTE_COUNTS,
        Tag.ROWS_PER_STRIP,
        Tag.JPEG_TABLES,
        Tag.JPEG_PROC,
        Tag.JPEG_INTERCHANGE_FORMAT,
        Tag.JPEG_INTERCHANGE_FORMAT_LENGTH,
    }
)
"""What a page in old-style JPEG says of its pixels' places."""
SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "fractions", 5: "complex integers", 6: "complex fractions"}
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
    sample_format: SampleFormat
    planes: int
    """How many times the grid is stored: once, or once for each sample."""
    offsets: TileList
    """Where each tile starts, plane after plane, each row by row."""
    counts: TileList
    """How many bytes each tile has; none for one that was never written."""

    @classmethod
    def of(cls, directory: Directory, *, size_bytes: int) -> Page:
        """The page that a directory of a file of `size_bytes` describes.

        Raises `Malformed`, or `Unsupported` by name.
        """
        directory = _completed(_with_one_jpeg(directory, end=size_bytes))
        size = _size(directory, Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH)
        samples = directory.number(Tag.SAMPLES_PER_PIXEL)
        bits = directory.numbers(Tag.BITS_PER_SAMPLE) or (1,)
        compression, photometric = _compression(directory), _photometric(directory)
        sample_format = _sample_format(directory, samples, bits)
        tiled = Tag.TILE_WIDTH in directory.fields
        if tiled:
            tile = _size(directory, Tag.TILE_WIDTH, Tag.TILE_LENGTH)
        else:
            rows = directory.number(Tag.ROWS_PER_STRIP, size.height)
            tile = Size(size.width, min(rows, size.height) or size.height)
        planar = directory.number(Tag.PLANAR_CONFIGURATION, 1)
        if planar not in (1, 2):
            raise Unsupported(f"TIFF planar configuration {planar} is not known; 1 and 2 are")
        planes = samples if planar == 2 else 1
        row_bytes = ceil_div(tile.width * (samples // planes) * bits[0], 8)
        directory, offsets, counts = _places(
            directory,
            tiled,
            tile_bytes=row_bytes * tile.height if compression is Compression.NONE else 0,
            end=size_bytes,
        )
        page = cls(
            directory,
            size,
            tile,
            tiled,
            compression,
            photometric,
            samples,
            bits[0],
            sample_format,
            planes,
            offsets,
            counts,
        )
        _check_shown(page)
        for entry in directory.fields.values():
            if entry.raw is None and entry.tag in COPIED:
                raise Malformed(f"{Tag(entry.tag).name} is {entry.size_bytes} bytes long")
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

    def is_shown(self, plane: int) -> bool:
        """Whether anything of a plane is shown: not if it holds a sample that is neither colour nor opacity."""
        extra = plane - COLOUR_SAMPLES[self.photometric]
        return extra < 0 or (*self.directory.numbers(Tag.EXTRA_SAMPLES)[extra:], 0)[0] in OPACITIES

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a tile that is not compressed."""
        return ceil_div(self.tile.width * (self.samples // self.planes) * self.bits, 8)

    @property
    def is_unpacked(self) -> bool:
        """Whether its samples are unpacked one by one: as they are stored, libvips refuses or misreads them."""
        if self.compression in BEYOND_LIBVIPS or (
            self.planes > 1
            and (self.tiled or self.photometric in MISREAD_IN_PLANES)
            and self.compression not in JPEG_2000
        ):
            return True
        if self.compression is Compression.JPEG:
            if self.bits != JPEG_BITS:
                return True
            has_extra = self.samples in (2, 4) and self.photometric is not Photometric.SEPARATED
            return has_extra or self.photometric in LAB
        return self.compression in BYTES and (
            self.sample_format is not SampleFormat.UNSIGNED
            or self.bits not in (1, 2, 4, 8, 16)
            or self.photometric in LAB
            or (self.tiled and bool(self.tile.width % 16 or self.tile.height % 16))
            or (self.samples > 1 and (self.bits < 8 or self.photometric is Photometric.PALETTE))
            or (self.samples > 3 and self.photometric is Photometric.YCBCR)
        )

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
    return Page.of(first_directory(data), size_bytes=len(data))


def _size(directory: Directory, width_tag: Tag, height_tag: Tag) -> Size:
    return checked("TIFF directory", directory.number(width_tag), directory.number(height_tag))


def _compression(directory: Directory) -> Compression:
    code = directory.number(Tag.COMPRESSION, Compression.NONE)
    compression = COMPRESSIONS.get(code)
    if compression is None:
        name = REFUSED_COMPRESSIONS.get(code, "an unknown one")
        raise Unsupported(f"TIFF compression {code} ({name}) is not decoded here; re-encode as JPEG or deflate")
    if compression in IMAGECODECS:
        require_extra("imagecodecs", f"TIFF compression {code} ({compression.name})")
    return compression


def _photometric(directory: Directory) -> Photometric:
    code = directory.number(Tag.PHOTOMETRIC, Photometric.MIN_IS_BLACK)
    photometric = PHOTOMETRICS.get(code)
    if photometric is None:
        name = REFUSED_PHOTOMETRICS.get(code, "an unknown one")
        raise Unsupported(f"TIFF colour model {code} ({name}) is not shown here; re-encode as RGB or grey")
    return photometric


def _with_one_jpeg(directory: Directory, *, end: int) -> Directory:
    """The directory of a page in old-style JPEG as one tile of JPEG, where all of it is one stream (section 22).

    As it is where the strips have no headers of their own and are elsewhere: that is refused by its compression.
    """
    if directory.number(Tag.COMPRESSION, Compression.NONE) != OLD_JPEG or directory.hint(Tag.JPEG_PROC, 1) != 1:
        return directory
    start = directory.hint(Tag.JPEG_INTERCHANGE_FORMAT, 0)
    stop = start + directory.hint(Tag.JPEG_INTERCHANGE_FORMAT_LENGTH, 0)
    offsets = directory.numbers(Tag.STRIP_OFFSETS) or directory.numbers(Tag.TILE_OFFSETS)
    lengths = directory.numbers(Tag.STRIP_BYTE_COUNTS) or directory.numbers(Tag.TILE_BYTE_COUNTS)
    if len(offsets) == len(lengths) == 1 and start <= offsets[0] <= stop:  # some leave the pixels out of the length
        stop = max(stop, offsets[0] + lengths[0])
    if not start or not all(start <= at < stop for at in offsets):
        return directory
    fields = {tag: entry for tag, entry in directory.fields.items() if tag not in OLD_PLACES}
    size = _size(directory, Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH)
    fields[Tag.COMPRESSION] = Field(
        Tag.COMPRESSION, Type.SHORT, 1, 0, struct.pack(directory.order + "H", Compression.JPEG)
    )
    new = {
        Tag.TILE_WIDTH: size.width,
        Tag.TILE_LENGTH: size.height,
        Tag.TILE_OFFSETS: start,
        Tag.TILE_BYTE_COUNTS: min(stop, end) - start,
    }
    for tag, number in new.items():
        fields[tag] = Field(tag, Type.LONG8, 1, 0, struct.pack(directory.order + "Q", number))
    return Directory(directory.order, fields)


def _completed(directory: Directory) -> Directory:
    """The directory with fields that some writers leave out or get wrong, and that libtiff would guess or demand."""
    fields = dict(directory.fields)

    def add(tag: Tag, *numbers: int) -> None:
        packed = struct.pack(f"{directory.order}{len(numbers)}H", *numbers)
        fields[tag] = Field(tag, Type.SHORT, len(numbers), 0, packed)

    for tag in SINGLE:
        entry = fields.get(tag)
        if entry is not None and entry.values > 1 and entry.raw is not None:
            fields[tag] = entry._replace(values=1, raw=entry.raw[: WIDTHS[entry.type]])
    if directory.hint(Tag.FILL_ORDER, 1) != 2:
        fields.pop(Tag.FILL_ORDER, None)  # from the highest bit on is the default

    if not {int(SampleFormat.UNSIGNED), 4}.isdisjoint(directory.numbers(Tag.SAMPLE_FORMAT)):
        del fields[Tag.SAMPLE_FORMAT]  # unsigned is the default
    if Tag.SAMPLES_PER_PIXEL not in fields:
        photometric = PHOTOMETRICS.get(directory.number(Tag.PHOTOMETRIC, Photometric.MIN_IS_BLACK))
        colours = COLOUR_SAMPLES[photometric] if photometric is not None else 1
        add(Tag.SAMPLES_PER_PIXEL, max(colours, len(directory.numbers(Tag.BITS_PER_SAMPLE))))
    if Tag.PHOTOMETRIC not in fields:
        completed = Directory(directory.order, fields)
        is_fax = directory.number(Tag.COMPRESSION, Compression.NONE) in CCITT
        has_color = completed.number(Tag.SAMPLES_PER_PIXEL) >= 3
        single = Photometric.PALETTE if Tag.COLOR_MAP in fields else Photometric.MIN_IS_BLACK
        add(Tag.PHOTOMETRIC, Photometric.RGB if has_color else Photometric.MIN_IS_WHITE if is_fax else single)
    if Tag.EXTRA_SAMPLES in fields:
        kinds = _extra_samples(Directory(directory.order, fields))
        if not kinds:
            del fields[Tag.EXTRA_SAMPLES]
        elif kinds != directory.numbers(Tag.EXTRA_SAMPLES):
            add(Tag.EXTRA_SAMPLES, *kinds)
    return directory if fields == directory.fields else Directory(directory.order, fields)


def _extra_samples(directory: Directory) -> tuple[int, ...]:
    """What ExtraSamples says of samples that there are; what has no meaning counts as nothing said (section 18)."""
    if directory.fields[Tag.EXTRA_SAMPLES].type not in NUMBERS:
        return ()
    photometric = PHOTOMETRICS.get(directory.number(Tag.PHOTOMETRIC))
    colours = COLOUR_SAMPLES[photometric] if photometric is not None else 0
    kinds = directory.numbers(Tag.EXTRA_SAMPLES)[: max(0, directory.number(Tag.SAMPLES_PER_PIXEL) - colours)]
    return tuple(kind if kind in OPACITIES else 2 if kind == COREL_OPACITY else 0 for kind in kinds)


def _sample_format(directory: Directory, samples: int, bits: tuple[int, ...]) -> SampleFormat:
    if not 1 <= samples <= MAX_SAMPLES or len(set(bits)) != 1 or len(bits) > samples:
        raise Unsupported(
            f"{samples} TIFF samples of {', '.join(map(str, bits[:8]))} bits; "
            f"1 to {MAX_SAMPLES} can be read, and all must be of one depth"
        )
    formats = set(directory.numbers(Tag.SAMPLE_FORMAT)) or {SampleFormat.UNSIGNED}
    if len(formats) > 1 or bits[0] not in DEPTHS.get(min(formats), ()):
        kinds = ", ".join(SAMPLE_FORMATS.get(kind, f"of the unknown format {kind}") for kind in sorted(formats))
        raise Unsupported(
            f"TIFF samples of {bits[0]} bits that are {kinds} are not read here; re-encode in 8 or 16 bits"
        )
    return SampleFormat(min(formats))


def _check_shown(page: Page) -> None:
    """Raise `Unsupported` for combinations that no decoder here reads, so that they are refused by their headers."""
    samples, bits, compression, photometric = page.samples, page.bits, page.compression, page.photometric
    if samples < COLOUR_SAMPLES[photometric]:
        raise Unsupported(f"a TIFF of {samples} samples in the colour model {photometric.name}, which takes more")
    if photometric is Photometric.SEPARATED and page.directory.number(Tag.INK_SET, 1) == 2:
        raise Unsupported("the TIFF holds inks other than CMYK (InkSet 2); re-encode as RGB or CMYK")
    is_deep_jpeg = compression is Compression.JPEG and bits == DEEP_JPEG_BITS and photometric not in LAB
    is_plain = page.sample_format is SampleFormat.UNSIGNED and (
        is_deep_jpeg or bits in DEPTHS_OF.get(photometric, (bits,))
    )
    if not is_plain and photometric in DEPTHS_OF:
        raise Unsupported(f"TIFF samples of {bits} bits in the colour model {photometric.name} are not shown here")
    if compression in JPEG_2000:
        _check_joinable("JPEG 2000 tiles", photometric, samples, bits, planes=page.planes)
    elif compression in CCITT and (bits, samples) != (1, 1):
        raise Unsupported(f"{samples} TIFF samples of {bits} bits, compressed as fax; only one of 1 bit can be read")
    elif is_deep_jpeg and is_plain and samples // page.planes in DEEP_JPEG_SAMPLES and photometric in DEEP_JPEG_MODELS:
        require_extra("imagecodecs", "JPEG of 12 bits in a TIFF")
    elif compression in IMAGECODECS and bits % 8:
        raise Unsupported(f"TIFF samples of {bits} bits in {compression.name} are not read here; whole bytes are")
    elif compression is Compression.WEBP and photometric in LAB:
        raise Unsupported(f"a TIFF in {photometric.name}, compressed as WebP, is not shown here; re-encode as RGB")
    elif compression in (Compression.JPEG, Compression.WEBP) and (bits != JPEG_BITS or not is_plain or samples > 4):
        raise Unsupported(f"{samples} TIFF samples of {bits} bits in {compression.name}; up to 4 of 8 bits can be read")
    elif compression is Compression.JPEG and photometric is Photometric.PALETTE:
        raise Unsupported("a TIFF with a palette in JPEG is not shown here; re-encode with deflate")
    subsampling = page.directory.numbers(Tag.YCBCR_SUB_SAMPLING) or (2, 2)
    is_jpeg = compression is Compression.JPEG
    is_converted = is_deep_jpeg and page.planes == 1
    if (
        page.is_unpacked
        and photometric is Photometric.YCBCR
        and not is_converted
        and (is_jpeg or subsampling != (1, 1))
    ):
        raise Unsupported(
            f"YCbCr of {samples} samples, subsampled by {'×'.join(map(str, subsampling))}, in {compression.name} "
            "is not shown here; re-encode as RGB"
        )
    predictor = page.directory.number(Tag.PREDICTOR, 1)
    if compression in PREDICTED and predictor != 1:
        is_float = page.sample_format is SampleFormat.FLOAT
        if predictor not in (2, 3) or bits not in (8, 16, 32, 64) or (predictor == 3 and not is_float):
            raise Unsupported(f"TIFF predictor {predictor} of samples of {bits} bits is not undone here")
    if photometric is Photometric.PALETTE:
        palette = page.directory.fields.get(Tag.COLOR_MAP)
        if palette is None or palette.values != 3 << bits:
            raise Malformed(
                f"the TIFF has a palette of {palette.values if palette else 0} values; {bits} bits need {3 << bits}"
            )
    if photometric is Photometric.YCBCR and compression not in JPEG_2000 and not SUBSAMPLINGS.issuperset(subsampling):
        raise Malformed(f"the TIFF has YCbCr subsampled by {'×'.join(map(str, subsampling))}; 1, 2 and 4 exist")


def _check_joinable(what: str, photometric: Photometric, samples: int, bits: int, *, planes: int) -> None:
    """Whether tiles that libvips cannot read can be decoded one by one. Raises `Unsupported`."""
    is_ycbcr = photometric is Photometric.YCBCR and planes == 1  # then decoded tiles are RGB
    colours = JOINABLE.get(Photometric.RGB if is_ycbcr else photometric, 0)
    if bits not in (8, 16) or not colours or not colours <= samples <= colours + 1:
        raise Unsupported(
            f"the TIFF keeps {samples} samples of {bits} bits, colour model {photometric.name}, in {what}; "
            "re-encode with interleaved samples as JPEG or deflate"
        )


def _places(directory: Directory, tiled: bool, *, tile_bytes: int, end: int) -> tuple[Directory, TileList, TileList]:
    """Where tiles are and how long they are, and the directory with their lengths where it had none.

    Those are of `tile_bytes` or, where that is 0, reach to the next tile or to the end of the file.
    """
    places = [(Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS), (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS)]
    # Some writers list tiles as strips, and libtiff takes the ones for the others.
    is_listed = places[tiled][0] in directory.fields or places[not tiled][0] not in directory.fields
    offsets_tag, counts_tag = places[tiled if is_listed else not tiled]
    entry, listed = directory.fields.get(offsets_tag), directory.fields.get(counts_tag)
    if entry is None:
        raise Malformed(f"the TIFF directory has no {offsets_tag.name}")
    offsets = TileList.of(directory, entry)
    is_zero = listed is not None and listed.raw is not None and not any(listed.raw)
    if (listed is None or is_zero) and entry.raw is not None and any(entry.raw):
        starts = offsets.known()
        edges = sorted({*starts, end})
        following = dict(pairwise(edges))
        lengths = [
            min(tile_bytes or end, max(0, following.get(start, end) - start)) if start else 0 for start in starts
        ]
        raw = struct.pack(f"{directory.order}{len(lengths)}Q", *lengths)
        listed = Field(counts_tag, Type.LONG8, len(lengths), 0, raw)
        directory = Directory(directory.order, {**directory.fields, counts_tag: listed})
    if listed is None:
        raise Malformed(f"the TIFF directory has no {counts_tag.name}")
    return directory, offsets, TileList.of(directory, listed)
