"""The ASGI application of one server process: who answers what, and what becomes of errors."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from special import observe
from special.engine import Engine
from special.errors import SpecialError
from special.identity import Verifier
from special.settings import Settings
from special.web import pages
from special.web.auth import Auth
from special.web.call import Call
from special.web.images import PREFIXES, Images
from special.web.presence import Gone
from special.web.pulse import Pulse
from special.web.reply import PLAIN, PREFLIGHT, Broken, send_bytes, send_error

log = logging.getLogger("special")

SETTINGS_VARIABLE = "SPECIAL_RESOLVED_SETTINGS"
"""How the command line hands its settings to spawned server processes."""


class App:
    """The ASGI application of one server process; it opens its engine when the server starts it."""

    def __init__(self, settings: Settings, make_engine: Callable[[Settings], Engine] = Engine.of) -> None:
        self._settings = settings
        self._make_engine = make_engine
        self._verifier = Verifier.of(settings)
        self._auth = Auth.of(settings, self._verifier)
        self._images: Images | None = None
        self._pulse = Pulse()
        self._pages = Starlette(
            routes=pages.routes(settings, lambda: self._images.engine if self._images else None, self._pulse),
            lifespan=lambda _: self.running(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Image routes first; all else is Starlette's."""
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            prefix, slash, path = raw.decode("latin-1")[1:].partition("/")
            if slash and (prefix in PREFIXES or (prefix == "auth" and self._auth)):
                await self._image(scope, receive, send, prefix, path.partition("?")[0])
                return
        await self._pages(scope, receive, send)

    @property
    def engine(self) -> Engine:
        """The open engine."""
        return self._started.engine

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The time in which requests are answered: the engine is open inside."""
        async with self._make_engine(self._settings) as engine, self._pulse.beating():
            self._images = Images(self._settings, engine, self._verifier, self._auth)
            yield
            self._images = None

    @property
    def _started(self) -> Images:
        if self._images is None:
            raise RuntimeError("the application has not been started: it needs a server that speaks ASGI lifespan")
        return self._images

    async def _image(self, scope: Scope, receive: Receive, send: Send, prefix: str, path: str) -> None:
        start = perf_counter()
        method: str = scope["method"]
        with observe.tracing() as trace:
            status = 500
            try:
                if method == "OPTIONS":
                    status = await send_bytes(send, 204, PREFLIGHT, None)
                elif method not in ("GET", "HEAD"):
                    refusal = b"Only GET, HEAD and OPTIONS are served.\n"
                    status = await send_bytes(send, 405, [*PREFLIGHT, PLAIN], refusal)
                else:
                    call = Call.of(scope, prefix, path, self._settings)
                    status = await self._started.answer(call, receive, send)
            except Gone:
                status = 499
            except SpecialError as error:
                if error.status >= 500:
                    log.warning("%s /%s/%s: %s: %s", method, prefix, path, error.code, error)
                status = await send_error(send, error, head=method == "HEAD")
            except Broken as broken:
                log.warning("%s /%s/%s: cut off after its headers: %s", method, prefix, path, broken.__cause__)
                raise
            except Exception:
                log.exception("%s /%s/%s", method, prefix, path)
                status = await send_error(send, SpecialError(), head=method == "HEAD")
            finally:
                observe.ANSWERS.labels(trace.route or "none", str(status)).inc()
                observe.ANSWER_SECONDS.labels(trace.route or "none").observe(perf_counter() - start)


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
