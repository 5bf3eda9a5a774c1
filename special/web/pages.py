"""The pages around the images: the viewer, health, metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from special.observability import exposition
from special.serving import Engine
from special.version import __version__
from special.web import status, viewer
from special.web.loop_monitor import LoopMonitor
from special.web.proxies import PublicAddress

WATCHED = frozenset({"livez", "readyz", "metrics"})
"""Pages for monitoring, answered whatever the Host header says."""
GALLERY_PAGE = 24
"""Folders and images that the gallery asks for at a time."""


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the pages show and say."""

    about: Mapping[str, Any]
    """What the status page says of the server: source, workers, size of the volume."""
    gallery: bool | None
    """Whether images are listed; None: only those of a folder."""
    viewer_assets: Path | None
    id_segments: int
    sizes: str
    """What `derive` makes, as the settings say it; the gallery shows one of them."""


@dataclass(frozen=True, slots=True)
class PageRoutes:
    """All pages, by who looks at them."""

    health: list[Route]
    """What balancers and containers ask."""
    operation: list[Route]
    """Metrics and state, for the operator."""
    public: list[Route]
    """The gallery and its viewer."""


def routes(
    options: PageOptions,
    engine: Callable[[], Engine | None],
    address: PublicAddress,
    monitor: LoopMonitor,
    slowest: status.Slowest | None,
) -> PageRoutes:
    """All pages; `engine` gives the open engine, None until there is one. The status page needs `slowest`."""

    async def live(_: Request) -> Response:
        return PlainTextResponse(f"the event loop is {monitor.lag_s:.2f} s late\n", 200 if monitor.alive else 503)

    async def ready(_: Request) -> Response:
        # Neither the store nor the volume counts: without the store every replica would drop out at once, and a volume
        # that fails is passed by.
        opened = engine()
        up = opened is not None and opened.ready
        return PlainTextResponse("ready\n" if up else "no decoder is up\n", 200 if up else 503)

    async def metrics(_: Request) -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    async def list_images(request: Request, folder: str, after: str) -> viewer.Listing:
        opened = engine()
        assert opened is not None, "no page is asked for before the server has started"
        if not opened.gallery.is_offered(options.gallery):
            return viewer.Listing(images=(), next=None, listing=False)
        await opened.gallery.turn(address.client(request.scope, dict(request.scope["headers"])))
        page = await opened.gallery.page(folder=folder, after=after, count=GALLERY_PAGE)
        return viewer.Listing(images=page.images, folders=page.folders, next=page.next, listing=True)

    about = {"version": __version__, **options.about}
    return PageRoutes(
        health=[Route("/livez", live), Route("/readyz", ready)],
        operation=[Route("/metrics", metrics), *(status.routes(slowest, about) if slowest else ())],
        public=viewer.routes(
            list_images,
            assets=options.viewer_assets,
            id_segments=options.id_segments,
            thumbnail=viewer.thumbnail_size(options.sizes),
        ),
    )
