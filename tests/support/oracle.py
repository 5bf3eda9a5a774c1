"""The right pixels, made the slow and plain way: the whole file decoded, then cut, then shrunk.

Nothing of special's own reading, planning or decoding is used here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image

from special.geometry import Box, Size

Pixels = npt.NDArray[np.uint8]


def upright(path: Path, halved: int = 0) -> pyvips.Image:
    """All of a file, upright, in sRGB or grey of 8 bits, opacity last where there is any.

    `halved` times smaller by the file's own pyramid, or by what its stock decoder shrinks on the way in.
    """
    image = _loaded(path, halved)
    image = image.autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative", depth=8)
    grey = image.interpretation in ("b-w", "grey16")
    return image.colourspace("b-w" if grey else "srgb").cast("uchar")


def halvings(path: Path, region: Size, size: Size) -> int:
    """How often a stock decoder can halve the file on its way in and still give `size` for `region`.

    A JPEG's own shrinking sharpens, so that libvips leaves a factor of two for the resize after it.
    """
    with Image.open(path) as file:
        kind = file.format or ""
        deepest = {"JPEG": 3, "TIFF": getattr(file, "n_frames", 1) - 1, "JPEG2000": _decompositions(path)}.get(kind, 0)
        deepest = deepest if file.mode != "P" else 0
    spare = 1 if kind == "JPEG" else 0
    fitting = (
        n
        for n in range(1, deepest + 1)
        if region.width >> n + spare >= size.width and region.height >> n + spare >= size.height
    )
    return max(fitting, default=0)


def _decompositions(path: Path) -> int:
    """Wavelet decompositions of a codestream: the sixth byte of its COD segment (T.800 A.6.1)."""
    data = path.read_bytes()
    found = data.find(b"\xff\x52")
    return data[found + 9] if found >= 0 else 0


def _loaded(path: Path, halved: int) -> pyvips.Image:
    if path.suffix in (".jp2", ".j2k"):
        return _jpeg_2000(path, halved)
    if path.suffix == ".jpg" and halved:
        return pyvips.Image.new_from_file(str(path), shrink=2**halved)
    if path.suffix == ".tif" and halved:
        return pyvips.Image.new_from_file(str(path), page=halved)
    return pyvips.Image.new_from_file(str(path))


def _jpeg_2000(path: Path, halved: int) -> pyvips.Image:
    with Image.open(path) as file:
        if halved:
            file.reduce = halved
        picture = file.convert("RGB") if file.mode == "P" else file
        pixels = np.asarray(picture)
        profile = file.info.get("icc_profile")
    deep = pixels.dtype == np.uint16
    interpretation = {"RGB": "srgb", "RGBA": "srgb", "CMYK": "cmyk"}.get(picture.mode, "grey16" if deep else "b-w")
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation)
    if profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image


def rendered(
    path: Path,
    region: Box | None = None,
    size: Size | None = None,
    *,
    mirror: bool = False,
    quarter_turns: int = 0,
    halved: int = 0,
) -> Pixels:
    """A region of a file at a size, (height, width, 3), or 4 with opacity.

    With `halved`, from the file as `upright` gives it; the region's numbers must be multiples of its scale.

    In the order of the Image API (4.6 of version 3.0): region, size, mirroring, then clockwise turns.
    """
    image = upright(path, halved)
    if region is not None:
        image = image.crop(*(number >> halved for number in (region.x, region.y, region.width, region.height)))
    if size is not None and (size.width, size.height) != (image.width, image.height):
        image = _resized(image, size)
    if mirror:
        image = image.fliphor()
    image = image.rot(f"d{quarter_turns % 4 * 90}")
    pixels = image.numpy().reshape(image.height, image.width, image.bands)
    return pixels if image.bands >= 3 else np.dstack((*[pixels[..., 0]] * 3, *np.moveaxis(pixels[..., 1:], -1, 0)))


def _resized(image: pyvips.Image, size: Size) -> pyvips.Image:
    opacity = image.hasalpha()
    if opacity:
        image = image.premultiply()
    image = image.resize(size.width / image.width, vscale=size.height / image.height, kernel="lanczos3")
    if opacity:
        image = image.unpremultiply()
    assert (image.width, image.height) == (size.width, size.height)
    return image.rint().cast("uchar")


def mean_difference(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> float:
    """How far the values of two pictures of one shape lie apart, on average."""
    assert one.shape == other.shape, f"{one.shape} is not {other.shape}"
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())
