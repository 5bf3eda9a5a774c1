"""info.json of Image API 3.0 and 2.1. Pure.

Only what works is named: a client that asks for everything that info.json names gets 200 and the
exact size, always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from special import geometry
from special.auth import AUTH_CONTEXT, Grant
from special.formats import Tiling
from special.geometry import Size
from special.iiif import MEDIA, QUALITIES, Limits, Version
from special.images import Asset, Description

CONTEXT: dict[Version, str] = {
    2: "http://iiif.io/api/image/2/context.json",
    3: "http://iiif.io/api/image/3/context.json",
}
Services = Sequence[dict[str, Any]]
"""Login services, named for restricted images alone."""
PHYSICAL = {
    "@context": "http://iiif.io/api/annex/services/physdim/1/context.json",
    "profile": "http://iiif.io/api/annex/services/physdim",
}
PROTOCOL = "http://iiif.io/api/image"
DEFAULT_TILE = Size(512, 512)
"""Tiles that are offered where the master has no grid of its own."""

_FEATURES_3 = (
    "baseUriRedirect",
    "canonicalLinkHeader",
    "cors",
    "jsonldMediaType",
    "mirroring",
    "profileLinkHeader",
    "regionByPct",
    "regionByPx",
    "regionSquare",
    "rotationArbitrary",
    "rotationBy90s",
    "sizeByConfinedWh",
    "sizeByH",
    "sizeByPct",
    "sizeByW",
    "sizeByWh",
)
_FEATURES: dict[Version, tuple[str, ...]] = {3: _FEATURES_3, 2: tuple(sorted((*_FEATURES_3, "sizeByDistortedWh")))}
_REGIONS = frozenset({"regionByPct", "regionByPx", "regionSquare"})
"""Features that only those have who may see everything."""
_ANY_SIZE = frozenset({"sizeByW", "sizeByWh"})
"""Features that are not named to others: OpenSeadragon then asks for sizes above `maxWidth`, which it does not read."""
_UPSCALING: dict[Version, str] = {3: "sizeUpscaling", 2: "sizeAboveFull"}


def profile(version: Version, level: int) -> str:
    """URI of a compliance level, for the Link header and for 2.1's profile."""
    return f"http://iiif.io/api/image/{version}/level{level}.json"


def level(grant: Grant) -> int:
    """The compliance level at which `info` describes an image: one that may not be cropped is at 0."""
    return 2 if grant.unlimited else 0


def info(
    asset: Asset,
    uri: str,
    *,
    version: Version,
    limits: Limits,
    grant: Grant,
    services: Services = (),
) -> dict[str, Any]:
    """info.json at level 2, and at 0 for those who may see less; `uri` is the base URI without a trailing slash."""
    limits = granted(limits, grant)
    document = _head(uri, version, asset.size)
    grid = _tiles(asset.size, asset.tiling, limits) if grant.unlimited else None
    sizes = _sizes(asset, grant, limits, grid["scaleFactors"] if grid else ())
    if sizes:
        document["sizes"] = _listed(sizes)
    if grid:
        document["tiles"] = [grid]
    bounds = {"maxWidth": limits.max_width, "maxHeight": limits.max_height, "maxArea": limits.max_area}
    bounds = {name: value for name, value in bounds.items() if value is not None}
    if "maxHeight" in bounds:
        # Section 5.3: maxHeight needs maxWidth beside it.
        bounds.setdefault("maxWidth", limits.reduce(asset.size).width)
    features = [name for name in _FEATURES[version] if grant.unlimited or name not in _REGIONS | _ANY_SIZE]
    if limits.upscaling and ("maxWidth" in bounds or "maxArea" in bounds):
        features.append(_UPSCALING[version])
    # Sections 5 of the compliance documents: png comes with level 2.
    formats = [name for name in MEDIA if name != "jpg" and not (grant.unlimited and name == "png")]
    qualities = [name for name in QUALITIES if name != "default"]
    if version == 3:
        document["profile"] = f"level{level(grant)}"
        document |= bounds
        document["extraFormats"] = formats
        document["extraQualities"] = qualities
        document["extraFeatures"] = sorted(features)
        document["preferredFormats"] = ["jpg"]
    else:
        described = {"formats": formats, "qualities": qualities, "supports": sorted(features)}
        document["profile"] = [profile(2, level(grant)), bounds | described]
    return _with_services(document, services if asset.restricted or grant.is_personal else (), version)


def listed_thumbs(asset: Asset, grant: Grant) -> list[Size]:
    """The stored sizes that the caller may see, ascending."""
    sizes = sorted({it.size for it in asset.renditions if grant.unlimited or it.access == "open"}, key=_by_area)
    return [size for size in sizes if grant.max_side is None or size.long_side <= grant.max_side]


def thumb_formats(asset: Asset) -> list[str]:
    """What level 0 offers: jpg, whatever is stored (compliance document, section 6), and then what is."""
    return list(dict.fromkeys(["jpg", *(it.format for it in asset.renditions)]))


def info_thumbs(asset: Asset, uri: str, *, version: Version, grant: Grant, services: Services = ()) -> dict[str, Any]:
    """info.json at level 0: stored sizes alone, so that a client of level 0 can show each one that is listed."""
    sizes = listed_thumbs(asset, grant)
    document = _head(uri, version, sizes[-1] if sizes else asset.size)
    document["sizes"] = _listed(sizes)
    features = ["baseUriRedirect", "cors", "jsonldMediaType", "profileLinkHeader"]
    formats = thumb_formats(asset)
    if version == 3:
        document["profile"] = "level0"
        if formats[1:]:
            document["extraFormats"] = formats[1:]
        document["extraFeatures"] = sorted([*features, "sizeByConfinedWh", "sizeByH"])
    else:
        supports = [*features, "sizeByConfinedWh", "sizeByH", "sizeByWhListed"]
        document["profile"] = [
            profile(2, 0),
            {"formats": formats, "qualities": ["default", "color"], "supports": sorted(supports)},
        ]
    return _with_services(document, services if asset.restricted or grant.is_personal else (), version)


def granted(limits: Limits, grant: Grant) -> Limits:
    """The server's limits and the caller's together."""
    if grant.max_side is None:
        return limits
    width = min(limits.max_width or grant.max_side, grant.max_side)
    height = min(limits.max_height or grant.max_side, grant.max_side)
    return Limits(max(1, width), max(1, height), limits.max_area, upscaling=False)


def _with_services(document: dict[str, Any], services: Services, version: Version) -> dict[str, Any]:
    """Authorization Flow 2.0, section 2.1: its context comes before the image's; 2.1 keeps it inside the service."""
    if not services:
        return document
    if version == 3 and any(service["@context"] == AUTH_CONTEXT for service in services):
        named = {"@context": [AUTH_CONTEXT, CONTEXT[3]]}
        inside = [_without_context(it) if it["@context"] == AUTH_CONTEXT else it for it in services]
        return document | named | {"service": inside}
    return document | {"service": list(services)}


def _without_context(service: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in service.items() if name != "@context"}


def described(document: dict[str, Any], said: Description, version: Version) -> dict[str, Any]:
    """The document with what is said of the image, in the words of its version.

    Image API 3.0, sections 5.6 and 5.7, and Presentation API 3.0 for `provider`; 2.1, sections 5.3 and 5.6.
    """
    service = {"service": [*document.get("service", ()), *said.service]} if said.service else {}
    words: dict[str, Any] = {"license": said.rights, "attribution": said.attribution}
    if version == 3:
        listed = {"provider": said.provider, "partOf": said.part_of, "seeAlso": said.see_also}
        words = {"rights": said.rights, **{name: list(value) for name, value in listed.items()}}
    return document | {name: value for name, value in words.items() if value} | service


def measured(document: dict[str, Any], density: float) -> dict[str, Any]:
    """The document with the physical dimensions of what it describes: IIIF Annex, "Physical Dimensions"."""
    services = document.get("service", ())
    if any(it.get("profile") == PHYSICAL["profile"] for it in services):  # a catalogue knows better
        return document
    return document | {"service": [*services, PHYSICAL | {"physicalScale": 1 / density, "physicalUnits": "in"}]}


def _head(uri: str, version: Version, size: Size) -> dict[str, Any]:
    head: dict[str, Any] = {"@context": CONTEXT[version]}
    head |= {"id": uri, "type": "ImageService3"} if version == 3 else {"@id": uri}
    return head | {"protocol": PROTOCOL, "width": size.width, "height": size.height}


def _sizes(asset: Asset, grant: Grant, limits: Limits, factors: Sequence[int]) -> list[Size]:
    """Renditions that the caller may see, and levels of the master and of the tiles at these factors; ascending.

    OpenSeadragon 4.1 to 5.0.1 takes sizes for the levels of the tiles, whatever they are, where there are as many of
    them, or all but the full size. Any other list has another length, at the cost of its largest sizes if need be.
    """
    shape, last = asset.size, max(factors, default=1)
    # Viewers halve up to the largest factor, whatever there is between.
    halved = [_divided(shape, 2**power) for power in range(round(math.log2(last)) + 1)] if factors else []
    stored = {it.size for it in asset.renditions if grant.unlimited or it.access == "open"}
    # A level that the master rounds in another way is the same to a viewer.
    levels = {*halved, *(it for it in asset.levels if not any(_is_near(it, level) for level in halved))}
    if grant.max_side:
        levels.add(limits.reduce(shape))
    sizes = sorted((size for size in stored | levels if limits.allow(size)), key=_by_area)
    if set(sizes) not in ({*halved}, {*halved[1:]}):
        counts = {len(factors), len(halved)} if factors else set()
        while sizes and not counts.isdisjoint((len(sizes), len(sizes) + 1)):
            sizes.pop()
    return sizes


def _divided(shape: Size, factor: int) -> Size:
    """The size of a level (implementation notes of the Image API 3.0, section 8)."""
    return Size(geometry.ceil_div(shape.width, factor), geometry.ceil_div(shape.height, factor))


def _is_near(one: Size, other: Size) -> bool:
    return abs(one.width - other.width) <= 1 and abs(one.height - other.height) <= 1


def _listed(sizes: Iterable[Size]) -> list[dict[str, int]]:
    return [{"width": size.width, "height": size.height} for size in sizes]


def _tiles(image: Size, tiling: Tiling | None, limits: Limits) -> dict[str, Any]:
    tile = tiling.tile if tiling else DEFAULT_TILE
    while not limits.allow(tile):
        tile = limits.reduce(tile)
    factors = list(tiling.scale_factors) if tiling else _factors(image, tile)
    # A viewer that zooms out past the master's last level still gets tiles: they are shrunk from it.
    while factors[-1] * tile.width < image.width or factors[-1] * tile.height < image.height:
        factors.append(factors[-1] * 2)
    described: dict[str, Any] = {"width": tile.width}
    if tile.height != tile.width:
        described["height"] = tile.height
    return described | {"scaleFactors": factors}


def _factors(image: Size, tile: Size) -> list[int]:
    largest = max(geometry.ceil_div(image.width, tile.width), geometry.ceil_div(image.height, tile.height))
    return [2**power for power in range((largest - 1).bit_length() + 1)]


def _by_area(size: Size) -> tuple[int, int]:
    return size.area, size.width
