"""What is known of a TIFF master: its levels, and the tiles that any part of it needs."""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import attrgetter

from special.errors import Malformed, Unsupported
from special.formats.layout import Extract, Format, Layout, Piece, Stored, Tiling
from special.formats.levels import serves
from special.formats.parser import Parser
from special.formats.tiff import embedded_jpeg, empty_tile, serial, writer
from special.formats.tiff.ifd import Directory, Field
from special.formats.tiff.page import JPEG_BITS, Page
from special.formats.tiff.tags import COPIED, JPEG_2000, Compression, Photometric, SampleFormat, Tag
from special.geometry import Box, Frame, Orientation, Size, ceil_div
from special.storage import Span, coalesce

MAX_TRIED_BYTES = 4 << 20
"""Largest tile that is undone to see whether it is whole: some 10 ms."""
MAX_TILES = 16384
"""Most tiles of one request: a gigapixel in tiles of 256. Planning those takes a fifth of a second."""


@dataclass(frozen=True, slots=True)
class PyramidLevel:
    """A page, and how much smaller than the full picture it is."""

    page: Page
    factor: int
    """1 for the full picture, 2 for half, 4, 8, …"""


@dataclass(frozen=True, slots=True)
class TiffRecipe:
    """The recipe of an `Extract`: which tiles, and where their bytes are among what was read."""

    tiles: Box
    """In the level's tile grid."""
    crop: Frame
    """The wanted part, in pixels of the rebuilt picture."""
    wanted: tuple[Span | None, ...]
    """One for each tile, plane after plane, each row by row."""
    profile: Span | None
    """A colour profile that was too long to be read with the headers."""
    short: frozenset[int]
    """Which of the tiles the file ends before or inside of."""


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """A TIFF whose tiles can be read one by one."""

    size_bytes: int
    """Length of the whole file."""
    pyramid: tuple[PyramidLevel, ...]
    """The full picture first, then ever smaller."""
    orientation: Orientation
    profile: Field | None
    """The colour profile (ICC) of the full picture, which holds for all levels."""
    fault: str = ""
    """What is wrong with the pages behind the full picture, in words."""

    @classmethod
    def of(cls, directories: Sequence[Directory], *, size_bytes: int, fault: str = "") -> TiffLayout:
        """The layout of the first picture among these pages.

        Raises `Malformed` or `Unsupported` where that picture cannot be shown; any other page
        that cannot be used as a level is left out.
        """
        base = next((page for page in directories if not page.is_reduced), directories[0])
        full = Page.of(base, size_bytes=size_bytes)
        pyramid = {1: PyramidLevel(full, 1)}
        is_nested = Tag.SUB_IFDS in directories[0].fields
        for directory in directories:
            try:
                level = level_of(directory, full, is_nested=is_nested, size_bytes=size_bytes)
            except (Malformed, Unsupported):
                continue
            if level is not None:
                pyramid.setdefault(level.factor, level)
        return cls(
            size_bytes,
            tuple(pyramid[factor] for factor in sorted(pyramid)),
            Orientation.of(base.hint(Tag.ORIENTATION, 1)),
            base.fields.get(Tag.ICC_PROFILE),
            fault,
        )

    @property
    def format(self) -> Format:
        return "tiff"

    @property
    def density(self) -> float | None:
        return self.full.directory.density

    @property
    def full(self) -> Page:
        """The page of the full picture."""
        return self.pyramid[0].page

    @property
    def size(self) -> Size:
        return self.orientation.upright(self.full.size)

    @property
    def levels(self) -> tuple[Size, ...]:
        return tuple(self.orientation.upright(level.page.size) for level in self.pyramid)

    @property
    def tiling(self) -> Tiling | None:
        """The grid of all levels that have the full picture's; None for strips, or where one tile holds everything."""
        full = self.full
        if not full.tiled or full.columns * full.rows == 1:
            return None
        alike = [level.factor for level in self.pyramid if level.page.tiled and level.page.tile == full.tile]
        return Tiling(self.orientation.upright(full.tile), tuple(alike))

    @property
    def has_color(self) -> bool:
        full = self.full
        if full.photometric is Photometric.PALETTE:
            third = len(colors := full.directory.numbers(Tag.COLOR_MAP)) // 3
            return not colors[:third] == colors[third : 2 * third] == colors[2 * third :]
        return full.photometric not in (Photometric.MIN_IS_WHITE, Photometric.MIN_IS_BLACK)

    @property
    def advice(self) -> tuple[str, ...]:
        full = self.full
        found = [f"The pages behind the first are not read: {self.fault}."] if self.fault else []
        if not full.tiled and full.size.width > 2 * 512:
            found.append(
                f"Stored in strips of {full.tile.height} rows: a tile needs every strip it touches, "
                "in full width. Re-encode with tiles of 256 or 512."
            )
        if full.size.long_side > 1024 and len(self.pyramid) == 1:
            found.append("No smaller levels: small sizes need all of it. Re-encode as a pyramid.")
        if full.planes > 1:
            found.append(
                f"Samples are stored apart ({full.planes} planes): a tile is read in {full.planes} places. "
                "Re-encode with interleaved samples."
            )
        if full.compression in JPEG_2000:
            found.append(
                "Tiles are JPEG 2000: each takes some ten times as long to decode as JPEG, and none is sent as it is "
                "stored. Re-encode as JPEG where loss is allowed."
            )
        has_range = Tag.S_MAX_SAMPLE_VALUE in full.directory.fields
        if full.sample_format is SampleFormat.FLOAT and not has_range:
            found.append(
                "Samples are fractions without a range: 0 is shown black, 1 white, and all beyond is cut off. "
                "Write SMinSampleValue and SMaxSampleValue where they mean something else."
            )
        if self.profile is not None and self.profile.raw is None:
            found.append(
                f"A colour profile of {self.profile.size_bytes} bytes is read with every part. Convert to sRGB."
            )
        return tuple(found)

    def prepare(self, box: Box, size: Size) -> Parser[Layout] | None:
        number, frame = self._level(box, size)
        page = self.pyramid[number].page
        runs = page.numbers(_bounded(page, page.covering(frame)))
        if page.offsets.missing(runs) or page.counts.missing(runs):
            return self._prepared(number, runs)
        return None

    def extract(self, box: Box, size: Size) -> Extract:
        number, frame = self._level(box, size)
        page = self.pyramid[number].page
        tiles = _bounded(page, page.covering(frame))
        area = page.area(tiles)
        crop = Frame(frame.x - area.x, frame.y - area.y, frame.width, frame.height)
        promised = [page.span(tile) for run in page.numbers(tiles) for tile in run]
        wanted = tuple(self._inside(span) for span in promised)
        short = frozenset(number for number, span in enumerate(wanted) if span != promised[number])
        profile = self.profile.span if self.profile is not None and self.profile.raw is None else None
        spans = coalesce([span for span in (*wanted, profile) if span is not None], max_gap_bytes=0)
        return Extract(
            spans=tuple(spans),
            level=number,
            pixels=tiles.width * page.tile.width * tiles.height * page.tile.height,
            recipe=TiffRecipe(tiles, crop, wanted, profile, short),
            components=_components(page) if page.is_unpacked else 1,
        )

    def rebuild(self, extract: Extract, parts: Sequence[bytes]) -> Piece:
        assert isinstance(extract.recipe, TiffRecipe), "an extract goes back to the layout that made it"
        if [len(part) for part in parts] != [len(span) for span in extract.spans]:
            raise Malformed("the parts that were read are not as long as the spans that were asked for")
        recipe, page = extract.recipe, self.pyramid[extract.level].page
        joined = _Joined.of(extract.spans)
        filler = _filler(page) if recipe.short or None in recipe.wanted else b""
        # libtiff finds the subsampling in JPEG tiles, if no field says another one.
        is_left_out = page.compression is Compression.JPEG and not filler
        tags = COPIED - {Tag.YCBCR_SUB_SAMPLING} if is_left_out else COPIED
        copied = [page.directory.fields[tag] for tag in tags & page.directory.fields.keys()]
        if self.profile is not None:
            copied.append(
                self.profile if recipe.profile is None else self.profile._replace(raw=joined.cut(recipe.profile, parts))
            )
        unwritten = (joined.size_bytes, len(filler)) if filler else (0, 0)
        places = [joined.place(span) if span is not None else unwritten for span in recipe.wanted]
        at = joined.size_bytes + len(filler)
        changed, more, missing = self._completed(page, recipe, parts, joined, unwritten, at)
        data = writer.rebuild_page(
            page.directory.order,
            copied,
            size=page.area(recipe.tiles).size,
            tile=page.tile,
            tiled=page.tiled,
            places=[changed.get(number, place) for number, place in enumerate(places)],
            data=[*parts, filler, *more],
        )
        incomplete = f"{len(recipe.short)} of {len(places)} tiles are not whole in the file" if recipe.short else ""
        return Piece(data, "tiff", recipe.crop, orientation=self.orientation, incomplete=incomplete, missing=missing)

    def _completed(
        self,
        page: Page,
        recipe: TiffRecipe,
        parts: Sequence[bytes],
        joined: _Joined,
        unwritten: tuple[int, int],
        at: int,
    ) -> tuple[dict[int, tuple[int, int]], list[bytes], tuple[Box, ...]]:
        """For the tiles that the file ends in: their places, filled up from byte `at` on; that data; what is missing.

        Of a tile that is not compressed the rows that are there are kept. One that ends where its compression says is
        whole, whatever length it was given; any other counts as never written.
        """
        places: dict[int, tuple[int, int]] = {}
        more: list[bytes] = []
        missing: list[Box] = []
        first = page.area(recipe.tiles)
        for number in sorted(recipe.short):
            span, place = recipe.wanted[number], unwritten
            row, column = divmod(number % recipe.tiles.size.area, recipe.tiles.width)
            box, rows = page.area(Box(recipe.tiles.x + column, recipe.tiles.y + row, 1, 1)), 0
            if span is not None and _has_its_end(page, joined.cut(span, parts)):
                rows, place = box.height, joined.place(span)
            elif span is not None and page.compression is Compression.NONE:
                body = joined.cut(span, parts).ljust(page.row_bytes * (page.tile if page.tiled else box).height, b"\0")
                rows, place = len(span) // page.row_bytes, (at, len(body))
                more.append(body)
                at += len(body)
            places[number] = place
            if rows < box.height and page.is_shown(number // recipe.tiles.size.area):
                missing.append(Box(box.x - first.x, box.y - first.y + rows, box.width, box.height - rows))
        return places, more, tuple(missing)

    def complete(self) -> Parser[Layout] | None:
        return None

    def distrusted(self, reason: str) -> Layout | None:
        return None

    def stored(self, box: Box, size: Size) -> Stored | None:
        for level in self.pyramid:
            page, step = level.page, Size(size.width * level.factor, size.height * level.factor)
            if size == page.tile and box.size == step and page.tiled and self.orientation is Orientation.UPRIGHT:
                tile = Box(box.x // step.width, box.y // step.height, 1, 1)
                aligned = not (box.x % step.width or box.y % step.height)
                padded = tile.right * size.width > page.size.width or tile.bottom * size.height > page.size.height
                if not aligned or padded:
                    return None
                span = page.span(tile.y * page.columns + tile.x)
                if span is None or span.stop > self.size_bytes:
                    return None
                return embedded_jpeg.stored(page, span, self.profile)
        return None

    def dump(self) -> bytes:
        directories = [level.page.directory for level in self.pyramid]
        return serial.dump(directories, size_bytes=self.size_bytes, fault=self.fault)

    def _level(self, box: Box, size: Size) -> tuple[int, Frame]:
        """The number of the smallest level that serves, and the box in its pixels."""
        turned = size.turned if self.orientation.swaps_sides else size
        box = self.orientation.to_stored(box, self.full.size)
        number = max((n for n, level in enumerate(self.pyramid) if serves(box, level.factor, turned)), default=0)
        level = self.pyramid[number]
        return number, Frame.of(box, 1 / level.factor, 1 / level.factor).within(level.page.size)

    def _inside(self, span: Span | None) -> Span | None:
        """What the file has of a tile."""
        if span is None or span.stop <= self.size_bytes:
            return span
        return Span(span.start, self.size_bytes) if span.start < self.size_bytes else None

    def _prepared(self, number: int, runs: Sequence[range]) -> Parser[Layout]:
        level = self.pyramid[number]
        lists = (level.page.offsets, level.page.counts)
        missing = [sorted(index.missing(runs)) for index in lists]
        parts = iter(
            (yield [index.span(chunk) for index, chunks in zip(lists, missing, strict=True) for chunk in chunks])
        )
        offsets, counts = (
            index.with_chunks({chunk: next(parts) for chunk in chunks})
            for index, chunks in zip(lists, missing, strict=True)
        )
        fuller = PyramidLevel(replace(level.page, offsets=offsets, counts=counts), level.factor)
        return replace(self, pyramid=(*self.pyramid[:number], fuller, *self.pyramid[number + 1 :]))


@dataclass(frozen=True, slots=True)
class _Joined:
    """The offsets of the file's bytes among the joined parts that were read."""

    spans: Sequence[Span]
    """Sorted, and apart from each other."""
    starts: Sequence[int]
    """Where each one's bytes start in the joined parts."""

    @classmethod
    def of(cls, spans: Sequence[Span]) -> _Joined:
        return cls(spans, list(accumulate((len(span) for span in spans), initial=0)))

    @property
    def size_bytes(self) -> int:
        """Length of the joined parts."""
        return self.starts[-1]

    def place(self, span: Span) -> tuple[int, int]:
        """Offset and length among the joined parts."""
        number = bisect_right(self.spans, span.start, key=attrgetter("start")) - 1
        return self.starts[number] + span.start - self.spans[number].start, len(span)

    def cut(self, span: Span, parts: Sequence[bytes]) -> bytes:
        """A span's bytes out of the parts."""
        number = bisect_right(self.spans, span.start, key=attrgetter("start")) - 1
        start = span.start - self.spans[number].start
        return parts[number][start : start + len(span)]


def _has_its_end(page: Page, body: bytes) -> bool:
    """Whether what there is of a compressed tile is all of it, where its data tells.

    Deflate is undone for that, as far as a tile of at most `MAX_TRIED_BYTES` goes.
    """
    if page.compression is Compression.JPEG:
        return embedded_jpeg.EOI in body
    tile_bytes = page.row_bytes * page.tile.height
    if page.compression not in (Compression.DEFLATE, Compression.ADOBE_DEFLATE) or tile_bytes > MAX_TRIED_BYTES:
        return False
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(body, tile_bytes + 1)
    except zlib.error:
        return False
    return inflate.eof


def _components(page: Page) -> int:
    """For how many samples of 8 bits memory is needed: those stored, those in numbers for a while, and those shown."""
    stored_bytes = ceil_div(page.bits, 8)
    return page.samples * (2 * stored_bytes + (2 if page.bits <= 8 else 10)) // 2


def _filler(page: Page) -> bytes:
    """The data in place of a tile that was never written; nothing where the decoder makes it up itself."""
    if page.compression is not Compression.JPEG or page.bits != JPEG_BITS:
        return b""
    across, down = (*page.directory.numbers(Tag.YCBCR_SUB_SAMPLING), 2, 2)[:2]  # the default, TIFF 6.0 section 21
    if not {across, down} <= {1, 2, 4}:
        raise Malformed(f"the TIFF says its colours are subsampled by {across}×{down}; 1, 2 and 4 are possible")
    samples = page.samples // page.planes
    is_ycbcr = page.photometric is Photometric.YCBCR
    return empty_tile.empty_jpeg_tile(page.tile, samples=samples, subsampling=(across, down), is_ycbcr=is_ycbcr)


def _factor(directory: Directory, full: Size) -> int | None:
    """How many times smaller a page is than the full picture; None if by no power of two.

    Halves may have been rounded down (libvips), up (OpenSlide's writers) or to the nearest.
    """
    width, height = directory.number(Tag.IMAGE_WIDTH, 0), directory.number(Tag.IMAGE_LENGTH, 0)
    if not (width and height):
        return None
    factor = 1 << max(0, round(math.log2(max(full.width / width, full.height / height))))
    halves = all(
        side in (whole // factor, ceil_div(whole, factor))
        for side, whole in ((width, full.width), (height, full.height))
    )
    return factor if halves and factor > 1 else None


def level_of(directory: Directory, full: Page, *, is_nested: bool, size_bytes: int) -> PyramidLevel | None:
    """The smaller level of a picture that a directory is; None for another picture. Raises as `Page.of` does."""
    factor = _factor(directory, full.size)
    page = Page.of(directory, size_bytes=size_bytes) if factor is not None else None
    return PyramidLevel(page, factor) if factor and page and _is_level(page, full, is_nested=is_nested) else None


def _is_level(page: Page, full: Page, *, is_nested: bool) -> bool:
    """Whether a page of the right size shows the full picture, and not another one.

    A page that is a sub-directory, or that says it is reduced, does; one that says it is a page of a document does
    not. Where nothing is said, it must be stored in the same way.
    """
    if (page.samples, page.bits) != (full.samples, full.bits) or page.directory.is_other_page:
        return False
    if is_nested or page.directory.is_reduced or full.directory.is_reduced:
        return True
    return (page.tiled, page.photometric, page.compression) == (full.tiled, full.photometric, full.compression)


def _bounded(page: Page, tiles: Box) -> Box:
    """The same tiles, unless planning for that many would itself be slow: then raises `Unsupported`."""
    if tiles.size.area * page.planes > MAX_TILES:
        raise Unsupported(
            f"this needs {tiles.size.area * page.planes} tiles of {page.tile} pixels at once, more than {MAX_TILES}; "
            "ask for a smaller region, or re-encode the master with smaller levels"
        )
    return tiles
