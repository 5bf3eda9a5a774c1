"""IIIF Image API requests, 2.1 and 3.0: parse, resolve against an image, canonicalise.

    path -> ImageRequest | InfoRequest | BaseRequest     parse(): syntax alone
    ImageRequest + Size -> Job                           resolve(): whole pixels, every rule applied
    Job -> canonical path                                canonical()

Pure. Raw strings end here: nothing further in ever sees one. Section numbers are those of the
Image API 3.0 (https://iiif.io/api/image/3.0/); 2.1 is named where it differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from special import geometry
from special.errors import BadRequest, NotFound, NotOffered
from special.geometry import Box, Size

Version = Literal[2, 3]
Quality = Literal["default", "color", "gray", "bitonal"]
OutputFormat = Literal["jpg", "png", "webp", "gif", "tif"]

QUALITIES: tuple[Quality, ...] = ("default", "color", "gray", "bitonal")
MEDIA: dict[OutputFormat, str] = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "tif": "image/tiff",
}
MAX_IDENTIFIER_BYTES = 1024
"""S3 allows keys of 1,024 bytes; no identifier can need more."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""C0, DEL and C1: in no identifier, and in no parameter."""
# Section 4.7: decimal digits and one point; here at most ten digits, so that no arithmetic runs away.
_NUMBER = re.compile(r"(?=[\d.]{1,11}$)\d*\.?\d+|\d{1,10}\.?", re.ASCII)
_INTEGER = re.compile(r"\d{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Full:
    """Region `full`: the whole image."""


@dataclass(frozen=True, slots=True)
class Square:
    """Region `square`: the largest square, from the middle."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Region `x,y,w,h`, as it was written."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Percent:
    """Region `pct:x,y,w,h`, as it was written."""

    x: Fraction
    y: Fraction
    width: Fraction
    height: Fraction


Region = Full | Square | Pixels | Percent


@dataclass(frozen=True, slots=True)
class Max:
    """Size `max` or `^max`."""


@dataclass(frozen=True, slots=True)
class Unscaled:
    """Size `full` of 2.1: the region's own size."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Sizes `w,`, `,h` and `w,h`: exact on every side that is named."""

    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class Within:
    """Size `!w,h`: the region's proportions, inside both numbers."""

    bounds: Size


@dataclass(frozen=True, slots=True)
class Scale:
    """Size `pct:n`, with n as a fraction of 1."""

    factor: Fraction


@dataclass(frozen=True, slots=True)
class SizeRequest:
    """The size parameter."""

    form: Max | Unscaled | Sides | Within | Scale
    upscale: bool
    """Whether the result may be larger than the region: `^` in 3.0, any but `max` and `full` in 2.1."""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A request for pixels whose syntax is right."""

    identifier: str
    version: Version | None
    """None where the URL does not say."""
    region: Region
    size: SizeRequest
    mirror: bool
    angle: float
    """Degrees clockwise, 0 to 360."""
    quality: Quality
    format: OutputFormat


@dataclass(frozen=True, slots=True)
class InfoRequest:
    """A request for info.json."""

    identifier: str
    version: Version | None


@dataclass(frozen=True, slots=True)
class BaseRequest:
    """A request for the image's base URI, which answers with the way to info.json."""

    identifier: str
    version: Version | None


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an answer may be. None: no such limit."""

    max_width: int | None = None
    max_height: int | None = None
    max_area: int | None = None
    upscaling: bool = False
    """Whether an answer may be larger than its region."""

    def allow(self, size: Size) -> bool:
        """Whether a size keeps within every limit."""
        width, height = self._sides
        return (
            (width is None or size.width <= width)
            and (height is None or size.height <= height)
            and (self.max_area is None or size.area <= self.max_area)
        )

    def reduce(self, size: Size) -> Size:
        """The largest size of the same proportions within the limits, at most `size`."""
        width, height = self._sides
        bounds = Size(min(size.width, width or size.width), min(size.height, height or size.height))
        fitted = size if bounds == size else geometry.to_fit(size, bounds)
        return geometry.to_area(fitted, self.max_area) if self.max_area else fitted

    def enlarge(self, size: Size) -> Size:
        """The largest size of the same proportions within the limits; the size itself where there are none."""
        width, height = self._sides
        if width is None and self.max_area is None:
            return self.reduce(size)
        # Larger than any limit allows, so that what is returned is bound by the limits alone.
        factor = max(width or 1, height or 1, self.max_area or 1)
        return self.reduce(Size(size.width * factor, size.height * factor))

    @property
    def _sides(self) -> tuple[int | None, int | None]:
        # Section 5.3: where maxWidth stands alone it binds the height too.
        return self.max_width, self.max_height if self.max_height is not None else self.max_width


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made of a master, in whole pixels. The order of work is that of the fields (section 4)."""

    box: Box
    """The region, inside the image."""
    size: Size
    """The region's size after scaling, before rotation."""
    mirror: bool
    angle: float
    """Degrees clockwise, 0 <= angle < 360."""
    quality: Quality
    format: OutputFormat

    @property
    def plain(self) -> bool:
        """Neither mirrored nor turned, in the image's own colours."""
        return not self.mirror and self.angle == 0 and self.quality in ("default", "color")

    @property
    def output(self) -> Size:
        """The size of the answer, rotation included."""
        return geometry.rotated_bounds(self.size, self.angle)


def parse(path: str, *, id_segments: int = 1) -> ImageRequest | InfoRequest | BaseRequest:
    """The request that a path below the prefix asks for; `path` is still percent-encoded.

    `[v2|v3/]{id…}[/info.json | /{region}/{size}/{rotation}/{quality}.{format}]`, and `2/`, `3/` as well where
    identifiers have one segment. Every segment is decoded exactly once. Raises `BadRequest` and `NotFound`.
    """
    segments = path.split("/")
    version: Version | None = None
    if not _fits(segments, id_segments):
        versions: dict[str, Version] = {"v2": 2, "v3": 3}
        if id_segments == 1:
            versions |= {"2": 2, "3": 3}
        version = versions.get(segments[0])
        segments = segments[1:]
        if version is None or not _fits(segments, id_segments):
            raise NotFound(
                "No image has this address. It should be {id}/info.json or "
                "{id}/{region}/{size}/{rotation}/{quality}.{format}, with every slash inside the identifier as %2F."
            )
    identifier = parse_identifier("/".join(segments[:id_segments]))
    match segments[id_segments:]:
        case [] | [""]:
            return BaseRequest(identifier, version)
        case ["info.json"]:
            return InfoRequest(identifier, version)
        case [region, size, rotation, last]:
            quality, dot, suffix = _decoded(last).rpartition(".")
            if not dot:
                raise BadRequest(f"'{last}' should be {{quality}}.{{format}}, such as default.jpg.")
            mirror, angle = _rotation(_decoded(rotation))
            return ImageRequest(
                identifier,
                version,
                _region(_decoded(region)),
                _size(_decoded(size), version),
                mirror,
                angle,
                _quality(quality),
                _format(suffix),
            )
        case _:
            raise NotFound("No image has this address.")


def _fits(segments: list[str], id_segments: int) -> bool:
    rest = segments[id_segments:]
    return (
        len(segments) >= id_segments
        and all(segments[:id_segments])
        and (rest in ([], [""], ["info.json"]) or len(rest) == 4)
    )


def parse_identifier(quoted: str) -> str:
    """The identifier that a percent-encoded one stands for. Raises `BadRequest`."""
    identifier = _decoded(quoted)
    if len(identifier.encode()) > MAX_IDENTIFIER_BYTES:
        raise BadRequest(f"An identifier has at most {MAX_IDENTIFIER_BYTES} bytes.")
    if "\\" in identifier or any(part in (".", "..") for part in identifier.split("/")):
        raise BadRequest("An identifier has no backslash and no '.' or '..' segment.")
    return identifier


def quote_identifier(identifier: str, *, id_segments: int = 1) -> str:
    """The identifier as it stands in a URL: slashes stay only where the identifier has that many segments."""
    segmented = id_segments > 1 and identifier.count("/") == id_segments - 1
    return quote(identifier, safe="/" if segmented else "")


def _decoded(quoted: str) -> str:
    try:
        text = unquote_to_bytes(quoted).decode("utf-8") if "%" in quoted else quoted
    except UnicodeDecodeError:
        raise BadRequest("The address is not valid UTF-8.") from None
    if _CONTROL.search(text):
        raise BadRequest("The address contains control characters.")
    return text


def _region(text: str) -> Region:
    if text == "full":
        return Full()
    if text == "square":
        return Square()
    if text.startswith("pct:"):
        numbers = text[4:].split(",")
        if len(numbers) == 4 and all(_NUMBER.fullmatch(number) for number in numbers):
            percent = Percent(*(Fraction(number) for number in numbers))
            if not percent.width or not percent.height:
                raise BadRequest(f"Region '{text}' has no pixels.")
            return percent
    else:
        numbers = text.split(",")
        if len(numbers) == 4 and all(_INTEGER.fullmatch(number) for number in numbers):
            pixels = Pixels(*(int(number) for number in numbers))
            if not pixels.width or not pixels.height:
                raise BadRequest(f"Region '{text}' has no pixels.")
            return pixels
    raise BadRequest(f"Region '{text}' should be full, square, x,y,w,h or pct:x,y,w,h.")


def _size(text: str, version: Version | None) -> SizeRequest:
    # Whether '^' and 'full' are right depends on the version; where the URL names none, resolve() decides.
    caret = text.startswith("^")
    form = text[1:] if caret else text
    if form == "max":
        return SizeRequest(Max(), caret)
    if text == "full":
        return SizeRequest(Unscaled(), False)
    if form.startswith("pct:") and _NUMBER.fullmatch(form[4:]):
        factor = Fraction(form[4:]) / 100
        if factor:
            return SizeRequest(Scale(factor), caret)
    bang = form.startswith("!")
    sides = form[bang:].split(",")
    if len(sides) == 2 and any(sides) and all(not side or _INTEGER.fullmatch(side) for side in sides):
        width, height = (int(side) if side else None for side in sides)
        if width != 0 and height != 0:
            if not bang:
                return SizeRequest(Sides(width, height), caret)
            if width and height:
                return SizeRequest(Within(Size(width, height)), caret)
    raise BadRequest(f"Size '{text}' should be max, w, ,h w,h !w,h or pct:n, with numbers above 0{_hint(version)}.")


def _hint(version: Version | None) -> str:
    return "; '^' before it allows enlarging" if version != 2 else "; or full"


def _rotation(text: str) -> tuple[bool, float]:
    mirror = text.startswith("!")
    number = text[mirror:]
    if not _NUMBER.fullmatch(number) or float(number) > 360:
        raise BadRequest(f"Rotation '{text}' should be 0 to 360, with '!' before it to mirror.")
    return mirror, float(number)


def _quality(text: str) -> Quality:
    for quality in QUALITIES:
        if text == quality:
            return quality
    raise BadRequest(f"Quality '{text}' should be one of {', '.join(QUALITIES)}.")


def _format(text: str) -> OutputFormat:
    for name in MEDIA:
        if text == name:
            return name
    raise BadRequest(f"Format '{text}' should be one of {', '.join(MEDIA)}.")


def resolve(request: ImageRequest, image: Size, *, version: Version, limits: Limits) -> Job:
    """The request in whole pixels of an image of that size, every rule of the version applied.

    Raises `BadRequest` (region outside, size above the region or the limits) and `NotOffered`
    (enlarging, where that is off).
    """
    box = region_box(request.region, image)
    size = _resolve_size(request.size, box.size, version, limits)
    return Job(box, size, request.mirror, request.angle % 360, request.quality, request.format)


def region_box(region: Region, image: Size) -> Box:
    """The region in whole pixels, cropped to the image (section 4.1)."""
    match region:
        case Full():
            return Box.whole(image)
        case Square():
            side = min(image.width, image.height)
            return Box((image.width - side) // 2, (image.height - side) // 2, side, side)
        case Pixels(x, y, width, height):
            box = Box(x, y, width, height).within(image)
        case Percent(x, y, width, height):
            box = Box(
                int(x * image.width / 100 + Fraction(1, 2)),
                int(y * image.height / 100 + Fraction(1, 2)),
                max(1, int(width * image.width / 100 + Fraction(1, 2))),
                max(1, int(height * image.height / 100 + Fraction(1, 2))),
            ).within(image)
    if box is None:
        raise BadRequest(f"The region lies outside the image, which has {image.width}×{image.height} pixels.")
    return box


def _resolve_size(asked: SizeRequest, region: Size, version: Version, limits: Limits) -> Size:
    if version == 3 and isinstance(asked.form, Unscaled):
        raise BadRequest("Size 'full' is of version 2; version 3 calls it 'max'.")
    if version == 2 and asked.upscale:
        raise BadRequest("Size '^…' is of version 3; version 2 enlarges without it, where it is on.")
    # 2.1 section 4.2 has no mark for enlarging; every form but max and full may.
    may_enlarge = asked.upscale or (version == 2 and not isinstance(asked.form, Max | Unscaled))
    match asked.form:
        case Max():
            size = limits.enlarge(region) if asked.upscale else limits.reduce(region)
        case Unscaled():
            size = region
        case Sides(width=int(width), height=int(height)):
            size = Size(width, height)
        case Sides(width=int(width)):
            size = geometry.to_width(region, width)
        case Sides(height=int(height)):
            size = geometry.to_height(region, height)
        case Within(bounds):
            enlarging = may_enlarge and (version == 3 or limits.upscaling)
            if not enlarging:
                bounds = Size(min(bounds.width, region.width), min(bounds.height, region.height))
            size = geometry.to_fit(region, bounds)
        case Scale(factor):
            width = int(region.width * factor + Fraction(1, 2))
            height = int(region.height * factor + Fraction(1, 2))
            if not width or not height:
                raise BadRequest(f"At that size the region of {region.width}×{region.height} is less than a pixel.")
            size = Size(width, height)
    if not region.covers(size):
        if not may_enlarge:
            raise BadRequest(f"{size.width}×{size.height} is larger than the region, {region.width}×{region.height}.")
        if not limits.upscaling:
            raise NotOffered(f"Enlarging is off here; the region has {region.width}×{region.height} pixels.")
    if not limits.allow(size):
        allowed = limits.reduce(region)
        raise BadRequest(
            f"{size.width}×{size.height} is larger than this server makes; "
            f"of this region at most {allowed.width}×{allowed.height}."
        )
    return size


def canonical(job: Job, image: Size, *, version: Version, limits: Limits, has_color: bool) -> str:
    """`{region}/{size}/{rotation}/{quality}.{format}` in the canonical form of section 4.8 (2.1: section 4.7)."""
    region = "full" if job.box == Box.whole(image) else str(job.box)
    same = job.quality == "color" or (job.quality == "gray" and not has_color)
    rotation = f"{'!' if job.mirror else ''}{_shortest(job.angle)}"
    return (
        f"{region}/{_canonical_size(job, version, limits)}/{rotation}/{'default' if same else job.quality}.{job.format}"
    )


def _canonical_size(job: Job, version: Version, limits: Limits) -> str:
    region = job.box.size
    if version == 2:
        if job.size == region:
            return "full"
        return f"{job.size.width}," if geometry.to_width(region, job.size.width) == job.size else str(job.size)
    if job.size == limits.reduce(region):
        return "max"
    if region.covers(job.size):
        return str(job.size)
    return "^max" if job.size == limits.enlarge(region) else f"^{job.size}"


def _shortest(angle: float) -> str:
    text = f"{angle:.10f}".rstrip("0").rstrip(".")
    return text or "0"
