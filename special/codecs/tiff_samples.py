"""What the samples of a TIFF mean, where libvips takes them for something else.

libvips counts the first sample beyond the colours as opacity, whatever ExtraSamples says of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from special.codecs import vips
from special.codecs.raster import VipsImage
from special.formats.tiff import Page, Photometric, Tag

COLOUR_SAMPLES: Final = {
    Photometric.MIN_IS_WHITE: 1,
    Photometric.MIN_IS_BLACK: 1,
    Photometric.RGB: 3,
    Photometric.SEPARATED: 4,
    Photometric.YCBCR: 3,
    Photometric.CIELAB: 3,
}
"""Samples of a pixel that are colours. Palettes are not here: libvips has applied them."""
PREMULTIPLIED, OPACITY = 1, 2
"""The values of ExtraSamples that are opacity (TIFF 6.0 section 18)."""


def load(data: bytes, page: Page) -> VipsImage:
    """The page as libvips opens it, never divided by its opacity: `shown` does that.

    libvips divides by the last sample where any extra sample is premultiplied opacity. Such a page is decoded at once,
    out of a copy of the file that says of its extra samples that they are of no kind.
    """
    entry = page.directory.fields.get(Tag.EXTRA_SAMPLES)
    if entry is None or PREMULTIPLIED not in page.directory.numbers(Tag.EXTRA_SAMPLES):
        return vips.load(data, "tiff")
    copied = b"".join((data[: entry.at], bytes(entry.size_bytes), data[entry.at + entry.size_bytes :]))
    return vips.load(copied, "tiff").copy_memory()  # libvips does not keep the bytes of `copied` alive


def shown(image: VipsImage, page: Page) -> VipsImage:
    """The image with its colours and, last, the sample that ExtraSamples calls opacity; all other samples are left out.

    Lazy: no pixel is decoded here.
    """
    colours = COLOUR_SAMPLES.get(page.photometric)
    if colours is None or image.bands != page.samples or image.bands == colours:
        return image
    kinds = _extra_samples(page, image.bands - colours)
    at = next((number for number, kind in enumerate(kinds) if kind in (PREMULTIPLIED, OPACITY)), None)
    if at is None:
        return image.extract_band(0, n=colours)
    if len(kinds) > 1:
        image = image.extract_band(0, n=colours).bandjoin(image.extract_band(colours + at))
    return image.unpremultiply().rint().cast(image.format) if kinds[at] == PREMULTIPLIED else image


def _extra_samples(page: Page, count: int) -> Sequence[int]:
    """What each extra sample is; 0 of those that the field does not name."""
    return (*page.directory.numbers(Tag.EXTRA_SAMPLES), *[0] * count)[:count]
