"""uvicorn's HTTP protocol, with limits on what arrives and on how long it may take, and on clients that do not read.

uvicorn waits for ever for a request that has begun, takes a head of any length, and waits for ever for a client that
does not read its answer. Here a head has a size, a request, whatever comes with it, a time by which it must have
arrived, and an answer a time in which some of it must be taken. What is refused is told why, as far as it can be, and
its connection closed.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from special.web.connections import Connections, refuse
from special.web.pages import WATCHED


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
    """One connection. `limits` and `open_connections` are bound beforehand, by `functools.partial`."""

    def __init__(self, *args: Any, limits: RequestLimits, open_connections: Connections, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._open_connections = open_connections
        self._timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._unsent_bytes = 0
        self._has_progressed = False
        self._refusal = HTTPStatus.BAD_REQUEST
        self._head_bytes = 0
        self._pending_bytes = 0
        self._in_head = False
        self._has_begun = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open_connections.opened(self._peer)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_connections.closed(self._peer)
        self._disarm()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        self._has_progressed = True
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_unsent()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # what comes after a refusal is not looked at
        self._has_progressed = True
        self._arm()
        self._has_begun = False
        super().data_received(data)
        # The parser tells of a header only when it is complete: one without an end is counted here, from the second
        # piece on, since the first may have ended the request before it.
        self._pending_bytes = self._pending_bytes + len(data) if self._in_head and not self._has_begun else 0
        if self._pending_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()
        self._head_bytes, self._in_head, self._has_begun = 0, True, True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)
        if len(self.url) > self._limits.url_bytes:
            self._refusal = HTTPStatus.REQUEST_URI_TOO_LONG
            raise HeadTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4  # ": " and the end of the line
        if self._head_bytes > self._limits.head_bytes:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadTooLong
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if not self.url.startswith(b"/") and (host := httptools.parse_url(self.url).host):
            # An absolute-form target counts in place of the Host header (RFC 9112, section 3.2.2).
            port = httptools.parse_url(self.url).port
            self.headers[:] = [it for it in self.headers if it[0] != b"host"]
            self.headers.append((b"host", host + b":%d" % port if port else host))
        is_watched = self.url[1:].partition(b"?")[0].decode("latin-1") in WATCHED
        is_refused = not is_watched and self._open_connections.is_too_many(self._peer)
        self.app = refuse if is_refused else self.config.loaded_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

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

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._limits.receive_s, self._overdue)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.cycle is None or (self._in_head and self.cycle.response_complete):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:  # an unwanted request body; the answer that is under way goes out first
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        self._disarm()
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
