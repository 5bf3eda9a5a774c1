"""Which of the four routes answers a request. Pure.

    thumb        a stored rendition is exactly what was asked for: it is copied
    derivative   a larger stored rendition exists: it is shrunk
    stream       full region: just the needed ranges of the master are read from the store
    tile         any smaller region: the same ranges, through the volume

The cheapest route that gives the right pixels wins. What a stored rendition can answer reads
no byte of the master.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from special import iiif
from special.auth import Grant, access
from special.errors import BadRequest, NotFound
from special.geometry import Box, Size
from special.iiif import ImageRequest, Job, Limits, Version
from special.images import Asset, Rendition, StoredFormat
from special.serving import info
from special.storage import Blob


@dataclass(frozen=True, slots=True)
class Thumb:
    """The stored rendition is the answer: one GET, no codec."""

    rendition: Rendition
    name: Literal["thumb"] = "thumb"


@dataclass(frozen=True, slots=True)
class Derivative:
    """A stored rendition is shrunk: one GET of a small object."""

    rendition: Rendition
    job: Job
    """In pixels of the rendition."""
    name: Literal["derivative"] = "derivative"


@dataclass(frozen=True, slots=True)
class Stream:
    """The full region, from ranges of the master, read from its store."""

    blob: Blob
    job: Job
    name: Literal["stream"] = "stream"


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of the image, from ranges of the master, read through the volume."""

    blob: Blob
    job: Job
    name: Literal["tile"] = "tile"


Plan = Thumb | Derivative | Stream | Tile

LaneName = Literal["stored", "tile", "full", "max"]
LARGE_PIXELS: Final = 4_000_000
"""Full regions above this many pixels have a lane of their own."""


def lane_of(plan: Plan) -> LaneName:
    """Which lane a plan belongs to: it decides the request's deadline and its place among others."""
    match plan:
        case Thumb():
            return "stored"
        case Derivative() | Tile():
            return "tile"
        case Stream(_, job):
            return "full" if job.output.area <= LARGE_PIXELS else "max"


def plan(asset: Asset, job: Job, grant: Grant) -> Plan:
    """The route of a request with any region, size and quality. Raises `Unauthorised`, `Forbidden`, `NotFound`."""
    access.check(job, asset, grant)
    stored = _stored(asset, job, grant, tolerance=0)
    if stored:
        return stored
    if asset.blob is None:
        raise NotFound("Only stored sizes of this image are available.")
    return Stream(asset.blob, job) if job.box == Box.whole(asset.size) else Tile(asset.blob, job)


def thumb_job(request: ImageRequest, asset: Asset, grant: Grant, *, version: Version) -> Job:
    """A request to `/thumbs/` in pixels of the image's shape.

    Level 0 has one region, one rotation, and jpg; what else is stored is available too. The image is as large as
    the largest rendition that the caller may see.
    """
    formats = info.thumb_formats(asset)
    check_thumb(request)
    if request.format not in formats:
        raise BadRequest(f"Only {' and '.join(formats)} are available here, not {request.format}.")
    stored = info.listed_thumbs(asset, grant) or [it.size for it in asset.renditions]
    largest = max(stored, key=lambda size: size.area)
    if not any(iiif.region_box(request.region, size) == Box.whole(size) for size in (largest, asset.size)):
        raise BadRequest("Only the full region is stored.")
    # What is above the largest stored size is not a mistake of the caller's, but not found: the planner says so.
    limits = (
        Limits(largest.width, largest.height) if isinstance(request.size.form, iiif.Max) else Limits(upscaling=True)
    )
    asked = replace(request, region=iiif.Full(), size=replace(request.size, upscale=version == 3 and limits.upscaling))
    job = iiif.resolve(asked, asset.size, version=version, limits=limits)
    # Stored as it is: another tool may have rounded its sides otherwise than we would.
    return replace(job, size=largest) if isinstance(request.size.form, iiif.Max) else job


def check_thumb(request: ImageRequest) -> None:
    """Raise `BadRequest` for what is stored of no image, before any is looked for."""
    if request.format not in get_args(StoredFormat):
        raise BadRequest(f"Only {' and '.join(get_args(StoredFormat))} are stored, not {request.format}.")
    if request.quality not in ("default", "color"):
        raise BadRequest(f"Only qualities default and color are stored, not {request.quality}.")
    if request.mirror or request.angle % 360:
        raise BadRequest("Stored sizes are not rotated: the rotation must be 0.")


def plan_thumb(
    asset: Asset, job: Job, grant: Grant, *, bounds: Size | None = None, upscale_percent: int = 0
) -> Thumb | Derivative:
    """The route of a full-region request that only stored renditions may answer.

    One pixel more or less counts as the known size, since other tools round differently; but nothing is larger than the
    `bounds` of a request `!w,h`. With `upscale_percent` the largest rendition may be enlarged by that much. Raises
    `Unauthorised`, `Forbidden`, `NotFound`.
    """
    access.check(job, asset, grant)
    stored = _stored(asset, job, grant, tolerance=1, bounds=bounds)
    if stored:
        return stored
    permitted = _permitted(asset, grant)
    if permitted:
        largest = permitted[0]
        if job.size.long_side * 100 <= largest.size.long_side * (100 + upscale_percent):
            return Derivative(largest, _from_rendition(job, largest))
    raise NotFound("No stored size of this image is large enough.")


def _stored(
    asset: Asset, job: Job, grant: Grant, *, tolerance: int, bounds: Size | None = None
) -> Thumb | Derivative | None:
    if job.box != Box.whole(asset.size):
        return None
    permitted = _permitted(asset, grant)
    if job.plain:
        for rendition in permitted:
            fits = bounds is None or bounds.covers(rendition.size)
            if fits and rendition.format == job.format and _near(rendition.size, job.size, tolerance):
                return Thumb(rendition)
    # A rendition that another tool made one pixel short still serves; the answer's size is exact all the same.
    enough = [it for it in permitted if Size(it.size.width + 1, it.size.height + 1).covers(job.size)]
    if not enough:
        return None
    smallest = min(enough, key=lambda it: it.size.area)
    return Derivative(smallest, _from_rendition(job, smallest))


def _permitted(asset: Asset, grant: Grant) -> list[Rendition]:
    """What the caller may see, largest first. Renditions under `auth/` need an unlimited grant."""
    return [it for it in asset.renditions if grant.unlimited or it.access == "open"]


def _near(one: Size, other: Size, tolerance: int) -> bool:
    return abs(one.width - other.width) <= tolerance and abs(one.height - other.height) <= tolerance


def _from_rendition(job: Job, rendition: Rendition) -> Job:
    return replace(job, box=Box.whole(rendition.size))
