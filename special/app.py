"""The HTTP face: from a request line to headers and a body.

Image routes are raw ASGI: at twenty thousand stored tiles a second every layer shows. The pages
around them (the viewer, health, metrics) are ordinary Starlette.

    /{prefix}[/v2|/v3]/{id…}/…    prefixes `iiif` and `iiif-img`: all routes; `thumbs`: stored sizes, level 0
    /auth/                        probe and token services, where a login is configured
    /livez /readyz /metrics       for whoever watches over the server
    /                             the viewer
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from time import perf_counter
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from special import iiif, info, observe, viewer
from special.access import Identity
from special.auth import Auth, probe
from special.engine import Engine, Planned
from special.errors import BadRequest, NotFound, SpecialError
from special.flow import MEDIA as AUTH_MEDIA
from special.identity import Verifier
from special.iiif import BaseRequest, ImageRequest, InfoRequest, Version
from special.reply import (
    CORS,
    PLAIN,
    PREFLIGHT,
    Broken,
    Headers,
    send_answer,
    send_bytes,
    send_error,
    send_head,
    timing,
)
from special.route import Thumb
from special.settings import Settings
from special.spans import NotModified, Span, Unless

log = logging.getLogger("special")

T = TypeVar("T")

GALLERY_PAGE = 24
"""Images that the gallery asks for at a time."""
SETTINGS_VARIABLE = "SPECIAL_RESOLVED_SETTINGS"
"""How the command line hands its settings to spawned server processes."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)
_OPEN_END = 2**62


class Gone(Exception):
    """The client has left; nobody is there to be answered."""


@dataclass(frozen=True, slots=True)
class Call:
    """What the image routes need to know of one HTTP request."""

    prefix: str
    path: str
    """Below the prefix, still percent-encoded."""
    method: str
    headers: dict[bytes, bytes]
    query: str
    base: str
    """`scheme://host` as the public sees it, without a trailing slash."""

    @property
    def level0(self) -> bool:
        """Whether only stored sizes are served here."""
        return self.prefix == "thumbs"

    def header(self, name: bytes) -> str | None:
        """A request header, if it is there."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class App:
    """The ASGI application of one server process; it opens its engine when the server starts it."""

    PREFIXES = ("iiif", "iiif-img", "thumbs")

    def __init__(self, settings: Settings, make_engine: Callable[[Settings], Engine] = Engine.of) -> None:
        self._settings = settings
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._verifier = Verifier.of(settings)
        self._auth = Auth.of(settings, self._verifier)
        self._pages = self._starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Image routes first; all else is Starlette's."""
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            prefix, slash, path = raw.decode("latin-1")[1:].partition("/")
            if slash and (prefix in self.PREFIXES or (prefix == "auth" and self._auth)):
                await self._image(scope, receive, send, prefix, path.partition("?")[0])
                return
        await self._pages(scope, receive, send)

    @property
    def engine(self) -> Engine:
        """The open engine."""
        if self._engine is None:
            raise RuntimeError("the application has not been started: it needs a server that speaks ASGI lifespan")
        return self._engine

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The time in which requests are answered: the engine is open inside."""
        async with self._make_engine(self._settings) as engine:
            self._engine = engine
            yield
            self._engine = None

    # Image routes

    async def _image(self, scope: Scope, receive: Receive, send: Send, prefix: str, path: str) -> None:
        start = perf_counter()
        with observe.tracing() as trace:
            status = 500
            try:
                if scope["method"] == "OPTIONS":
                    status = await send_bytes(send, 204, PREFLIGHT, None)
                    return
                if scope["method"] not in ("GET", "HEAD"):
                    status = await send_bytes(
                        send, 405, [*PREFLIGHT, PLAIN], b"Only GET, HEAD and OPTIONS are served.\n"
                    )
                    return
                headers = dict(scope["headers"])
                query = scope["query_string"].decode("latin-1")
                call = Call(prefix, path, scope["method"], headers, query, self._base(scope, headers))
                status = await self._answer(call, receive, send)
            except Gone:
                status = 499
            except SpecialError as error:
                if error.status >= 500:
                    log.warning("%s /%s/%s: %s: %s", scope["method"], prefix, path, error.code, error)
                status = await send_error(send, error, head=scope["method"] == "HEAD")
            except Broken as broken:
                log.warning("%s /%s/%s: cut off after its headers: %s", scope["method"], prefix, path, broken.__cause__)
                raise
            except Exception:
                log.exception("%s /%s/%s", scope["method"], prefix, path)
                status = await send_error(send, SpecialError(), head=scope["method"] == "HEAD")
            finally:
                observe.ANSWERS.labels(trace.route or "none", str(status)).inc()
                observe.ANSWER_SECONDS.labels(trace.route or "none").observe(perf_counter() - start)

    async def _answer(self, call: Call, receive: Receive, send: Send) -> int:
        identity = await self._verifier.identify(call.headers)
        if call.prefix == "auth" and self._auth:
            return await self._authorise(self._auth, call, identity, send)
        request = iiif.parse(call.path, id_segments=self._settings.id_segments)
        match request:
            case BaseRequest():
                location = f"{_uri(call, request, self._settings.id_segments)}/info.json"
                return await send_bytes(send, 303, [*CORS, (b"location", location.encode())], b"")
            case InfoRequest():
                return await self._info(call, request, identity, send)
            case ImageRequest():
                return await self._pixels(call, request, identity, receive, send)

    async def _info(self, call: Call, request: InfoRequest, identity: Identity, send: Send) -> int:
        accept = call.header(b"accept") or ""
        version = _version(request.version, accept)
        uri = _uri(call, request, self._settings.id_segments)
        make = self.engine.thumbs_info if call.level0 else self.engine.info
        services = self._auth.flow.services(call.base, uri) if self._auth else ()
        card = await make(request.identifier, uri, version=version, identity=identity, services=services)
        headers = [*CORS, *self._caching("Accept", restricted=card.restricted, age_s=60)]
        level = info.profile(version, card.level)
        if version == 3:
            headers.append((b"content-type", f'application/ld+json;profile="{info.CONTEXT[3]}"'.encode()))
            headers.append((b"link", f'<{level}>;rel="profile"'.encode()))
        elif "application/ld+json" in accept:
            headers.append((b"content-type", b"application/ld+json"))
            headers.append((b"link", f'<{level}>;rel="profile"'.encode()))
        else:
            context = f'<{info.CONTEXT[2]}>;rel="http://www.w3.org/ns/json-ld#context";type="application/ld+json"'
            headers.append((b"content-type", b"application/json"))
            headers.append((b"link", f'{context},<{level}>;rel="profile"'.encode()))
        data = json.dumps(card.document, indent=2, ensure_ascii=False).encode()
        return await send_bytes(send, 200, headers, data, head=call.method == "HEAD")

    async def _authorise(self, auth: Auth, call: Call, identity: Identity, send: Send) -> int:
        private, head = self._caching(restricted=True, age_s=0), call.method == "HEAD"
        service, _, rest = call.path.partition("/")
        if service == "token" and not rest:
            page, policy = await auth.token_page(call.headers, call.query)
            html = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy.encode())]
            return await send_bytes(send, 200, [*private, *html, (b"referrer-policy", b"no-referrer")], page, head=head)
        prefix, _, path = rest.partition("/")
        of = replace(call, prefix=prefix, path=path)
        if service == "probe" and prefix in self.PREFIXES:
            request = iiif.parse(path, id_segments=self._settings.id_segments)
            if isinstance(request, BaseRequest):
                asset = await (self.engine.thumbs_asset if of.level0 else self.engine.asset)(request.identifier)
                uri, caller = _uri(of, request, self._settings.id_segments), auth.bearer_of(call.headers, identity)
                result = probe(asset, uri, caller, limits=self.engine.limits, level0=of.level0)
                headers = [*CORS, *private, (b"content-type", AUTH_MEDIA.encode())]
                return await send_bytes(send, 200, headers, json.dumps(result).encode(), head=head)
        raise NotFound("There is no such service; info.json of a restricted image names those that there are.")

    async def _pixels(self, call: Call, request: ImageRequest, identity: Identity, receive: Receive, send: Send) -> int:
        version = _version(request.version, call.header(b"accept") or "")
        make = self.engine.plan_thumb if call.level0 else self.engine.plan
        planned = await make(request, version=version, identity=identity)
        observe.trace().route = planned.plan.name
        headers = [*CORS, *self._image_headers(call, request, planned, version)]
        unless, copied = _unless(call), isinstance(planned.plan, Thumb)
        try:
            if call.method == "HEAD":
                return await send_head(send, await self.engine.describe(planned, unless=unless), headers)
            at_hand = None if unless else self.engine.at_hand(planned)
            if at_hand is not None:
                return await send_answer(send, at_hand, headers)
            work = self.engine.run(planned, unless=unless, span=_range(call) if copied else None)
            # A copied object is on its way at once; whatever needs a decoder ends when its client leaves.
            answer = await (work if copied else _while_there(work, receive))
        except NotModified:
            if planned.etag:
                headers.append((b"etag", planned.etag.encode()))
            return await send_bytes(send, 304, [*headers, timing()], None)
        return await send_answer(send, answer, headers)

    def _image_headers(self, call: Call, request: ImageRequest, planned: Planned, version: Version) -> Headers:
        uri = _uri(call, request, self._settings.id_segments)
        level = info.profile(version, 0 if call.level0 else info.level(planned.grant))
        link = f'<{uri}/{planned.canonical}>;rel="canonical",<{level}>;rel="profile"'
        headers: Headers = [
            (b"link", link.encode()),
            (b"x-special-route", planned.plan.name.encode()),
            *self._caching(
                *(() if request.version else ("Accept",)),
                restricted=planned.restricted,
                age_s=self._settings.max_age_s,
            ),
        ]
        if call.level0:
            # What the DLCS says of its own thumbs; sites look for it.
            headers.append((b"x-thumb-match" if isinstance(planned.plan, Thumb) else b"x-thumb-resized", b"1"))
        if isinstance(planned.plan, Thumb):
            headers.append((b"accept-ranges", b"bytes"))
        return headers

    def _caching(self, *vary: str, restricted: bool, age_s: int) -> Headers:
        value = "private, no-store" if restricted else f"public, max-age={age_s}"
        headers = [(b"cache-control", value.encode())]
        names = (*vary, *self._verifier.vary) if restricted else vary
        return [*headers, (b"vary", ", ".join(names).encode())] if names else headers

    def _base(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        settings = self._settings
        if settings.base_url:
            return settings.base_url.rstrip("/")
        scheme, host = scope["scheme"], headers.get(b"host", b"").decode("latin-1")
        if scope.get("client") and scope["client"][0] in settings.trusted_proxies:
            scheme = headers.get(b"x-forwarded-proto", scheme.encode()).decode("latin-1").split(",")[0].strip()
            host = headers.get(b"x-forwarded-host", host.encode("latin-1")).decode("latin-1").split(",")[0].strip()
        if scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise BadRequest("The Host header is not a host name.")
        return f"{scheme}://{host}"

    # Pages

    async def _list_images(self, after: str) -> viewer.Listing:
        allowed = self._settings.gallery
        if allowed is None:
            allowed = self.engine.source.root.startswith("file:")
        if not allowed:
            return viewer.Listing(images=(), next=None, listing=False)
        images = await self.engine.images(after=after, count=GALLERY_PAGE)
        following = images[-1] if len(images) == GALLERY_PAGE else None
        return viewer.Listing(images=tuple(images), next=following, listing=True)

    def _starlette(self) -> Starlette:
        async def live(_: Request) -> Response:
            return PlainTextResponse("live\n")

        async def ready(_: Request) -> Response:
            up = self._engine is not None and self._engine.workers.ready
            return PlainTextResponse("ready\n" if up else "no decoder is up\n", 200 if up else 503)

        async def metrics(_: Request) -> Response:
            return Response(observe.exposition(), media_type=CONTENT_TYPE_LATEST)

        return Starlette(
            routes=[
                Route("/livez", live),
                Route("/readyz", ready),
                Route("/metrics", metrics),
                *viewer.routes(
                    self._list_images, assets=self._settings.viewer_assets, id_segments=self._settings.id_segments
                ),
            ],
            lifespan=lambda _: self.running(),
        )


def create() -> App:
    """The application of a server process that was spawned: its settings come by the environment, as JSON."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return App(Settings.model_validate_json(os.environ[SETTINGS_VARIABLE]))


def _end_with_supervisor() -> None:
    """Stop, as at SIGTERM, when the supervisor is gone: one that was killed could not say so, and its port is held."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _uri(call: Call, request: ImageRequest | InfoRequest | BaseRequest, id_segments: int) -> str:
    """The image's base URI, with the version segment that was asked for."""
    identifier = iiif.quote_identifier(request.identifier, id_segments=id_segments)
    version = f"{call.path.partition('/')[0]}/" if request.version else ""
    return f"{call.base}/{call.prefix}/{version}{identifier}"


def _version(named: Version | None, accept: str) -> Version:
    """The version that the URL names, else the one whose context Accept names, else 3."""
    return named or (2 if info.CONTEXT[2] in accept else 3)


def _unless(call: Call) -> Unless | None:
    """The conditions of a request under which no body is wanted."""
    etag, since = call.header(b"if-none-match"), _date(call.header(b"if-modified-since"))
    return Unless(etag, since) if etag or since else None


def _range(call: Call) -> Span | None:
    """A single range of a copied object.

    A range is a favour that may be left undone (RFC 9110, section 14.2): with If-Range, or of several, all is sent.
    """
    wanted = _RANGE.fullmatch(call.header(b"range") or "")
    if wanted is None or call.header(b"if-range") is not None:
        return None
    first = int(wanted[1])
    stop = int(wanted[2]) + 1 if wanted[2] else _OPEN_END
    return Span(first, stop) if first < stop else None


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    return date if date is not None and date.tzinfo is not None else None


async def _while_there(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of some work, which is cancelled when the client leaves first. Raises `Gone`."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
