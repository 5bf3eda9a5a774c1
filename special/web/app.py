"""The ASGI application of one server process: who answers what, and what becomes of errors."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from special import composition
from special.errors import ConfigurationError, Denied, RequestError, SpecialError
from special.observability import SHARED_COUNTS, OtelExporter, Trace, logs, metrics, tracing
from special.serving import Engine
from special.settings import Settings
from special.web import pages
from special.web.auth import Auth
from special.web.disconnect import Disconnected
from special.web.images import PREFIXES, Images
from special.web.loop_monitor import LoopMonitor
from special.web.process_tuning import tune
from special.web.proxies import PublicAddress
from special.web.request import HttpRequest
from special.web.response import PLAIN, PREFLIGHT, Broken, send_bytes, send_error
from special.web.status import Slowest
from special.workers import forbid_inspection

SETTINGS_VARIABLE = "SPECIAL_RESOLVED_SETTINGS"
"""How the command line hands its settings to spawned server processes."""


class App:
    """The ASGI application of one server process; it opens its engine when the server starts it."""

    def __init__(self, settings: Settings, make_engine: Callable[[Settings], Engine] = Engine.of) -> None:
        self._settings = settings
        self._make_engine = make_engine
        self._front = PublicAddress.of(settings)
        self._verifier = composition.verifier(settings)
        self._auth = Auth.of(settings, self._verifier)
        self._images: Images | None = None
        self._telemetry: OtelExporter | None = None
        self._pulse = LoopMonitor()
        shared = os.environ.get(SHARED_COUNTS)
        self._slowest = Slowest(Path(shared) if shared else None) if settings.status else None
        self._pages = Starlette(
            routes=pages.routes(
                settings, lambda: self._images.engine if self._images else None, self._pulse, self._slowest
            ),
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
            if prefix not in pages.WATCHED:
                try:
                    self._front.base(scope, dict(scope["headers"]))
                except RequestError as error:
                    await send_error(send, error, head=scope["method"] == "HEAD")
                    return
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
        self._telemetry = OtelExporter.from_environment() if self._settings.otel else None
        async with self._make_engine(self._settings) as engine, self._pulse.running():
            self._images = Images(self._settings, engine, self._verifier, self._auth)
            yield
            self._images = None
        if self._telemetry:
            self._telemetry.close()

    @property
    def _started(self) -> Images:
        if self._images is None:
            raise RuntimeError("the application has not been started: it needs a server that speaks ASGI lifespan")
        return self._images

    async def _image(self, scope: Scope, receive: Receive, send: Send, prefix: str, path: str) -> None:
        start = monotonic()
        method: str = scope["method"]
        with tracing() as trace:
            status, outcome = 500, "ok"
            failure: BaseException | None = None
            try:
                if method == "OPTIONS":
                    status = await send_bytes(send, 204, PREFLIGHT, None)
                elif method not in ("GET", "HEAD"):
                    refusal = b"Only GET, HEAD and OPTIONS are served.\n"
                    status, outcome = await send_bytes(send, 405, [*PREFLIGHT, PLAIN], refusal), "method"
                else:
                    call = HttpRequest.of(scope, prefix, path, self._front)
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
                seconds = monotonic() - start
                metrics.answered(trace.route, status, seconds)
                if self._telemetry:
                    self._telemetry.export(trace, scope["headers"], method, f"/{prefix}/{path}", status, outcome, start)
                if self._slowest:
                    self._slowest.add(f"/{prefix}/{path}", trace.route, status, seconds)
                if failure is not None or logs.wanted():
                    _log_request(trace, f"/{prefix}/{path}", method, status, outcome, seconds, failure)


def _log_request(
    trace: Trace, path: str, method: str, status: int, outcome: str, seconds: float, failure: BaseException | None
) -> None:
    """One line of the log. The query is left out, where callers put tokens, and so are all headers."""
    fields: dict[str, Any] = {"method": method, "path": path[: logs.LONGEST], "status": status, "outcome": outcome}
    fields |= {"route": trace.route, "ms": round(seconds * 1000, 1), "gets": trace.gets, "bytes": trace.bytes}
    fields |= {"source_ms": round(trace.source_ms, 1), "queue_ms": round(trace.queue_ms, 1)}
    fields |= {"decode_ms": round(trace.decode_ms, 1), "encode_ms": round(trace.encode_ms, 1)}
    level = logging.INFO
    if failure is not None:
        # A stranger is told the same of what is not there and of what the store denies us; the operator is not.
        if outcome in ("cut-off", Denied.code) or status >= 500:
            level = logging.WARNING
        fields["error"] = logs.clean(str(failure))
    known = failure is None or isinstance(failure, SpecialError)
    logs.request(level if known else logging.ERROR, fields, failure=None if known else failure)


async def _say_briefly(send: Send, message: Message) -> None:
    """Hand on what Starlette says of a start or stop; of a setting that cannot work the sentence, not the traceback."""
    error = sys.exception()
    if message["type"] == "lifespan.startup.failed" and isinstance(error, ConfigurationError):
        message = {**message, "message": str(error)}
    await send(message)


def create() -> App:
    """The application of a server process that was spawned: its settings come by the environment, as JSON."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    settings = Settings.model_validate_json(os.environ[SETTINGS_VARIABLE])
    logs.setup(settings.log_format, sys.stderr)
    forbid_inspection()
    tune()
    return App(settings)


def _end_with_supervisor() -> None:
    """Stop, as at SIGTERM, when the supervisor is gone: one that was killed could not say so, and its port is held."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)
