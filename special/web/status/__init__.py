"""The page at `/status`: the state of the server in charts, for its operator.

Three files without a build step, drawn from one JSON address that adds up all server processes. It names
images, so it is there only where the setting `status` asks for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from special.errors import NotFound
from special.observability import Slowest, figures

__all__ = ["Slowest", "figures", "routes"]

_MEDIA = {".css": "text/css", ".js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FRESH = {"Cache-Control": "no-store"}


def routes(slowest: Slowest, about: dict[str, Any]) -> list[Route]:
    """The page, its files and its figures; `about` is what they say of the server besides."""
    here = files(__name__)
    html = (here / "index.html").read_text("utf-8")
    served = {name: (here / name).read_bytes() for name in ("style.css", "page.js")}

    async def page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": _POLICY, **_FRESH})

    async def data(_: Request) -> Response:
        return JSONResponse({**about, **figures(), "slowest": slowest.of_all()}, headers=_FRESH)

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in served:
            return PlainTextResponse(f"The status page has no file '{name}'.\n", NotFound.status)
        return Response(served[name], media_type=_MEDIA[Path(name).suffix], headers={"Cache-Control": "no-cache"})

    pages: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/status", page),
        ("/status/figures.json", data),
        ("/status/{file}", file),
    ]
    return [Route(path, answer) for path, answer in pages]
