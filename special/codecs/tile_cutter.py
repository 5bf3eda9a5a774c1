"""A piece of a master to tiles of its pyramid, each encoded once.

A tile is made as `render` makes it of a piece of its own: the same frame of the same decoded
picture, resampled and encoded in the same way. So a pyramid's tile has, byte for byte, what the
server would have answered without it. This function runs in a decoder process (see `workers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from special import machine
from special.codecs import colour, jpeg, vips
from special.codecs import raster as rasters
from special.codecs.decode import decode
from special.codecs.encode import Encoding
from special.codecs.raster import Raster, VipsImage
from special.codecs.resample import resample
from special.errors import Unsupported
from special.formats import Piece
from special.geometry import Box, Frame, Size


@dataclass(frozen=True, slots=True)
class TileCut:
    """One tile of a piece."""

    crop: Frame
    """What it shows, in pixels of the decoded picture, before it is turned upright."""
    size: Size
    """Its size, upright."""


@dataclass(frozen=True, slots=True)
class CutTiles:
    """What became of the cuts."""

    encoded: tuple[tuple[bytes, ...], ...]
    """For each cut its JPEG and, where it is smaller than a whole tile, that of it filled up to one."""
    channels: int
    """1: grey, 3: RGB."""


def cut_tiles(piece: Piece, cuts: Sequence[TileCut], tile: int, encoding: Encoding, max_pixels: int) -> CutTiles:
    """JPEGs of all cuts of one piece.

    Raises `Malformed` and `Unsupported` for the piece; the latter too where it has opacity, which JPEG cannot hold, or
    a profile that is to be kept, which is too long for every tile.
    """
    encoded: list[tuple[bytes, ...]] = []
    channels = 0
    with vips.reading(piece.format):
        # All processors: many requests may be waiting for this pyramid.
        picture = decode(piece, max_pixels=max_pixels, threads=machine.processors())
        check_profile(picture, encoding)
        frames = [cut.crop.within(_size_of(picture)) for cut in cuts]
        if not isinstance(picture, np.ndarray) and len(cuts) > 1:
            # What is decoded on demand is decoded once, and only the part that is needed.
            window = _around(frames)
            picture = picture.crop(window.x, window.y, window.width, window.height).copy_memory()
            frames = [Frame(it.x - window.x, it.y - window.y, it.width, it.height) for it in frames]
        for cut, frame in zip(cuts, frames, strict=True):
            stored = resample(picture, frame, piece.orientation.upright(cut.size))
            raster = rasters.upright(stored, piece.orientation)
            if rasters.has_alpha(raster):
                raise Unsupported("the picture has opacity, which a pyramid of JPEGs cannot hold")
            channels = raster.shape[2]
            encoded.append(encode_tile(raster, tile, encoding.jpeg_quality))
    return CutTiles(tuple(encoded), channels)


def check_profile(picture: Raster | VipsImage, encoding: Encoding) -> None:
    """Raise `Unsupported` for a picture whose profile is to be kept."""
    if encoding.keep_profile and colour.own_profile(picture) is not None:
        raise Unsupported("the picture has a profile that is kept (keep_profile), which no tile of a pyramid has")


def encode_tile(raster: Raster, tile: int, quality: int) -> tuple[bytes, ...]:
    """A tile's JPEG and, where it is smaller than a whole one of side `tile`, that of it filled up to one."""
    height, width, _ = raster.shape
    shown = jpeg.encode(raster, quality=quality)
    if (width, height) == (tile, tile):
        return (shown,)
    filled = np.pad(raster, ((0, tile - height), (0, tile - width), (0, 0)), mode="edge")
    return shown, jpeg.encode(filled, quality=quality)


def _around(frames: Sequence[Frame]) -> Box:
    """The whole pixels that any of the frames touches."""
    return Box.between(
        math.floor(min(frame.x for frame in frames)),
        math.floor(min(frame.y for frame in frames)),
        math.ceil(max(frame.x + frame.width for frame in frames)),
        math.ceil(max(frame.y + frame.height for frame in frames)),
    )


def _size_of(picture: Raster | VipsImage) -> Size:
    return rasters.size_of(picture) if isinstance(picture, np.ndarray) else Size(picture.width, picture.height)
