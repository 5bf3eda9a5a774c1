"""Colours to sRGB: profiles, depths, inks and palettes of every sort of master.

A profile that *is* sRGB in all but name is by far the most common, and transforming by it costs
more than decoding. So each profile is tried once on a cube of colours and remembered.
"""

from __future__ import annotations

import io
import logging
from enum import Enum
from functools import lru_cache
from typing import Final

import numpy as np
import pyvips
from PIL import Image as PillowImage
from PIL import (
    ImageCms,
    ImageFile,  # noqa: F401  pillow would import it at the first conversion, when no file may be opened any more
)

from special.codecs.raster import Colour, Raster, VipsImage, from_vips, to_vips
from special.errors import Unsupported
from special.formats.tiff import Photometric

log = logging.getLogger(__name__)

ICC_FIELD: Final = "icc-profile-data"
MAX_KEPT_BYTES: Final = 32768
"""Longest profile that is sent with answers. Those of displays and working spaces are shorter, of scanners longer."""
_SPACES: Final = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}  # ICC.1:2022, 7.2.6: colour space at byte 16
_INVISIBLE_LEVELS: Final = 1
"""A profile that moves no colour of the cube by more than this counts as sRGB."""
_DEPTHS: Final = {"uchar", "ushort"}
_DEVICE: Final = {"b-w", "srgb", "rgb", "rgb16", "grey16", "cmyk", "multiband"}

TIFF_COLOURS: Final[dict[Photometric, Colour]] = {
    Photometric.MIN_IS_BLACK: "grey",
    Photometric.RGB: "srgb",
    Photometric.SEPARATED: "cmyk",
}
"""What the samples of TIFF tiles mean that are decoded one by one."""


class Effect(Enum):
    """What a profile does to colours."""

    NONE = "it is sRGB, or as good as"
    SOME = "colours must be transformed"
    BROKEN = "it cannot be used; colours count as untagged"


def tagged(raster: Raster, profile: bytes | None) -> Raster | VipsImage:
    """Decoded grey or RGB pixels with the profile they came with: a raster where that changes nothing."""
    if profile is None or effect(profile, raster.shape[2]) is not Effect.SOME:
        return raster
    return with_profile(to_vips(raster), profile)


def with_profile(image: VipsImage, profile: bytes) -> VipsImage:
    """The image with a profile embedded."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, ICC_FIELD, profile)
    return image


@lru_cache(maxsize=64)
def effect(profile: bytes, channels: int) -> Effect:
    """What a profile does to pixels of `channels` colours, tried on a cube of 9 levels a side."""
    if _SPACES.get(profile[16:20]) != channels:
        return Effect.BROKEN
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.meshgrid(*[levels] * channels, indexing="ij")
    cube: Raster = np.stack(grid, axis=-1).reshape(1, -1, channels)
    image = to_vips(cube)
    if channels == 4:
        image = image.copy(interpretation="cmyk")
    try:
        moved = _by_profile(with_profile(image, profile)).numpy()
    except pyvips.Error:
        return Effect.BROKEN
    if channels == 4:
        return Effect.SOME
    furthest = np.abs(moved.astype(np.int16) - cube).max()  # a grey cube against three equal channels
    return Effect.NONE if furthest <= _INVISIBLE_LEVELS else Effect.SOME


def split(image: VipsImage) -> tuple[VipsImage, VipsImage | None]:
    """Colour channels and, if there is one, opacity. Channels beyond that are dropped."""
    if not image.hasalpha():
        return image, None
    colours = 4 if image.interpretation == "cmyk" else 3 if image.bands > 3 else 1
    return image.extract_band(0, n=colours), image.extract_band(colours)


def averages(image: VipsImage) -> bool:
    """Whether means of the pixels as they are look right: device colours, opaque."""
    return (
        image.interpretation in _DEVICE and image.coding == "none" and image.format in _DEPTHS and not image.hasalpha()
    )


def own_profile(picture: Raster | VipsImage) -> bytes | None:
    """The profile of grey or RGB pixels of 8 or 16 bits whose colours are other than sRGB; None for a long one."""
    if isinstance(picture, np.ndarray) or picture.interpretation not in _DEVICE or picture.format not in _DEPTHS:
        return None
    profile, channels = _profile(picture), split(picture)[0].bands
    if profile is None or len(profile) > MAX_KEPT_BYTES or channels not in (1, 3):
        return None
    return profile if effect(profile, channels) is Effect.SOME else None


def to_8_bits(image: VipsImage) -> VipsImage:
    """8-bit pixels in the colours of their own profile where `own_profile` gives one, opacity last; else sRGB.

    Raises as `to_srgb` does.
    """
    if own_profile(image) is None:
        return to_srgb(image)
    colours, alpha = split(image)
    plain = _to_8_bits(colours).copy(interpretation="b-w" if colours.bands == 1 else "srgb")
    plain.remove(ICC_FIELD)
    return plain if alpha is None else plain.bandjoin(_to_8_bits(alpha))


def raster_to_srgb(raster: Raster, profile: bytes) -> Raster:
    """Pixels that are in a profile's colours. One copy."""
    return from_vips(to_srgb(with_profile(to_vips(raster), profile)))


def to_srgb(image: VipsImage) -> VipsImage:
    """8-bit sRGB, or 8-bit grey where the picture is grey; opacity last, as it was.

    Relative colorimetric, like every browser. Untagged RGB counts as sRGB, untagged CMYK takes libvips' own
    press profile. Raises `Unsupported` for samples that have no agreed range (floats, 32-bit integers).
    """
    if image.coding == "labq":
        image = image.LabQ2Lab()  # the direct way from LabQ to sRGB goes by a coarse table (3 levels off in the mean)
    if image.interpretation not in _DEVICE or image.coding != "none":
        return image.colourspace("srgb")  # Lab, XYZ, scRGB and their codings say what they mean by themselves
    if image.format not in _DEPTHS:
        raise Unsupported(f"samples of type {image.format} in {image.interpretation} have no agreed range")
    colours, alpha = split(image)
    colours = _colours_to_srgb(colours)
    return colours if alpha is None else colours.bandjoin(_to_8_bits(alpha))


def is_ink(image: VipsImage) -> bool:
    """Whether the pixels are opaque CMYK of 8 or 16 bits."""
    return image.interpretation == "cmyk" and image.format in _DEPTHS and not image.hasalpha()


def from_inks(image: VipsImage) -> Raster:
    """CMYK pixels as sRGB, all of them at once: 28 ns a pixel, where libvips' stream takes 240."""
    inks = PillowImage.fromarray(from_vips(_to_8_bits(image)), "CMYK")
    return np.asarray(ImageCms.applyTransform(inks, _ink_transform(_profile(image))))


@lru_cache(maxsize=4)
def _ink_transform(profile: bytes | None) -> ImageCms.ImageCmsTransform:
    """From a profile's inks, or those of libvips' press, to sRGB. Costs 45 ms to make, and some megabytes to keep."""
    press = bytes(pyvips.Image.profile_load("cmyk"))
    target = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    if profile is not None and profile[16:20] == b"CMYK":
        try:
            return ImageCms.buildTransform(io.BytesIO(profile), target, "CMYK", "RGB", intent)
        except ImageCms.PyCMSError:
            log.info("a CMYK profile of %d bytes cannot be used; its colours count as untagged", len(profile))
    return ImageCms.buildTransform(io.BytesIO(press), target, "CMYK", "RGB", intent)


def _profile(image: VipsImage) -> bytes | None:
    if not image.get_typeof(ICC_FIELD):
        return None
    profile: bytes = image.get(ICC_FIELD)
    return profile


def _colours_to_srgb(image: VipsImage) -> VipsImage:
    profile = _profile(image)
    what = effect(profile, image.bands) if profile else Effect.BROKEN
    if what is Effect.SOME:
        converted = _by_profile(image)
        return converted.extract_band(0) if image.bands == 1 else converted
    if image.bands == 4 or image.interpretation == "cmyk":
        return image.icc_transform("srgb", input_profile="cmyk", depth=8)
    if image.bands not in (1, 3):
        raise Unsupported(f"pixels of {image.bands} channels in {image.interpretation} cannot be shown")
    return _to_8_bits(image).copy(interpretation="b-w" if image.bands == 1 else "srgb")


def _by_profile(image: VipsImage) -> VipsImage:
    return image.icc_transform("srgb", embedded=True, intent="relative", depth=8)


def _to_8_bits(image: VipsImage) -> VipsImage:
    # 65535 / 257 = 255: exact at both ends, where a shift by 8 bits would darken by up to half a level.
    return image if image.format == "uchar" else image.linear(1 / 257, 0.5, uchar=True)
