"""BMP by Pillow: libvips' wheel has no loader for it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import BmpImagePlugin, ImageFile

from special.codecs.raster import Raster, VipsImage, to_vips
from special.errors import Malformed


def opened(data: bytes) -> ImageFile.ImageFile:
    """The picture before it is decoded; its size is known. Raises `Malformed`."""
    with _reading():
        return BmpImagePlugin.BmpImageFile(io.BytesIO(data))


def decode(picture: ImageFile.ImageFile) -> Raster | VipsImage:
    """Its pixels: grey, RGB, or an image with opacity where its bit fields have some. Raises `Malformed`."""
    with _reading():
        mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(picture.mode, "RGB")
        pixels: Raster = np.asarray(picture.convert(mode))
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return to_vips(pixels) if mode == "RGBA" else pixels


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, IndexError, struct.error) as error:  # as Pillow tells of bad files
        raise Malformed(f"Pillow on a bmp file: {error}") from error
