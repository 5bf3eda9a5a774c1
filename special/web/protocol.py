"""uvicorn's HTTP protocol, with limits on what arrives and on how long it may take, and on clients that do not read.

uvicorn waits for ever for a request that has begun, takes a head of any length, and waits for ever for a client that
does not read its answer. Here a head has a size, a request, whatever comes with it, a time by which it must have
arrived, and an answer a time in which some of it must be taken. What is refused is told why, as far as it can be, and
its connection closed.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from special.observability import tracing
from special.web.connections import Connections, refuse
from special.web.pages import WATCHED
from special.web.proxies import client_name
from special.web.request import EXTENSION, Begun, RequestKey
from special.web.response import Headers
from special.web.response_cache import CachedResponse, Effects, Reading, ResponseCache, key_of


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may be."""

    url_bytes: int
    """Longest request target, query included."""
    head_bytes: int
    """Most that request target and headers may have together."""
    receive_s: float
    """Longest time from its first byte, or from the connection's start, to its last."""
    write_s: float = 30.0
    """Longest time in which a client may take nothing of an answer that waits for it."""


class HeadTooLong(Exception):
    """A head that is beyond its limits; the parser gives up at it."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `limits` and `open_connections` are bound beforehand, by `functools.partial`.

    Answers in the application's `response_cache`, if it has one, are written without asking it.
    """

    def __init__(self, *args: Any, limits: RequestLimits, open_connections: Connections, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._open_connections = open_connections
        self._response_cache: ResponseCache | None = getattr(self.config.loaded_app, "response_cache", None)
        self._effects: Effects = {}
        self._name: str | None = None
        """The client's, for logs; None where it depends on the request, which a proxy has brought."""
        self._timer: TimerHandle | None = None
        self._timer_s = 0.0
        self._due_s: float | None = None
        self._is_idle = False
        self._write_timer: TimerHandle | None = None
        self._unsent_bytes = 0
        self._has_progressed = False
        self._refusal = HTTPStatus.BAD_REQUEST
        self._head_bytes = 0
        self._pending_bytes = 0
        self._in_head = False
        self._has_begun = False
        self._is_complete = False
        self._is_answered = False
        self._reading: Callable[[RequestResponseCycle, Any], Coroutine[Any, Any, None]] | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open_connections.opened(self._peer, self)
        if self._response_cache is not None:
            is_proxy = self._peer in self._open_connections.limits.proxies
            self._effects = self._response_cache.of_proxies if is_proxy else self._response_cache.of_clients
            self._name = None if is_proxy else client_name(self._peer)
        self._wait(self._limits.receive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_connections.closed(self._peer, self)
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        self._has_progressed = True
        super().resume_writing()

    def on_response_complete(self) -> None:
        # Not uvicorn's own: that one starts a timer after every answer and cancels it at every request.
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            elif self._due_s is None:  # else the next request has begun
                self._wait(self.timeout_keep_alive, idle=True)
        self._watch_unsent()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # what comes after a refusal is not looked at
        self._has_progressed = True
        self._has_begun = self._is_complete = False
        super().data_received(data)
        # The parser tells of a header only when it is complete: one without an end is counted here, from the second
        # piece on, since the first may have ended the request before it.
        self._pending_bytes = self._pending_bytes + len(data) if self._in_head and not self._has_begun else 0
        if self.transport.is_closing():
            return
        if self._pending_bytes > self._limits.head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self._is_complete and (self._is_idle or self._due_s is None):
            self._wait(self._limits.receive_s)

    def on_message_begin(self) -> None:
        # The scope, which uvicorn makes here, is made when it is needed.
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._head_bytes, self._in_head, self._has_begun = 0, True, True
        self._is_complete = self._is_answered = False

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._head_bytes += len(url)
        if len(self.url) > self._limits.url_bytes:
            self._refusal = HTTPStatus.REQUEST_URI_TOO_LONG
            raise HeadTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4  # ": " and the end of the line
        if self._head_bytes > self._limits.head_bytes:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadTooLong
        # Not uvicorn's own: another call for each header is what answers from memory have time for least.
        lower = name.lower()
        self.headers.append((lower, value))
        self.expect_100_continue |= lower == b"expect" and value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._in_head = False
        is_refused = self._open_connections.is_too_many(self._peer)
        key = None
        if self._response_cache is not None and not is_refused:
            key = self._key()
            if key is not None and self._answer_from_cache(self._response_cache, key):
                return  # the next ones may come in the same piece, and their turn is now
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        if not url.startswith(b"/") and (host := httptools.parse_url(url).host):
            # An absolute-form target counts in place of the Host header (RFC 9112, section 3.2.2).
            port = httptools.parse_url(url).port
            headers = [it for it in headers if it[0] != b"host"]
            headers.append((b"host", host + b":%d" % port if port else host))
        self.url, self.expect_100_continue = url, expect_100_continue
        self.headers.extend(headers)
        if key is not None:
            self.scope["extensions"] = {EXTENSION: {"key": key}}
        is_watched = url[1:].partition(b"?")[0].decode("latin-1") in WATCHED
        self.app = refuse if is_refused and not is_watched else self.config.loaded_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._due_s, self._is_idle, self._is_complete = None, False, True
        if self._is_answered:
            self.on_response_complete()
        else:
            super().on_message_complete()

    def _key(self) -> RequestKey | None:
        """What the answer depends on, if this request's turn has come and its answer may be cached."""
        is_waiting = self.cycle is not None and not self.cycle.response_complete
        parser = self.parser
        if is_waiting or self.flow.write_paused or not parser.should_keep_alive() or parser.get_http_version() != "1.1":
            return None
        return key_of(parser.get_method(), self.url, self.headers, self._effects)

    def _answer_from_cache(self, response_cache: ResponseCache, key: RequestKey) -> bool:
        """Write the answer, if it is in memory; whether it was. What can be read of its store is left to a task."""
        arrived_s = response_cache.now_s()
        answer = response_cache.get(key)
        body = answer.body() if answer is not None else None
        if answer is None or body is None:
            return False
        if not isinstance(body, bytes):
            self._reading = partial(self._read, response_cache, key, answer, body, self.headers, arrived_s)
            return False
        pieces = response_cache.pieces(answer, body, self.server_state.default_headers)
        self.transport.writelines(pieces)
        self._is_answered = True
        response_cache.finished(answer, pieces, self._name, self.client, self.headers, arrived_s)
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        reading, self._reading = self._reading, None
        if reading is None:
            super()._start_asgi_task(cycle, app)
            return
        task = self.loop.create_task(reading(cycle, app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _read(
        self,
        response_cache: ResponseCache,
        key: RequestKey,
        answer: CachedResponse,
        reading: Reading,
        headers: Headers,
        arrived_s: float,
        cycle: RequestResponseCycle,
        app: Any,
    ) -> None:
        """Read a body from its store and write the answer; of a failure, or another version, the application tells."""
        body, failure = None, None
        with tracing() as trace:
            try:
                body = await reading
            except Exception as error:
                failure = error
        if body is None:
            response_cache.forget(key)
            cycle.scope["extensions"][EXTENSION]["begun"] = Begun(trace, arrived_s, failure)
            del failure
            await cycle.run_asgi(app)
            cycle.scope["extensions"].clear()  # a failure has the frames that it passed
            return
        if self.flow.write_paused:
            await self.flow.drain()
        pieces = response_cache.pieces(answer, body, cycle.default_headers)
        if not cycle.disconnected:
            self.transport.writelines(pieces)
            cycle.response_started = cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:  # the server stops
                self.transport.close()
            self.on_response_complete()
        response_cache.finished(answer, pieces, self._name, self.client, headers, arrived_s)

    def close_unused(self) -> bool:
        """Close the connection unless it has a request to answer or an answer to send; whether it closes."""
        is_answering = self._due_s is None or (self.cycle is not None and not self.cycle.response_complete)
        if is_answering or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return False
        self.transport.close()
        return True

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls wherever the parser gave up."""
        self._refuse(self._refusal)

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    def _watch_unsent(self) -> None:
        """Start to watch whether the client takes what waits for it, if anything does."""
        if self._write_timer is None and (unsent_bytes := self.transport.get_write_buffer_size()):
            self._unsent_bytes, self._has_progressed = unsent_bytes, False
            self._write_timer = self.loop.call_later(self._limits.write_s, self._check_unsent)

    def _check_unsent(self) -> None:
        # Nothing is written while the transport is paused, so bytes that were taken show as fewer bytes that wait, or
        # as an end of the pause. Otherwise a next request shows that the client goes on.
        self._write_timer = None
        if not self._has_progressed and self.transport.get_write_buffer_size() >= self._unsent_bytes:
            self.transport.abort()
        else:
            self._watch_unsent()

    def _wait(self, seconds: float, *, idle: bool = False) -> None:
        """Wait that long for the end of a request, or for the next one to begin if the connection is `idle`."""
        self._due_s, self._is_idle = self.loop.time() + seconds, idle
        if self._timer is not None and self._timer_s > self._due_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:  # else it looks again when it finds that it is too early
            self._start_timer(self._due_s)

    def _start_timer(self, due_s: float) -> None:
        self._timer_s = due_s
        self._timer = self.loop.call_at(due_s, self._check_due)

    def _check_due(self) -> None:
        self._timer = None
        if self._due_s is None or self.transport.is_closing():
            return
        if self.loop.time() < self._due_s:
            self._start_timer(self._due_s)
        elif not self._is_idle and (self.cycle is None or (self._in_head and self.cycle.response_complete)):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:  # idle, or an unwanted request body; an answer that is under way goes out first
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        sentence = f"{status.phrase}.\n".encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
            + b"content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n"
            + b"x-content-type-options: nosniff\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(sentence)
            + sentence
        )
        self.transport.close()
        self._watch_unsent()
