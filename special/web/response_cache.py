"""Cached answers: the connection writes them itself, without a task or an ASGI scope.

Most requests of a busy site ask for what is in memory and anybody may see. Such an answer depends on a few lines of the
request's head, the key, and on what is known of the image. The application answers the first request for a key and
leaves here what it sent; the connection writes the same to the next ones, as long as the application's own checks
find it unchanged. All other requests go the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

from starlette.types import Message, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from special.concurrency import LRUCache
from special.observability import Trace, trace
from special.web.observers import FinishedRequest, Observer
from special.web.request import HttpRequest, RequestKey
from special.web.response import Headers

MAX_ANSWERS: Final = 10_000
"""Maximum number of answers, of some 2 KB each: their bodies stay in the caches that they come from."""

Reading = Coroutine[Any, Any, bytes | None]
Body = Callable[[], bytes | Reading | None]
"""The body as it is now, if it is in memory and the headers are still right, or the reading of it from its store, which
gives None where it is another by then; None where the application must be asked."""
MAX_KEY_BYTES: Final = 1024
"""Longest key: clients choose what their headers say."""

Effects = dict[bytes, bool]
"""What request headers do to an answer: True: it depends on the value. False: it is not cached. Others do nothing."""

_VALUES = (b"host", b"accept", b"origin", b"if-none-match", b"if-modified-since")
_FORWARDED_VALUES = (
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-path",
)
_OTHERWISE = (b"range", b"forwarded", b"expect", b"upgrade", b"content-length", b"transfer-encoding")


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """What is sent to every request of one key."""

    method: str
    path: str
    """Still percent-encoded."""
    status: int
    head: bytes
    """The header lines, but for those that the server adds, and the empty line after them."""
    trace: Trace
    """What was read for it, if anything was: for all of its requests the same."""
    body: Body

    @property
    def has_body(self) -> bool:
        return self.method == "GET" and self.status == HTTPStatus.OK


class ResponseCache:
    """The cached answers of one server process."""

    def __init__(
        self,
        observers: Iterable[Observer],
        *,
        credentials: Iterable[str] = (),
        client_of: Callable[[Scope, Mapping[bytes, bytes]], str] = lambda scope, headers: "",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`observers` are told of every answer. `credentials` are the headers that clients are identified by."""
        self._observers = observers
        self._client_of = client_of
        self._clock = clock
        self._answers: LRUCache[RequestKey, CachedResponse] = LRUCache(MAX_ANSWERS)
        otherwise = [*_OTHERWISE, *(name.lower().encode() for name in credentials)]
        self.of_proxies: Effects = dict.fromkeys((*_VALUES, *_FORWARDED_VALUES), True) | dict.fromkeys(otherwise, False)
        """Of headers that come from a trusted proxy."""
        # Forwarded headers of others change nothing, but the ordinary way reports them.
        self.of_clients: Effects = self.of_proxies | dict.fromkeys((*_FORWARDED_VALUES, b"x-forwarded-for"), False)
        """Of headers that come from any other peer."""
        self._added: Headers = []
        self._added_lines = b""

    def get(self, key: RequestKey) -> CachedResponse | None:
        return self._answers.get(key)

    def forget(self, key: RequestKey) -> None:
        self._answers.pop(key)

    def pieces(self, answer: CachedResponse, body: bytes, added: Headers) -> list[bytes]:
        """What is written; `added` are the headers that the server adds to all answers."""
        if added is not self._added:  # it replaces them once a second
            self._added, self._added_lines = added, _lines(added)
        head = STATUS_LINE[answer.status] + self._added_lines + answer.head
        return [head, body] if answer.has_body else [head]

    def recording(self, call: HttpRequest, send: Send, body: Body, *, gets: int = 0) -> Send:
        """`send`, which also leaves here what it sends, if no more was read for it than those GETs."""
        key, now = call.key, trace()
        if key is None or sum(map(len, key)) > MAX_KEY_BYTES:
            return send
        if now.gets != gets or now.steps or now.preparing:  # the next ones would not read as much
            return send
        cost = Trace(route=now.route, gets=now.gets, bytes=now.bytes)

        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                head = _lines(message["headers"]) + b"\r\n"
                path = f"/{call.tier}{call.prefix}/{call.path}"
                self._answers.put(key, CachedResponse(call.method, path, message["status"], head, cost, body))

        return sending

    def finished(
        self,
        answer: CachedResponse,
        pieces: list[bytes],
        client: str | None,
        peer: tuple[str, int] | None,
        headers: Headers,
        arrived_s: float,
    ) -> None:
        """An answer was written to a request with these headers, which arrived then by the clock.

        Without a `client` its name is found by the headers that `peer`, a proxy, has sent.
        """
        if client is None:
            client = self._client_of({"client": peer}, dict(headers))
        cost = answer.trace
        cost = Trace(client, cost.route, cost.gets, cost.bytes, sum(map(len, pieces[1:])))
        seconds = self._clock() - arrived_s
        request = FinishedRequest(
            answer.method, answer.path, headers, cost, arrived_s, seconds, answer.status, "ok", None
        )
        for observe in self._observers:
            observe(request)

    def now_s(self) -> float:
        return self._clock()

    def clear(self) -> None:
        """Let go of all answers: what they are made of is closed."""
        self._answers = LRUCache(MAX_ANSWERS)


def key_of(method: bytes, target: bytes, headers: Headers, effects: Effects) -> RequestKey | None:
    """All that the answer to a request depends on; None if its answer is never cached."""
    if not target.startswith(b"/") or b"?" in target:
        return None
    parts = [method, target]
    for name, value in headers:
        has_effect = effects.get(name)
        if has_effect:
            parts += (name, value)
        elif has_effect is False:
            return None
    return tuple(parts)


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % (name.lower(), value) for name, value in headers])
