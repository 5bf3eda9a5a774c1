"""A large flat master to all tiles of its pyramid: decoded once, from top to bottom, in bounded memory.

What is compressed as one stream (PNG, JPEG), or has no smaller levels (a flat TIFF), takes a whole decode for a small
view of all of it. So all levels are made of one decode, in a job that talks to its parent: it asks for the master's
bytes as it needs them, and hands over tiles as soon as their rows are there. Each level is made of the one that is
twice as large on each side, whose rows are forgotten when both that level's tiles and the next rows are made.

A JPEG may be read twice, where its codec can shrink it: then the small levels, which viewers ask for first, are there
after a third of the time.

A tile of the full size, and of half of it, is what `render` makes of a piece of its own; at smaller sizes `render`
averages blocks of pixels at once where these halve step by step, which differs by rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import pyvips
from PIL import Image as PillowImage

from special import machine
from special.codecs import colour, deep_jpeg, jpeg, vips
from special.codecs import raster as rasters
from special.codecs.decode import check_size, decode
from special.codecs.encode import Encoding
from special.codecs.raster import Raster, VipsImage, cut, from_vips
from special.codecs.resample import resample
from special.codecs.tile_cutter import check_profile, encode_tile
from special.errors import Malformed, Unsupported
from special.formats import Format
from special.formats.tiff import Grid, Place
from special.geometry import Box, Frame, Orientation, Size

BAND_PIXELS: Final = 5_000_000
"""Number of pixels that are decoded at a time, about."""
READ_BYTES: Final = 4 << 20
"""Number of bytes that are asked for at a time."""
TILES_AT_ONCE: Final = 16
"""Maximum number of tiles that are handed over at a time."""


class Parent(Protocol):
    """The parent of the decoder process."""

    def ask(self, *numbers: int) -> Any:
        """Of a TIFF: `(y,)`, answered by a `Piece` of the whole width from row y on, at least one row high.

        Of others: `(start, stop)`, answered by the master's bytes.
        """
        ...

    def give(self, value: object, parts: Sequence[bytes]) -> None:
        """Tiles: `[level, column, row, count]` for each, and for each as many files as `encode_tile` gives."""
        ...


@dataclass(frozen=True, slots=True)
class FlatPicture:
    """A master that is decoded once for all tiles, and how they are made."""

    format: Format
    size_bytes: int
    stored: Size
    """In pixels, before it is turned upright."""
    orientation: Orientation
    tile: int
    """Length of a tile's sides."""
    encoding: Encoding
    """Of its JPEG."""
    max_pixels: int
    early_reduce: int = 0
    """A JPEG is decoded at 1/2**early_reduce first, for all smaller levels, and then whole; 0: it is decoded once."""

    @property
    def grid(self) -> Grid:
        """The tiles to make."""
        return Grid(self.orientation.upright(self.stored), self.tile)

    @property
    def band_rows(self) -> int:
        """Number of rows that are decoded at a time: a row of tiles where that is not too much."""
        return min(self.tile, max(16, BAND_PIXELS // self.stored.width))


def cut_pyramid(parent: Parent, picture: FlatPicture) -> int:
    """Give the parent all tiles of a picture; returns their number of channels, 1 or 3.

    Raises `Malformed` and `Unsupported`; the latter too for opacity, which a pyramid of JPEGs cannot hold, and for a
    profile that is to be kept.
    """
    with vips.reading(picture.format), ThreadPoolExecutor(machine.processors()) as threads:
        channels = 0
        for first, levels, bands in _passes(parent, picture):
            cutter = _Cutter(parent, picture, threads, first, levels)
            for band in bands:
                cutter.add(band)
            channels = cutter.finish()
        return channels


def _passes(parent: Parent, picture: FlatPicture) -> Iterator[tuple[int, range, Iterator[Raster]]]:
    """For each decode the level that it gives, those to make of it, and its rows as stored, in sRGB or grey."""
    count = picture.grid.levels
    if picture.format == "tiff":
        yield 0, range(count), _strips(parent, picture)
        return
    source = _Stream(parent, picture.size_bytes).source(picture.format)  # libvips does not keep it alive
    large = picture.early_reduce + 1  # as in `render`, a factor of two is left for the resize
    if picture.early_reduce and picture.format == "jpeg" and not isinstance(source, bytes) and large < count:
        yield picture.early_reduce, range(large, count), _streamed(source, picture, picture.early_reduce)
        source, count = _Stream(parent, picture.size_bytes).source(picture.format), large
    yield 0, range(count), _streamed(source, picture, 0)


def _streamed(source: bytes | pyvips.Source, picture: FlatPicture, reduce: int) -> Iterator[Raster]:
    opened = _open(source, picture, reduce)
    check_profile(opened, picture.encoding)
    yield from _rows(opened, Box(0, 0, opened.width, opened.height), picture.band_rows)


def _strips(parent: Parent, picture: FlatPicture) -> Iterator[Raster]:
    y = 0
    while y < picture.stored.height:
        piece = parent.ask(y)
        frame = piece.crop
        box = Box(round(frame.x), round(frame.y), round(frame.width), round(frame.height))
        decoded = decode(piece, max_pixels=picture.max_pixels)
        check_profile(decoded, picture.encoding)
        yield from _rows(decoded, box, picture.band_rows)
        y += box.height


def _rows(decoded: Raster | VipsImage, box: Box, count: int) -> Iterator[Raster]:
    # One region for all rows: libvips drops the lines that it has decoded in advance at the end of each evaluation.
    region = None if isinstance(decoded, np.ndarray) else pyvips.Region.new(decoded)
    for y in range(box.y, box.bottom, count):
        part = Box(box.x, y, box.width, min(count, box.bottom - y))
        if region is None:
            raster = cut(decoded, part)
        else:
            image = _fetched(region, decoded, part)
            raster = colour.from_inks(image) if colour.is_ink(image) else from_vips(colour.to_srgb(image))
        if rasters.has_alpha(raster):
            raise Unsupported("the picture has opacity, which a pyramid of JPEGs cannot hold")
        yield raster


def _fetched(region: pyvips.Region, of: VipsImage, part: Box) -> VipsImage:
    """A part of an image, decoded."""
    data = region.fetch(part.x, part.y, part.width, part.height)
    image = pyvips.Image.new_from_memory(data, part.width, part.height, of.bands, of.format)
    image = image.copy(interpretation=of.interpretation, coding=of.coding)
    return colour.with_profile(image, of.get(colour.ICC_FIELD)) if of.get_typeof(colour.ICC_FIELD) else image


def _open(source: bytes | pyvips.Source, picture: FlatPicture, reduce: int) -> VipsImage:
    """The picture at 1/2**reduce, to be decoded from top to bottom."""
    assert picture.format in ("jpeg", "png"), "the others are no streams"
    head = jpeg.read_head(source) if isinstance(source, bytes) else None
    if head is not None and head.is_deep:
        check_size(head.size, picture.max_pixels)
        image = deep_jpeg.decode(source, head)
    else:
        image = vips.load(source, picture.format, reduce=reduce)
    found, factor = Size(image.width, image.height), 1 << reduce
    check_size(found, picture.max_pixels)
    if found != Size(picture.stored.width // factor, picture.stored.height // factor):
        raise Malformed(f"the picture has {found} pixels, its headers said {picture.stored}")
    if not reduce:
        return image
    # libvips drops a last row or column that shrinking fills in part only; the one before is repeated.
    whole = picture.stored.reduced(reduce)
    return image.embed(0, 0, whole.width, whole.height, extend="copy")


@dataclass(slots=True)
class _Stream:
    """The master's bytes from first to last."""

    parent: Parent
    size_bytes: int
    at: int = 0
    held: bytes = b""
    """What was asked for last, from `held_at` on."""
    held_at: int = 0

    def source(self, kind: Format) -> bytes | pyvips.Source:
        """For libvips, which reads it in small steps; all bytes of a JPEG that it would hold as a whole anyhow."""
        if kind == "jpeg":
            self._hold(0)
            head = jpeg.read_head(self.held)
            if head is None or head.is_deep or not head.is_one_scan:
                data = b"".join(self.parent.ask(at, self._stop(at)) for at in range(0, self.size_bytes, READ_BYTES))
                jpeg.check_scans(data)
                return data
        source = pyvips.SourceCustom()
        source.on_read(self._read)
        return source

    def _read(self, size_bytes: int) -> bytes:
        if self.at >= self.size_bytes:
            return b""
        if not self.held_at <= self.at < self.held_at + len(self.held):
            self._hold(self.at)
        start = self.at - self.held_at
        data = self.held[start : start + size_bytes]
        self.at += len(data)
        return data

    def _hold(self, start: int) -> None:
        self.held, self.held_at = self.parent.ask(start, self._stop(start)), start

    def _stop(self, start: int) -> int:
        return min(start + READ_BYTES, self.size_bytes)


@dataclass(slots=True)
class _Rows:
    """The rows of one size that are still needed, in blocks as they came."""

    width: int
    height: int
    blocks: deque[Raster] = field(default_factory=deque)
    top: int = 0
    """The first row that is held."""
    bottom: int = 0
    """The first row that has not come yet."""
    halved: int = 0
    """The first row that is not in the next size yet."""

    def add(self, block: Raster) -> None:
        self.blocks.append(block)
        self.bottom += block.shape[0]

    @property
    def is_whole(self) -> bool:
        return self.bottom == self.height

    def window(self, start: int, stop: int) -> Raster:
        """Some rows: a view where they came in one block."""
        parts, y = [], self.top
        for block in self.blocks:
            if y < stop and start < y + block.shape[0]:
                parts.append(block[max(0, start - y) : stop - y])
            y += block.shape[0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def forget(self, before: int) -> None:
        while self.blocks and self.top + self.blocks[0].shape[0] <= before:
            self.top += self.blocks.popleft().shape[0]

    def halve(self) -> Raster | None:
        """The rows at half the size that are complete by now; None if there are none."""
        stop = self.bottom if self.is_whole else self.bottom - (self.bottom - self.halved) % 2
        if stop == self.halved:
            return None
        rows = self.window(self.halved, stop)
        self.halved = stop
        height, width, channels = rows.shape
        image = PillowImage.new("L" if channels == 1 else "RGB", (width, height), None)  # `fromarray` fills it first
        image.frombytes(np.ascontiguousarray(rows))
        halved = image.reduce(2)
        return np.asarray(halved).reshape(halved.height, halved.width, channels)


@dataclass(frozen=True, slots=True)
class _Tile:
    """A tile that is to be made."""

    place: Place
    part: Box
    """What it shows of the stored picture, in pixels of the full size."""
    size: Size
    """Its own, upright."""


@dataclass(slots=True)
class _Level:
    """A level whose tiles are being made, row by row."""

    number: int
    waiting: deque[list[_Tile]]
    """Those that are not made yet, by the rows of the stored picture that they show."""

    @classmethod
    def of(cls, picture: FlatPicture, number: int) -> _Level:
        grid = picture.grid
        rows: dict[int, list[_Tile]] = {}
        for row in range(grid.rows(number)):
            for column in range(grid.columns(number)):
                box = grid.box(number, Box(column, row, 1, 1))
                part = picture.orientation.to_stored(box, picture.stored)
                tile = _Tile(Place(number, column, row), part, grid.shown(number, box))
                rows.setdefault(part.y, []).append(tile)
        return cls(number, deque(rows[y] for y in sorted(rows)))


class _Cutter:
    """Takes the rows of level `first`, and gives the tiles of some levels."""

    def __init__(
        self, parent: Parent, picture: FlatPicture, threads: ThreadPoolExecutor, first: int, levels: range
    ) -> None:
        self._parent = parent
        self._picture = picture
        self._threads = threads
        self._levels = [_Level.of(picture, number) for number in levels]
        last = max(first, levels.stop - 2)  # the smallest level is made of the one before
        sizes = {number: picture.stored.reduced(number) for number in range(first, last + 1)}
        self._sizes = {number: _Rows(size.width, size.height) for number, size in sizes.items()}
        self._making: list[tuple[Place, Future[tuple[bytes, ...]]]] = []
        self._channels = 0

    def add(self, band: Raster) -> None:
        """Make what these rows complete. The tiles of the rows before are handed over meanwhile."""
        if self._channels not in (0, band.shape[2]):
            raise Malformed(f"rows of {band.shape[2]} channels after rows of {self._channels}")
        self._channels = band.shape[2]
        before, self._making = self._making, []
        block: Raster | None = band
        for number, rows in self._sizes.items():
            if block is None:
                break
            rows.add(block)
            needed = [self._cut(level, rows, number) for level in self._made_of(number)]
            block = rows.halve() if number + 1 in self._sizes else None
            rows.forget(min([*needed, rows.halved if number + 1 in self._sizes else rows.bottom]))
        self._hand_over(before)

    def finish(self) -> int:
        """Hand over the rest."""
        self._hand_over(self._making)
        assert not any(level.waiting for level in self._levels), "all rows came"
        return self._channels

    def _made_of(self, number: int) -> list[_Level]:
        """The levels that are made of a size: of the full one two, of the others the next smaller one."""
        return [level for level in self._levels if max(0, level.number - 1) == number]

    def _cut(self, level: _Level, rows: _Rows, number: int) -> int:
        """Start on the tiles whose rows are complete; the first row that the others need."""
        scale = 1 / (1 << number)
        while level.waiting:
            part = level.waiting[0][0].part
            start, stop = math.floor(part.y * scale), min(rows.height, math.ceil(part.bottom * scale))
            if stop > rows.bottom:
                return start
            window = rows.window(start, stop)
            for tile in level.waiting.popleft():
                frame = Frame.of(tile.part, scale, scale, origin=(0, start)).within(rasters.size_of(window))
                self._making.append((tile.place, self._threads.submit(self._encode, window, frame, tile.size)))
        return rows.bottom

    def _encode(self, window: Raster, frame: Frame, size: Size) -> tuple[bytes, ...]:
        picture = self._picture
        stored = resample(window, frame, picture.orientation.upright(size))
        return encode_tile(rasters.upright(stored, picture.orientation), picture.tile, picture.encoding.jpeg_quality)

    def _hand_over(self, tiles: Sequence[tuple[Place, Future[tuple[bytes, ...]]]]) -> None:
        for start in range(0, len(tiles), TILES_AT_ONCE):
            made = [(place, future.result()) for place, future in tiles[start : start + TILES_AT_ONCE]]
            named = [[place.level, place.column, place.row, len(files)] for place, files in made]
            self._parent.give(named, [data for _, files in made for data in files])
