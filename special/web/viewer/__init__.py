"""The page at `/`: a gallery, a deep-zoom viewer, addresses to share, and what each of its requests cost.

It shows a newcomer that the server works and an operator which route an image takes, and it leads callers of
restricted images to the login that info.json names. Files without a build step or a line of inline script, so that a
strict content policy holds. OpenSeadragon is one of them: nothing comes from elsewhere. Every address on the page is
relative, so that it works below a path of a proxy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from special import iiif
from special.errors import ConfigurationError, NotFound, SpecialError

LIBRARY = "openseadragon.min.js"
LIBRARY_VERSION = "6.1.1"
"""Of the file in this folder, which is that of the npm package, byte for byte."""
THUMBNAIL_SIDE = 240
"""Least long side of the gallery's pictures, in pixels."""

_LONG_SIDES = re.compile(r"\d{1,5}(,\d{1,5})*", re.ASCII)
_BOUND = re.compile(r"(\d{1,5}),|,(\d{1,5})|!(\d{1,5}),(\d{1,5})", re.ASCII)
_UNBOUNDED = "100000"
_MEDIA = {".css": "text/css", ".js": "text/javascript"}
# OpenSeadragon adds one <style> of its own and decodes in a worker that it makes from a blob; the token service of a
# login answers in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src blob:; connect-src 'self'; "
    "frame-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the gallery."""

    images: tuple[str, ...]
    """Identifiers, unquoted, in the source's order."""
    next: str | None
    """What to ask for the following page with; None where this is the last."""
    listing: bool
    """False where the source may not be listed."""
    folders: tuple[str, ...] = ()
    """Prefixes of keys, each with its slash."""


def routes(
    list_images: Callable[[Request, str, str], Awaitable[Listing]],
    *,
    assets: Path | None = None,
    id_segments: int = 1,
    thumbnail: str = f"!{THUMBNAIL_SIDE},{THUMBNAIL_SIDE}",
) -> list[Route]:
    """The page, its files and its listing, which `list_images` gives to a request: of a folder, after an entry.

    `assets` is a folder with another `openseadragon.min.js`; `thumbnail` the IIIF size of the gallery's pictures. All
    files are read here, once; raises `ConfigurationError` where the folder lacks the library.
    """
    here = files(__name__)
    served = {name: (here / name).read_bytes() for name in ("style.css", "page.js", "share.js", "login.js", LIBRARY)}
    if assets is not None:
        served[LIBRARY] = _library(assets)
    tags = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, data in served.items()}
    html = (here / "index.html").read_bytes()

    async def page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def images(request: Request) -> Response:
        asked = request.query_params
        folder = asked.get("folder", "")
        try:
            if "id" in asked:
                found = Listing((asked["id"],), next=None, listing=True)  # whether it exists, its info.json says
            else:
                found = await list_images(request, folder, asked.get("after", ""))
        except SpecialError as error:
            retry_after = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return PlainTextResponse(f"{error.public}\n", error.status, retry_after)
        listed = [{"id": name, "path": _path(name, id_segments)} for name in found.images]
        return JSONResponse(
            {
                "images": listed,
                "folders": found.folders,
                "thumbnail": thumbnail,
                "next": found.next,
                "listing": found.listing,
            }
        )

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in served:
            return PlainTextResponse(f"The viewer has no file '{name}'.\n", NotFound.status)
        headers = {"Cache-Control": "no-cache", "ETag": tags[name]}
        if request.headers.get("If-None-Match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(served[name], media_type=_MEDIA[Path(name).suffix], headers=headers)

    return [Route("/", page), Route("/viewer/images.json", images), Route("/viewer/{file}", file)]


def thumbnail_size(sizes: str) -> str:
    """The IIIF size of the gallery's pictures: of those that `derive` makes, the smallest that is large enough.

    What is stored is then shown as it is. `sizes` as the settings say it: `1024,400,200`, or `!1024,1024 400, ,300`.
    """
    words = sizes.split()
    if _LONG_SIDES.fullmatch(sizes.strip()):
        words = [f"!{side},{side}" for side in sizes.strip().split(",")]
    # Never `w,` or `,h`: of a smaller image that is more than there is.
    bounds = [(it[1] or it[3] or _UNBOUNDED, it[2] or it[4] or _UNBOUNDED) for it in map(_BOUND.fullmatch, words) if it]
    by_side = sorted(bounds, key=lambda bound: max(int(side) for side in bound if side != _UNBOUNDED))
    large_enough = (it for it in by_side if any(int(side) >= THUMBNAIL_SIDE for side in it if side != _UNBOUNDED))
    width, height = next(large_enough, by_side[-1] if by_side else (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return f"!{width},{height}"


def _library(assets: Path) -> bytes:
    try:
        return (assets / LIBRARY).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the viewer's folder {assets} has no readable {LIBRARY} ({error.strerror}); "
            f"take it from build/openseadragon/ of the npm package openseadragon"
        ) from None


def _path(identifier: str, id_segments: int) -> str:
    # 'iiif/3/…' could be the first segment of a longer identifier; 'iiif/v3/…' is understood always.
    version = "3" if id_segments == 1 else "v3"
    return f"iiif/{version}/{iiif.quote_identifier(identifier, id_segments=id_segments)}"
