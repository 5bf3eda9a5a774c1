"""uvicorn's HTTP protocol, with limits on what arrives: how much, and for how long it may take.

uvicorn waits for ever for a request that has begun, and takes a head of any length. Here a head has a size, and
a request, whatever comes with it, a time by which it must have arrived. What is refused is told why, as far
as it can be, and its connection closed.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may be."""

    url_bytes: int
    """Longest request target, query included."""
    head_bytes: int
    """Most that request target and headers may have together."""
    receive_s: float
    """Longest time from its first byte, or from the connection's start, to its last."""


class HeadTooLong(Exception):
    """A head that is beyond its limits; the parser gives up at it."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `limits` is bound beforehand: `functools.partial(GuardedProtocol, limits=…)`."""

    def __init__(self, *args: Any, limits: RequestLimits, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._timer: TimerHandle | None = None
        self._refusal = HTTPStatus.BAD_REQUEST
        self._head_bytes = 0
        self._pending_bytes = 0
        self._in_head = False
        self._has_begun = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # what comes after a refusal is not looked at
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
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls wherever the parser gave up."""
        self._refuse(self._refusal)

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
