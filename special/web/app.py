"""The ASGI application of one server process: who answers what, and what becomes of errors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from special import composition
from special.auth import AccessTokens, Rules, RulesInForce, Verifier
from special.errors import ConfigurationError, RequestError, SpecialError
from special.iiif import Version
from special.images import PurgeList
from special.observability import SHARED_COUNTS, OtelExporter, logs, tracing
from special.serving import Engine
from special.settings import Settings, with_rules_of
from special.web import observers, pages, purges
from special.web.auth import Auth
from special.web.config_watch import ConfigWatch
from special.web.disconnect import Disconnected
from special.web.images import PREFIXES, ImageOptions, Images
from special.web.loop_monitor import LoopMonitor
from special.web.observers import FinishedRequest, Observer
from special.web.pages import PageOptions
from special.web.process_tuning import tune
from special.web.proxies import PublicAddress
from special.web.purges import Purges
from special.web.request import EXTENSION, Begun, HttpRequest
from special.web.response import ALLOW, CORS, PLAIN, Broken, preflight, send_bytes, send_error
from special.web.response_cache import ResponseCache
from special.web.status import Slowest
from special.workers import forbid_inspection

SETTINGS_VARIABLE = "SPECIAL_RESOLVED_SETTINGS"
"""How the command line hands its settings to spawned server processes."""
CONFIG_VARIABLE = "SPECIAL_RESOLVED_CONFIG"
"""The same for the path of its configuration file, if it has one."""


class App:
    """The ASGI application of one server process; it opens its engine when the server starts it."""

    def __init__(
        self,
        settings: Settings,
        make_engine: Callable[[Settings], Engine] = composition.engine,
        *,
        config: Path | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`clock` tells when requests arrive and when their deadlines are over; rules are read again of `config`."""
        self._settings = settings
        self._make_engine = make_engine
        self._config = config
        self._clock = clock
        self._address = PublicAddress.of(
            settings.base_url, trusted_proxies=settings.trusted_proxies, allowed_hosts=settings.allowed_hosts
        )
        self._version: Version = 2 if settings.default_version == 2 else 3
        self._verifier = composition.verifier(settings)
        self._auth = _auth(settings, self._verifier)
        self._images: Images | None = None
        self._monitor = LoopMonitor()
        shared = os.environ.get(SHARED_COUNTS)
        self._slowest = Slowest(Path(shared) if shared else None) if settings.status else None
        self._observers: list[Observer] = [observers.count, observers.log]
        if self._slowest:
            self._observers.append(observers.rank_in(self._slowest))
        self.response_cache = ResponseCache(
            self._observers, credentials=self._verifier.vary, client_of=self._address.client, clock=clock
        )
        options = PageOptions(
            about={
                "source": settings.source,
                "workers": settings.workers,
                "volume_size": int(settings.volume_size),
            },
            gallery=settings.gallery,
            viewer_assets=settings.viewer_assets,
            id_segments=settings.id_segments,
            sizes=settings.sizes,
        )
        found = pages.routes(
            options, lambda: self._images.engine if self._images else None, self._address, self._monitor, self._slowest
        )
        if settings.admin_token_file is not None:
            form = composition.identifier_form(settings)
            token = purges.token_of(settings.admin_token_file)
            found.operation.append(purges.route(token, form, lambda: self._running_purges))
        self._admin_port = settings.admin_port
        self._admin = Starlette(routes=[*found.health, *found.operation])
        public = found.operation if settings.admin_port is None else []
        self._pages = Starlette(
            routes=[*found.health, *public, *found.public],
            lifespan=lambda _: self.running(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Image routes first; all else is Starlette's."""
        if scope["type"] == "http":
            if self._admin_port is not None and scope["server"][1] == self._admin_port:
                await self._admin(scope, receive, partial(_send_page, send))
                return
            whole: bytes = scope.get("raw_path") or scope["path"].encode()
            raw = whole.removeprefix(scope.get("root_path", "").encode())
            prefix, slash, path = raw.decode("latin-1")[1:].partition("/")
            if slash and (prefix in PREFIXES or (prefix == "auth" and self._auth)):
                await self._image(scope, receive, send, prefix, path.partition("?")[0])
                return
            if prefix not in pages.WATCHED:
                try:
                    self._address.base(scope, dict(scope["headers"]))
                except RequestError as error:
                    await send_error(send, error, head=scope["method"] == "HEAD")
                    return
            send = partial(_send_page, send)
        elif scope["type"] == "lifespan":
            send = partial(_say_briefly, send)
        await self._pages(scope, receive, send)

    @property
    def engine(self) -> Engine:
        """The open engine."""
        return self._started.engine

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The time in which requests are answered: the engine is open inside."""
        settings = self._settings
        options = ImageOptions(
            settings.id_segments,
            max_age_s=settings.max_age_s,
            form=composition.identifier_form(settings),
            aliases=settings.id_aliases,
            redirect_canonical=settings.redirect_canonical,
            offload_location=settings.offload_location if settings.offload else None,
            gallery=settings.gallery,
            cache_tag_header=settings.cache_tag_header,
            unsent_bytes=settings.decode_budget_bytes // 4,
        )
        async with AsyncExitStack() as stack:
            if settings.otel:
                exporter = OtelExporter.from_environment()
                stack.callback(exporter.close)
                self._observers.append(observers.export_to(exporter))
            engine = await stack.enter_async_context(self._make_engine(settings))
            if self._config is not None:
                await stack.enter_async_context(self._watch(self._config, engine.catalog.in_force).running())
            await stack.enter_async_context(self._monitor.running())
            self._purges = Purges(PurgeList(settings.home / "purges"), engine.purge)
            await stack.enter_async_context(self._purges.running())
            self._images = Images(
                options,
                engine,
                verifier=self._verifier,
                auth=self._auth,
                response_cache=self.response_cache,
                clock=self._clock,
            )
            yield
            self._images = None
            self.response_cache.clear()

    def _watch(self, config: Path, in_force: RulesInForce) -> ConfigWatch[Rules]:
        def replace(rules: Rules) -> None:
            in_force.rules = rules

        return ConfigWatch(config, lambda: composition.rules(with_rules_of(config, self._settings)), replace)

    @property
    def _running_purges(self) -> Purges:
        assert self._purges is not None, "no address is asked for before the server has started"
        return self._purges

    @property
    def _started(self) -> Images:
        if self._images is None:
            raise RuntimeError("the application has not been started: it needs a server that speaks ASGI lifespan")
        return self._images

    async def _image(self, scope: Scope, receive: Receive, send: Send, prefix: str, path: str) -> None:
        begun: Begun | None = scope.get("extensions", {}).get(EXTENSION, {}).get("begun")
        start = begun.arrived_s if begun else self._clock()
        method: str = scope["method"]
        with tracing(begun.trace if begun else None) as trace:
            status, outcome = 500, "ok"
            failure: BaseException | None = None
            try:
                if begun and begun.failure:
                    trace.client = self._address.client(scope, dict(scope["headers"]))
                    raise begun.failure
                if method == "OPTIONS":
                    origins = self._auth.origins if self._auth else frozenset()
                    status = await send_bytes(send, 204, preflight(dict(scope["headers"]), origins), None)
                elif method not in ("GET", "HEAD"):
                    refusal = b"Only GET, HEAD and OPTIONS are served.\n"
                    status, outcome = await send_bytes(send, 405, [*CORS, ALLOW, PLAIN], refusal), "method"
                else:
                    call = HttpRequest.of(
                        scope, prefix, path, address=self._address, arrived_s=start, default_version=self._version
                    )
                    trace.client = call.client
                    status = await self._started.answer(call, receive, send)
            except Disconnected:
                status, outcome = 499, "gone"
            except SpecialError as error:
                outcome, failure = error.code, error
                status = await send_error(send, error, head=method == "HEAD")
            except Broken as broken:
                outcome, failure = "cut-off", broken.__cause__
                raise
            except Exception as error:
                outcome, failure = SpecialError.code, error
                status = await send_error(send, SpecialError(), head=method == "HEAD")
            finally:
                finished = FinishedRequest(
                    method,
                    f"/{prefix}/{path}",
                    scope["headers"],
                    trace,
                    start,
                    self._clock() - start,
                    status,
                    outcome,
                    failure,
                )
                for observe in self._observers:
                    observe(finished)
                # An error holds the frames that it passed, with a refused answer of 140 MB; this one must not hold it.
                del finished, failure


def _auth(settings: Settings, verifier: Verifier) -> Auth | None:
    """The services of a login; None where the settings describe none. Raises `ConfigurationError`."""
    flow = composition.flow(settings)
    if flow is None:
        return None
    tokens = AccessTokens.at(settings.access_token_key)
    return Auth(flow, tokens, verifier, frozenset(settings.auth_origins))


async def _send_page(send: Send, message: Message) -> None:
    """Browsers are not to guess the type of what a page sends."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
    await send(message)


async def _say_briefly(send: Send, message: Message) -> None:
    """Pass on Starlette's message of a start or stop; of a setting that cannot work the sentence, not the traceback."""
    error = sys.exception()
    if message["type"] == "lifespan.startup.failed" and isinstance(error, ConfigurationError):
        message = {**message, "message": str(error)}
    await send(message)


def create_app(settings: Settings, *, engine: Callable[[Settings], Engine] = composition.engine) -> App:
    """The server as an ASGI application, to be served by itself or mounted in another one.

    Where another application mounts it, that one enters `running()` of it in its own lifespan: ASGI starts mounted
    applications never. `engine` makes the services, by default of the settings alone. Raises `ConfigurationError`.
    """
    return App(settings, engine)


def create() -> App:
    """The application of a server process that was spawned: its settings come by the environment, as JSON."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    settings = Settings.model_validate_json(os.environ[SETTINGS_VARIABLE])
    logs.setup(settings.log_format, sys.stderr)
    tune()
    forbid_inspection()
    config = os.environ.get(CONFIG_VARIABLE)
    return App(settings, config=Path(config) if config else None)


def _end_with_supervisor() -> None:
    """Stop, as at SIGTERM, when the supervisor is gone: one that was killed could not say so, and its port is held."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)
