"""What the samples of a TIFF mean, where libvips takes them for something else.

libvips counts the first sample beyond the colours as opacity, whatever ExtraSamples says of it, and takes YCbCr that is
neither subsampled nor JPEG for RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from special.codecs import vips
from special.codecs.raster import INTERPRETATIONS, VipsImage
from special.errors import Malformed
from special.formats.tiff import COLOUR_SAMPLES, JPEG_2000, Compression, Page, Photometric, Tag

CONVERTED: Final = JPEG_2000 | {Compression.JPEG, Compression.WEBP}
"""Compressions whose decoders make RGB of YCbCr."""
LUMA: Final = (0.299, 0.587, 0.114)
"""YCbCrCoefficients where a page has none (TIFF 6.0 section 21)."""
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
    """The image in colours that libvips reads and, last, the sample that ExtraSamples calls opacity; no other samples.

    Lazy: no pixel is decoded here.
    """
    colours = 3 if page.photometric is Photometric.PALETTE else COLOUR_SAMPLES[page.photometric]
    if image.bands != colours + page.samples - COLOUR_SAMPLES[page.photometric]:
        return image  # a palette of greys
    if image.bands > colours:
        image = _without_extra(image, page, colours)
    is_subsampled = page.directory.numbers(Tag.YCBCR_SUB_SAMPLING) != (1, 1)
    if page.photometric is not Photometric.YCBCR or page.compression in CONVERTED or is_subsampled:
        return image  # libtiff converts what is subsampled
    return _ycbcr_to_rgb(image, page)


def _without_extra(image: VipsImage, page: Page, colours: int) -> VipsImage:
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


def _ycbcr_to_rgb(image: VipsImage, page: Page) -> VipsImage:
    """Luma and chroma as RGB, by the page's coefficients and its reference black and white (section 21).

    Opacity behind them stays.
    """
    highest, middle = (1 << page.bits) - 1, 1 << page.bits - 1
    red, green, blue = _fractions(page, Tag.YCBCR_COEFFICIENTS, LUMA)
    reference = _fractions(page, Tag.REFERENCE_BLACK_WHITE, (0, highest, middle, highest, middle, highest))
    blacks, whites = reference[::2], reference[1::2]
    if not green or any(white == black for black, white in zip(blacks, whites, strict=True)):
        raise Malformed(f"the TIFF has YCbCr with coefficients {red}, {green}, {blue} and references {reference}")
    # Section 20: codes from black to white are all of luma, and the positive half of chroma.
    scales = [full / (whites[i] - blacks[i]) for i, full in enumerate((highest, middle - 1, middle - 1))]
    matrix = [
        [1, 0, 2 - 2 * red],
        [1, -blue * (2 - 2 * blue) / green, -red * (2 - 2 * red) / green],
        [1, 2 - 2 * blue, 0],
    ]
    offsets = [-black * scale for black, scale in zip(blacks, scales, strict=True)]
    ycc = image.extract_band(0, n=3).linear(scales, offsets)
    rgb = ycc.recomb(matrix).rint().cast(image.format)
    if image.bands > len(scales):
        rgb = rgb.bandjoin(image.extract_band(len(scales)))
    return rgb.copy(interpretation=INTERPRETATIONS["srgb", page.bits // 8])


def _fractions(page: Page, tag: Tag, default: tuple[float, ...]) -> tuple[float, ...]:
    values = page.directory.fractions(tag)
    return values if len(values) == len(default) else default
