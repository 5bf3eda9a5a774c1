"""What two servers' answers to one request differ in. Pure, but for the decoding of pictures.

no answer    one of them did not answer
status       with another status; nothing else is then compared
media type
unreadable   a picture that cannot be decoded
size         a picture of another size
rounding     a picture one pixel wider, narrower, higher or lower
pixels       a picture less alike than is asked
info         info.json describes the image otherwise
headers      that browsers, viewers and caches go by
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urljoin, urlsplit

from special.compare import pixels
from special.compare.pixels import PixelDifference, Unreadable
from special.compare.sample import Request
from special.compare.servers import Answer, NoAnswer

DifferenceKind = Literal[
    "no answer", "status", "media type", "unreadable", "size", "rounding", "pixels", "info", "headers"
]
DIFFERENCES: tuple[DifferenceKind, ...] = get_args(DifferenceKind)

STEP_DB = 5
"""Pixel differences are counted in steps of this many dB."""
_TERMS = ("width", "height", "tiles", "sizes", "maxWidth", "maxHeight", "maxArea")
"""What info.json says of the image itself, in either version."""
_COPIED = ("access-control-allow-origin", "content-disposition")
"""Headers that are compared as they are."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two answers differ."""

    kind: DifferenceKind
    detail: str
    """Old → new."""
    group: str = ""
    """What is counted together, where that is not the detail."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one request."""

    request: Request
    differences: tuple[Difference, ...]
    pixels: PixelDifference | None = None
    """Where both are pictures of one size."""


def compare(
    request: Request, old: Answer | NoAnswer, new: Answer | NoAnswer, *, bases: tuple[str, str], psnr_db: float
) -> Comparison:
    """Two answers to one request; pictures below `psnr_db` differ. `bases`: what the addresses of each begin with."""
    if isinstance(old, NoAnswer) or isinstance(new, NoAnswer):
        said = " → ".join(it.reason if isinstance(it, NoAnswer) else str(it.status) for it in (old, new))
        return Comparison(request, (Difference("no answer", said),))
    if old.status != new.status:
        return Comparison(request, (Difference("status", f"{old.status} → {new.status}"),))
    found = list(_headers(old, new, bases))
    if old.status != 200:
        return Comparison(request, tuple(found))
    if request.kind == "info.json":
        return Comparison(request, (*_info(request, old, new, bases), *found))
    media = [_media(it) for it in (old, new)]
    if media[0] != media[1]:
        found.insert(0, Difference("media type", " → ".join(media)))
    if old.body == new.body:
        return Comparison(request, tuple(found))
    apart, seen = _pictures(old.body, new.body, psnr_db)
    return Comparison(request, (*apart, *found), seen)


def _pictures(old: bytes, new: bytes, psnr_db: float) -> tuple[list[Difference], PixelDifference | None]:
    try:
        before, after = pixels.size_of(old), pixels.size_of(new)
        if before != after:
            near = abs(before.width - after.width) <= 1 and abs(before.height - after.height) <= 1
            detail = f"{before.width}×{before.height} → {after.width}×{after.height}"
            kind: DifferenceKind = "rounding" if near else "size"
            changes = f"width {_change(before.width, after.width)}, height {_change(before.height, after.height)}"
            return [Difference(kind, detail, changes)], None
        seen = pixels.difference(old, new)
    except Unreadable as error:
        return [Difference("unreadable", str(error))], None
    if seen.psnr_db >= psnr_db:
        return [], seen
    detail = f"PSNR {seen.psnr_db:.1f} dB, mean {seen.mean:.2f}, worst at {seen.worst} with {seen.worst_mean:.1f}"
    low = int(seen.psnr_db // STEP_DB) * STEP_DB
    return [Difference("pixels", detail, f"PSNR from {low} to {low + STEP_DB} dB")], seen


def _change(before: int, after: int) -> str:
    return "same" if before == after else "larger" if after > before else "smaller"


def _info(request: Request, old: Answer, new: Answer, bases: tuple[str, str]) -> Iterator[Difference]:
    documents = [_document(it) for it in (old, new)]
    if None in documents:
        yield Difference("info", " → ".join("no JSON object" if it is None else "JSON" for it in documents))
        return
    before, after = (it or {} for it in documents)
    for name in _TERMS:
        one, other = _term(before, name), _term(after, name)
        if one != other:
            yield Difference("info", name)
    level = [_level(it) for it in (before, after)]
    if level[0] != level[1]:
        yield Difference("info", f"profile {level[0]} → {level[1]}")
    own = [str(it.get("id", it.get("@id", ""))) for it in (before, after)]
    # Where the old one's id is not where it was asked (behind a proxy), the new one's need not be.
    expected = [urlsplit(f"{base}{request.path.removesuffix('/info.json')}").path for base in bases]
    if urlsplit(own[0]).path == expected[0] and urlsplit(own[1]).path != expected[1]:
        yield Difference("info", "id is not the address that was asked")


def _document(answer: Answer) -> dict[str, Any] | None:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _term(document: Mapping[str, Any], name: str) -> Any:
    """A member as Image API 3 has it; 2 has the limits inside `profile`."""
    value = document.get(name)
    profile = document.get("profile")
    if value is None and isinstance(profile, list):
        value = next((it[name] for it in profile if isinstance(it, dict) and name in it), None)
    if name == "sizes" and isinstance(value, list):
        return sorted((it.get("width"), it.get("height")) for it in value if isinstance(it, dict))
    if name == "tiles" and isinstance(value, list):
        return [
            (it.get("width"), it.get("height", it.get("width")), sorted(it.get("scaleFactors", ()))) for it in value
        ]
    return value


def _level(document: Mapping[str, Any]) -> str:
    """The compliance level in either version's words: `level2`, or `http://iiif.io/api/image/2/level2.json`."""
    profile = document.get("profile")
    first = str(profile[0] if isinstance(profile, list) and profile else profile)
    return re.split("[/#]", first)[-1].removesuffix(".json")


def _headers(old: Answer, new: Answer, bases: tuple[str, str]) -> Iterator[Difference]:
    for name in _COPIED:
        one, other = (it.headers.get(name, "none") for it in (old, new))
        if one != other:
            yield Difference("headers", f"{name}: {one} → {other}")
    caching = [", ".join(sorted(_directives(it))) or "none" for it in (old, new)]
    if caching[0] != caching[1]:
        yield Difference("headers", f"cache-control: {caching[0]} → {caching[1]}")
    pinned = ["yes" if {"etag", "last-modified"} & it.headers.keys() else "no" for it in (old, new)]
    if pinned[0] != pinned[1]:
        yield Difference("headers", f"validator: {pinned[0]} → {pinned[1]}")
    places = [_location(it, base) for it, base in zip((old, new), bases, strict=True)]
    if places[0] != places[1]:
        yield Difference("headers", "location leads elsewhere")


def _directives(answer: Answer) -> set[str]:
    return {it.strip().lower() for it in answer.headers.get("cache-control", "").split(",") if it.strip()}


def _location(answer: Answer, base: str) -> str | None:
    """Where a redirect leads, below the server's base."""
    location = answer.headers.get("location")
    return None if location is None else urlsplit(urljoin(base, location)).path.removeprefix(urlsplit(base).path)


def _media(answer: Answer) -> str:
    return answer.headers.get("content-type", "none").partition(";")[0].strip().lower()
