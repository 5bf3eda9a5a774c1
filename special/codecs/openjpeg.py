"""JPEG 2000 to pixels: any region, at any resolution level, in one of three colour models.

OpenJPEG gives planes of 32-bit samples, each of its own precision, sign and grid, and leaves
sYCC as it is. What leaves here is one array that all other modules use as it is.

Without a usable library, pillow decodes instead: always the whole image, and RGB at 8 bits.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from special.codecs import lab, libopenjp2
from special.codecs.libopenjp2 import Component, Decoder, OpjImage
from special.codecs.raster import CHANNELS, Colour
from special.errors import ConfigurationError, Malformed, Unsupported
from special.formats.jp2 import NO_COLOURS, Colours, ColourSpace, Lab, WholeFile, read_whole
from special.geometry import Box, ceil_div

Samples = npt.NDArray[np.uint8 | np.uint16]

ICC_SPACES: Final[dict[bytes, Colour]] = {b"GRAY": "grey", b"RGB ": "srgb", b"CMYK": "cmyk"}  # ICC.1:2022, 7.2.6
OPACITY, PREMULTIPLIED = 1, 2  # T.800 table I.16: what a channel definition can say of a channel
INVERTED: Final = {ColourSpace.BILEVEL_WHITE_0, ColourSpace.CMY}
YCC: Final = {ColourSpace.SYCC, ColourSpace.YCC_FULL}
COLOURS: Final[dict[ColourSpace | None, Colour]] = {
    ColourSpace.BILEVEL_WHITE_0: "grey",
    ColourSpace.BILEVEL_BLACK_0: "grey",
    ColourSpace.GREY: "grey",
    ColourSpace.SRGB: "srgb",
    ColourSpace.SYCC: "srgb",
    ColourSpace.YCC_FULL: "srgb",
    ColourSpace.CMY: "srgb",
    ColourSpace.CIELAB: "srgb",
    ColourSpace.CMYK: "cmyk",
}
PILLOW_COLOURS: Final[dict[str, Colour]] = {"L": "grey", "I;16": "grey", "RGB": "srgb", "CMYK": "cmyk"}
UINT8_MAX: Final = 255
BAND_PIXELS = 1 << 20  # pixels whose colours are converted at a time, in floats


@dataclass(frozen=True, slots=True)
class Planes:
    """A decoded picture."""

    pixels: Samples
    """(height, width, channels): uint8 for a precision of up to 8 bits, else uint16, both at full range.

    A 12-bit 4095 is 65535 and a 1-bit 1 is 255. Colours come first, opacity last. CMYK: 0 is no ink.
    """
    precision: int
    """Bits per sample in the file, of the deepest channel."""
    colour: Colour
    """What the channels mean; "srgb" means the profile's RGB where there is a profile."""
    icc: bytes | None
    """The file's profile, where it fits the channels."""
    alpha: bool
    """Whether the last channel is opacity."""
    premultiplied: bool = False
    """Whether the colours have been multiplied by the opacity."""


def version() -> str:
    """The version of the OpenJPEG in use, such as `2.5.4`. Raises `ConfigurationError` if there is none."""
    return libopenjp2.version_of(libopenjp2.find())


def available() -> bool:
    """Whether there is a usable OpenJPEG. `version()` says what to do if not."""
    try:
        return bool(version())
    except ConfigurationError:
        return False


def prepare() -> None:
    """Load the library, or else what pillow decodes with."""
    if not available():
        PillowImage.init()


def decode(data: bytes, *, reduce: int = 0, area: Box | None = None, threads: int = 1) -> Planes:
    """The pixels of a JP2 file or a raw codestream.

    `area` is in pixels of the full image, from its top left corner (not the reference grid's).
    `reduce` is the number of halvings. Pixel n of a reduced picture is at n * 2**reduce on the
    reference grid (T.800 equation B-15), so an area from `left` to `right` gives those n where
    ceil(left / 2**reduce) <= n < ceil(right / 2**reduce), left and right counted on the grid.

    Subsampled components are repeated up to the size of the image. A picture with a palette
    is never reduced by wavelets, since indices cannot be averaged, but by leaving out pixels.

    Raises `Malformed` for a broken or truncated file, `Unsupported` for colours that are not
    known here, `ValueError` for an area that is not inside the image or holds no pixel when reduced.
    One copy, straight from OpenJPEG's planes.
    """
    if not available():
        return decode_by_pillow(data, reduce=reduce, area=area)
    head = read_whole(data)
    wanted = _reduced(head.bounds, area, reduce)
    with Decoder(head.corrected(data), boxed=head.boxed, threads=threads) as decoder:
        image = decoder.read_header()
        levels = 0 if head.palette else reduce
        if levels:
            decoder.reduce(levels)
        if area is not None and area.size != head.bounds.size and head.divisible:
            components = [image.comps[index] for index in range(image.numcomps)]
            decoder.area(*_needed(head.bounds, area, wanted, components, reduce))
        image = decoder.decode()
        return _planes(image, head, wanted, reduce)


def decode_samples(data: bytes, head: WholeFile, *, bits: int) -> Samples:
    """The samples of a whole file as they are, for a container that says what they mean: (height, width, components).

    Coarser components are repeated up to the size of the image, nothing is scaled or converted. Raises `Malformed`,
    `Unsupported` for samples of other than `bits` bits (8 or 16), `ConfigurationError` without OpenJPEG.
    """
    with Decoder(head.corrected(data), boxed=head.boxed) as decoder:
        decoder.read_header()
        image = decoder.decode()
        components = [image.comps[index] for index in range(image.numcomps)]
        for component in components:
            if component.prec != bits or component.sgnd:
                kind = "signed" if component.sgnd else "unsigned"
                raise Unsupported(f"a JPEG 2000 tile of {kind} samples of {component.prec} bits, in a page of {bits}")
        samples: Samples = np.empty(
            (head.bounds.height, head.bounds.width, len(components)), np.uint8 if bits == 8 else np.uint16
        )
        for index, component in enumerate(components):
            _fill(samples[..., index], component, head.bounds, 0)
    return samples


def decode_by_pillow(data: bytes, *, reduce: int = 0, area: Box | None = None) -> Planes:
    """The same by pillow, which decodes all of the image to cut `area` out of it.

    Other than `decode` it gives RGB at 8 bits at most, and grey of 9 to 15 bits shifted, not
    scaled. Raises what `decode` raises, in pillow's words, and `Unsupported` for a reduced image
    that does not start at the reference grid's origin.
    """
    head = read_whole(data)
    wanted, whole = _reduced(head.bounds, area, reduce), _reduced(head.bounds, None, reduce)
    if reduce and (head.bounds.x or head.bounds.y):
        raise Unsupported(f"pillow reduces no image that starts at {head.bounds.x},{head.bounds.y}; install OpenJPEG")
    try:
        with PillowImage.open(io.BytesIO(data), formats=["JPEG2000"]) as image:
            if reduce and not head.palette:
                # pillow's own `reduce` rounds sizes half up where the standard rounds them up, and so loses edges
                tile = image.tile[0]
                assert isinstance(tile.args, tuple)
                image._size = (whole.width, whole.height)
                args = (tile.args[0], reduce, *tile.args[2:])
                image.tile = [tile._replace(extents=(0, 0, *image._size), args=args)]
            picture: PillowImage.Image = image
            if image.palette is not None:
                picture = image.convert("RGBA" if image.mode == "PA" or image.palette.mode == "RGBA" else "RGB")
            pixels = np.atleast_3d(np.asarray(picture))
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
        raise Malformed(f"pillow refuses the file: {error}") from error
    step = 1 << reduce if head.palette else 1
    pixels = pixels[::step, ::step][
        wanted.y - whole.y : wanted.bottom - whole.y, wanted.x - whole.x : wanted.right - whole.x
    ]
    colour = PILLOW_COLOURS[picture.mode.removesuffix("A")]
    return Planes(
        pixels=np.ascontiguousarray(pixels),
        precision=pixels.dtype.itemsize * 8,
        colour=colour,
        icc=head.colours.profile if _profile_colour(head.colours.profile) == colour else None,
        alpha=picture.mode.endswith("A"),
    )


def _reduced(bounds: Box, area: Box | None, reduce: int) -> Box:
    """The wanted pixels on the reduced reference grid."""
    part = area or Box.whole(bounds.size)
    if part.within(bounds.size) != part:
        raise ValueError(f"the area {part} is not inside an image of {bounds.size}")
    left, top = bounds.x + part.x, bounds.y + part.y
    scale = 1 << reduce
    return Box.between(
        ceil_div(left, scale),
        ceil_div(top, scale),
        ceil_div(left + part.width, scale),
        ceil_div(top + part.height, scale),
    )


def _needed(bounds: Box, area: Box, wanted: Box, components: list[Component], reduce: int) -> tuple[int, int, int, int]:
    """The area to decode, on the reference grid, so that each component has a sample for every wanted pixel.

    A coarser component's sample is left of and above the pixels that repeat it, except at the
    image's own left and top edges, where the first sample may be beyond them.
    """
    x, y = bounds.x + area.x, bounds.y + area.y
    left, right = _reach(
        (x, x + area.width), range(wanted.x, wanted.right), bounds.x, {c.dx for c in components}, reduce
    )
    top, bottom = _reach(
        (y, y + area.height), range(wanted.y, wanted.bottom), bounds.y, {c.dy for c in components}, reduce
    )
    return max(left, bounds.x), max(top, bounds.y), min(right, bounds.right), min(bottom, bounds.bottom)


def _reach(edges: tuple[int, int], wanted: range, origin: int, coarseness: set[int], reduce: int) -> tuple[int, int]:
    """One dimension of `_needed`."""
    start, stop = edges
    for times in coarseness:
        step = times << reduce
        first = max(wanted[0] // times, ceil_div(origin, step))
        last = max(wanted[-1] // times, first)
        start, stop = min(start, first * step), max(stop, last * step + 1)
    return start, stop


def _planes(image: OpjImage, head: WholeFile, wanted: Box, reduce: int) -> Planes:
    components = [image.comps[index] for index in range(image.numcomps)]
    colours = [component for component in components if component.alpha not in NO_COLOURS]
    colour = _colour(head.colours, len(colours))
    channels, others = colours[: CHANNELS[colour]], colours[CHANNELS[colour] :]
    opacity = [component for component in components if component.alpha in (OPACITY, PREMULTIPLIED)]
    if head.defines_opacity or not head.boxed:
        # OpenJPEG loses the definition where it reorders channels; a raw codestream has no place for one.
        opacity = opacity or others
    alpha = len(opacity) == 1
    if alpha:
        channels.extend(opacity)
    precision = max(channel.prec for channel in channels)
    dtype: np.dtype[np.uint8 | np.uint16] = np.dtype(np.uint8 if precision <= 8 else np.uint16)
    pixels = np.empty((wanted.height, wanted.width, len(channels)), dtype)
    for index, channel in enumerate(channels):
        _fill(pixels[..., index], channel, wanted, reduce)
    if _is_ycc(head.colours, channels):
        ycc_to_rgb(pixels, [_neutral(channel, dtype) for channel in channels[1:3]])
    if head.colours.lab and len(channels) >= CHANNELS["srgb"]:
        pixels = _lab_to_srgb(pixels, head.colours.lab)
    if head.colours.space in INVERTED:
        inks = pixels[..., : CHANNELS[colour]]
        np.invert(inks, out=inks)
    return Planes(
        pixels=pixels,
        precision=precision,
        colour=colour,
        icc=head.colours.profile if _profile_colour(head.colours.profile) == colour else None,
        alpha=alpha,
        premultiplied=alpha and opacity[0].alpha == PREMULTIPLIED,
    )


def _colour(said: Colours, channels: int) -> Colour:
    """The colour model of this number of channels: what the file declares, else what their number suggests."""
    declared = _profile_colour(said.profile) or COLOURS.get(said.space)
    if declared and channels >= CHANNELS[declared]:
        return declared
    if not 1 <= channels <= 4:
        raise Unsupported(f"the JPEG 2000 image has {channels} colour channels and does not say what they mean")
    return "grey" if channels <= 2 else "srgb"


def _profile_colour(icc: bytes | None) -> Colour | None:
    return ICC_SPACES.get(icc[16:20]) if icc else None


def _lab_to_srgb(pixels: Samples, said: Lab) -> Samples:
    """L*, a*, b* at full range as sRGB of 8 bits; opacity stays."""
    full = np.iinfo(pixels.dtype).max
    shown = np.empty(pixels.shape, np.uint8)
    rows = max(1, BAND_PIXELS // pixels.shape[1])
    for start in range(0, pixels.shape[0], rows):
        band = pixels[start : start + rows]
        values = (band[..., :3].astype(np.float32) / full - np.array(said.offsets, np.float32)) * said.ranges
        shown[start : start + rows, :, :3] = lab.from_values(*np.moveaxis(values.astype(np.float32), -1, 0))
        shown[start : start + rows, :, 3:] = band[..., 3:] if full == UINT8_MAX else band[..., 3:] >> 8
    return shown


def _is_ycc(said: Colours, channels: list[Component]) -> bool:
    """Whether three channels are luma and chroma: declared, or undeclared with coarser chroma."""
    if len(channels) < 3:
        return False
    if said.space in YCC:
        return True
    undeclared = said.space is None and said.profile is None
    return undeclared and len(channels) == 3 and channels[0].dx == 1 and channels[1].dx > 1


def _fill(target: Samples, component: Component, wanted: Box, reduce: int) -> None:
    """Write a component's samples into a channel: cut out, repeated, shifted and scaled as need be."""
    samples = component.samples
    x, y = (ceil_div(start, 1 << component.factor) for start in (component.x0, component.y0))
    coarser = reduce - component.factor
    if component.dx == component.dy == 1 and not coarser:
        samples = samples[wanted.y - y : wanted.bottom - y, wanted.x - x : wanted.right - x]
    else:
        columns = (np.arange(wanted.x, wanted.right) << coarser) // component.dx - x
        rows = (np.arange(wanted.y, wanted.bottom) << coarser) // component.dy - y
        samples = samples[np.ix_(rows.clip(0, component.h - 1), columns.clip(0, component.w - 1))]
    if component.prec == target.dtype.itemsize * 8 and not component.sgnd:
        np.copyto(target, samples, casting="unsafe")
        return
    if component.sgnd:
        samples = samples + (1 << component.prec - 1)
    if component.prec > 16:
        samples = samples >> component.prec - 16
    target[...] = _scale(component.prec, target.dtype).take(samples, mode="clip")


def _scale(precision: int, dtype: np.dtype[np.uint8 | np.uint16]) -> Samples:
    """Each value of `precision` bits, scaled to the full range."""
    values = np.arange(1 << min(precision, 16), dtype=np.float64)
    scaled: Samples = np.rint(values * (np.iinfo(dtype).max / values[-1])).astype(dtype)
    return scaled


def _neutral(component: Component, dtype: np.dtype[np.uint8 | np.uint16]) -> int:
    """The chroma of grey, at full range."""
    return int(_scale(component.prec, dtype)[1 << min(component.prec, 16) - 1])


def ycc_to_rgb(pixels: Samples, neutral: Sequence[int]) -> None:
    """Turn luma and chroma, the first three channels, into RGB in place; `neutral` are the chromas of grey.

    The matrix of IEC 61966-2-1 Amendment 1, Annex F, which is JFIF's.
    """
    rows = max(1, BAND_PIXELS // pixels.shape[1])
    for start in range(0, pixels.shape[0], rows):
        band = pixels[start : start + rows, :, :3]
        luma, blue, red = np.moveaxis(band.astype(np.float32), -1, 0)
        blue -= neutral[0]
        red -= neutral[1]
        rgb = np.stack((luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), axis=-1)
        band[...] = np.rint(rgb).clip(0, np.iinfo(pixels.dtype).max)
