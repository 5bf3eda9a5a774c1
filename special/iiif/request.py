"""The requests of the Image API: what a path below the prefix asks for. Syntax alone.

Raw strings end here: nothing further in ever sees one. Section numbers are those of the Image API 3.0
(https://iiif.io/api/image/3.0/); 2.1 is named where it differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from special.errors import BadRequest, NotFound
from special.geometry import Size
from special.iiif.identifier import IdentifierForm, decode, parse_identifier

Version = Literal[2, 3]
Quality = Literal["default", "color", "gray", "bitonal"]
OutputFormat = Literal["jpg", "png", "webp", "gif", "tif", "avif"]

QUALITIES: tuple[Quality, ...] = ("default", "color", "gray", "bitonal")
MEDIA: dict[OutputFormat, str] = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "tif": "image/tiff",
    "avif": "image/avif",
}
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

    def spoken(self, default: Version) -> Version:
        """The version that it is written in: where the URL does not say, the default, unless its size is of 2 alone."""
        return self.version or (2 if isinstance(self.size.form, Unscaled) else default)


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


def parse(
    path: str, *, id_segments: int = 1, form: IdentifierForm = IdentifierForm.NORMAL
) -> ImageRequest | InfoRequest | BaseRequest:
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
    identifier = parse_identifier("/".join(segments[:id_segments]), form)
    match segments[id_segments:]:
        case [] | [""]:
            return BaseRequest(identifier, version)
        case ["info.json"]:
            return InfoRequest(identifier, version)
        case [region, size, rotation, last]:
            quality, dot, suffix = decode(last).rpartition(".")
            if not dot:
                raise BadRequest(f"'{last}' should be {{quality}}.{{format}}, such as default.jpg.")
            mirror, angle = _rotation(decode(rotation))
            return ImageRequest(
                identifier,
                version,
                _region(decode(region)),
                _size(decode(size), version),
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
