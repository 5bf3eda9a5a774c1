"""From a request to a `Job`: whole pixels of one image, every rule and limit applied; and back to its canonical form.

Section numbers are those of the Image API 3.0; 2.1 is named where it differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from special import geometry
from special.errors import BadRequest, NotOffered
from special.geometry import Box, Size
from special.iiif.mark import Mark
from special.iiif.request import (
    Full,
    ImageRequest,
    Max,
    OutputFormat,
    Percent,
    Pixels,
    Quality,
    Region,
    Scale,
    Sides,
    SizeRequest,
    Square,
    Unscaled,
    Version,
    Within,
)


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
        # Section 5.3: where there is only maxWidth it limits the height too.
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
    marks: tuple[Mark, ...] = field(default=(), repr=False)
    """What is drawn over the region before it is mirrored and turned, in percent of the region."""

    @property
    def plain(self) -> bool:
        """Neither marked, mirrored nor turned, in the image's own colours."""
        return not self.mirror and self.angle == 0 and self.quality in ("default", "color") and not self.marks

    @property
    def output(self) -> Size:
        """The size of the answer, rotation included."""
        return geometry.rotated_bounds(self.size, self.angle)


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
