"""Masters whose every pixel is known: noise from a seed, in tiles of 256 pixels."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyvips
import tifffile
from PIL import Image

from special.geometry import Box

TILE = 256


@dataclass(frozen=True, slots=True)
class Noise:
    """A picture of noise, and masters of it."""

    seed: int
    width: int = 1024
    height: int = 768
    version: int = 0
    """Of 16 bits, and in each pixel: a part of one version never passes for a part of another."""

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """(height, width, 3)."""
        return _pixels(self.seed, self.width, self.height) + _stamp(self.version)

    @property
    def file(self) -> bytes:
        """An uncompressed TIFF: a decoder makes its tiles."""
        file = io.BytesIO()
        tifffile.imwrite(file, self.pixels, photometric="rgb", tile=(TILE, TILE), metadata=None)
        return file.getvalue()

    @property
    def jpeg_file(self) -> bytes:
        """A TIFF of JPEG tiles: those on its grid are sent as they lie there."""
        picture = pyvips.Image.new_from_array(self.pixels)
        data: bytes = picture.tiffsave_buffer(compression="jpeg", Q=75, tile=True, tile_width=TILE, tile_height=TILE)
        return data

    def region(self, chance: random.Random, side: int = 128) -> Box:
        """A square anywhere in it."""
        return Box(chance.randrange(self.width - side), chance.randrange(self.height - side), side, side)

    def shows(self, region: Box, png: bytes) -> bool:
        """Whether a PNG is exactly that region."""
        wanted = self.pixels[region.y : region.y + region.height, region.x : region.x + region.width]
        return bool(np.array_equal(np.asarray(Image.open(io.BytesIO(png))), wanted))

    def version_shown(self, region: Box, png: bytes) -> int | None:
        """Which version a PNG of that region shows; None where it is not all of one."""
        shown = np.asarray(Image.open(io.BytesIO(png)))
        base = _pixels(self.seed, self.width, self.height)
        stamps = shown - base[region.y : region.y + region.height, region.x : region.x + region.width]
        version = int(stamps[0, 0, 0]) + 256 * int(stamps[0, 0, 1])
        return version if np.array_equal(stamps, np.broadcast_to(_stamp(version), stamps.shape)) else None


def address(name: str, region: Box) -> str:
    """The path that asks for a region in all its pixels, without loss."""
    return f"/iiif/3/{name}/{region}/max/0/default.png"


def _stamp(version: int) -> npt.NDArray[np.uint8]:
    """What a version adds to red, green and blue, modulo 256."""
    return np.array([version % 256, version // 256, 7 * version % 256], np.uint8)


@lru_cache(maxsize=64)
def _pixels(seed: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
