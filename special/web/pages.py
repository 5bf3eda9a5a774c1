"""The pages around the images: the viewer, health, metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from special import __version__
from special.observability import exposition
from special.serving import Engine
from special.settings import Settings
from special.web import status, viewer
from special.web.loop_monitor import LoopMonitor

WATCHED = frozenset({"livez", "readyz", "metrics"})
"""Pages for whoever watches over the server, under whatever name they reach it."""
GALLERY_PAGE = 24
"""Images that the gallery asks for at a time."""


def routes(
    settings: Settings, engine: Callable[[], Engine | None], pulse: LoopMonitor, slowest: status.Slowest | None
) -> list[Route]:
    """All pages; `engine` gives the open engine, None until there is one. The status page is there with `slowest`."""

    async def live(_: Request) -> Response:
        return PlainTextResponse(f"the event loop is {pulse.lag_s:.2f} s late\n", 200 if pulse.alive else 503)

    async def ready(_: Request) -> Response:
        # Neither the store nor the volume counts: without the one every replica would drop out at once, and the
        # other is passed by when it fails.
        opened = engine()
        up = opened is not None and opened.workers.ready
        return PlainTextResponse("ready\n" if up else "no decoder is up\n", 200 if up else 503)

    async def metrics(_: Request) -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    async def list_images(after: str) -> viewer.Listing:
        opened = engine()
        assert opened is not None, "no page is asked for before the server has started"
        allowed = settings.gallery
        if allowed is None:
            allowed = opened.source.root.startswith("file:")
        if not allowed:
            return viewer.Listing(images=(), next=None, listing=False)
        images = await opened.images(after=after, count=GALLERY_PAGE)
        following = images[-1] if len(images) == GALLERY_PAGE else None
        return viewer.Listing(images=tuple(images), next=following, listing=True)

    about = {
        "version": __version__,
        "source": settings.source,
        "workers": settings.workers,
        "volume_size": int(settings.volume_size),
    }
    return [
        *(status.routes(slowest, about) if slowest else ()),
        Route("/livez", live),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        *viewer.routes(list_images, assets=settings.viewer_assets, id_segments=settings.id_segments),
    ]
