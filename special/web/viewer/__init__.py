"""The page at `/`: a gallery, a deep-zoom viewer, and what each of its requests cost.

It shows a newcomer that the server works and an operator which route an image takes, and it leads callers of
restricted images to the login that info.json names. Four files without a build step or a line of inline
script, so that a strict content policy holds; OpenSeadragon comes from a CDN, pinned by its hash, or from a
folder of the operator's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from special import iiif
from special.errors import ConfigurationError, NotFound, SpecialError

LIBRARY = "openseadragon.min.js"
LIBRARY_VERSION = "6.1.1"
LIBRARY_URL = f"https://cdn.jsdelivr.net/npm/openseadragon@{LIBRARY_VERSION}/build/openseadragon/{LIBRARY}"
LIBRARY_INTEGRITY = "sha384-KKly+4vqqBHitr2XfNKWa3+0asIVpzYs2HijkM/zz0X6rgnyLuQEVERX9HqkM5/P"
"""Of that very file in the npm package; a test computes it again."""

_MEDIA = {".css": "text/css", ".js": "text/javascript"}
# OpenSeadragon adds one <style> of its own and decodes in a worker that it makes from a blob; the token service of a
# login answers in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self' https://cdn.jsdelivr.net; worker-src blob:; connect-src 'self'; "
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


def routes(
    list_images: Callable[[str], Awaitable[Listing]], *, assets: Path | None = None, id_segments: int = 1
) -> list[Route]:
    """The page, its files and its listing, which `list_images` gives from the identifier after which it starts.

    `assets` is a folder with `openseadragon.min.js`. All files are read here, once; raises `ConfigurationError`
    where the folder lacks it.
    """
    here = files(__name__)
    served = {name: (here / name).read_bytes() for name in ("style.css", "page.js", "login.js")}
    library, integrity = LIBRARY_URL, LIBRARY_INTEGRITY
    if assets is not None:
        served[LIBRARY] = _library(assets)
        library, integrity = f"viewer/{LIBRARY}", integrity_of(served[LIBRARY])
    html = Template((here / "index.html").read_text("utf-8")).substitute(library=library, integrity=integrity)

    async def page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def images(request: Request) -> Response:
        named = request.query_params.get("id")
        try:
            found = await list_images(request.query_params.get("after", "")) if named is None else _only(named)
        except SpecialError as error:
            retry_after = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return PlainTextResponse(f"{error.public}\n", error.status, retry_after)
        listed = [{"id": name, "path": _path(name, id_segments)} for name in found.images]
        return JSONResponse({"images": listed, "next": found.next, "listing": found.listing})

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in served:
            return PlainTextResponse(f"The viewer has no file '{name}'.\n", NotFound.status)
        return Response(served[name], media_type=_MEDIA[Path(name).suffix], headers={"Cache-Control": "no-cache"})

    return [Route("/", page), Route("/viewer/images.json", images), Route("/viewer/{file}", file)]


def integrity_of(script: bytes) -> str:
    """The value of an `integrity` attribute (W3C Subresource Integrity, section 3.1)."""
    return "sha384-" + base64.b64encode(hashlib.sha384(script).digest()).decode()


def _library(assets: Path) -> bytes:
    try:
        return (assets / LIBRARY).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the viewer's folder {assets} has no readable {LIBRARY} ({error.strerror}); "
            f"take it from build/openseadragon/ of the npm package openseadragon"
        ) from None


def _only(identifier: str) -> Listing:
    """One image by name. Whether it exists, its info.json says."""
    return Listing((identifier,), next=None, listing=True)


def _path(identifier: str, id_segments: int) -> str:
    # '/iiif/3/…' could be the first segment of a longer identifier; '/iiif/v3/…' is understood always.
    version = "3" if id_segments == 1 else "v3"
    return f"/iiif/{version}/{iiif.quote_identifier(identifier, id_segments=id_segments)}"
