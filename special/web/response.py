"""HTTP answers: headers that every answer has, and how bodies go out.

Raw ASGI. Once the headers of a streamed body are sent, a failure can only cut the connection: a
client must never take a part for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import aclosing
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

from starlette.types import Send

from special.concurrency import yield_to_others
from special.errors import SpecialError
from special.observability import trace
from special.serving import Answer, AnswerHead

CHUNK_BYTES = 65536
"""Larger answers are sent in chunks of this size, between which other requests run."""

Headers = list[tuple[bytes, bytes]]

_FIELD_NAMES = re.compile(rb"[\w!#$%&'*+.^`|~, \t-]{1,4096}", re.ASCII)
"""A list of field names (RFC 9110, section 5.1)."""

CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Link, ETag, X-Special-Route, Server-Timing"),
    (b"timing-allow-origin", b"*"),
    (b"x-content-type-options", b"nosniff"),
]
ALLOW = (b"allow", b"GET, HEAD, OPTIONS")
PLAIN = (b"content-type", b"text/plain; charset=utf-8")


class Broken(Exception):
    """A body failed after its headers were sent; the connection must be cut, not ended."""


def cors(origin: str | None, named: Collection[str]) -> Headers:
    """Who may read an answer from another origin: any without credentials, those that are named with their user's."""
    if origin not in named or origin is None:
        return CORS
    allowed = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
    ]
    return [*allowed, *CORS[1:]]


def preflight(headers: Mapping[bytes, bytes], named: Collection[str]) -> Headers:
    """What a browser is told before it sends a request with headers of its page's choice: any of them is allowed.

    Those that are asked for are named, since `*` does not cover Authorization (Fetch, section 3.3.3).
    """
    origin, asked = headers.get(b"origin"), headers.get(b"access-control-request-headers", b"")
    allowed = asked if _FIELD_NAMES.fullmatch(asked) else b"Authorization, Range"
    return [
        *cors(origin.decode("latin-1") if origin else None, named),
        (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
        (b"access-control-allow-headers", allowed),
        (b"access-control-max-age", b"86400"),
        ALLOW,
    ]


async def send_bytes(send: Send, status: int, headers: Headers, data: bytes | None, *, head: bool = False) -> int:
    """Send a whole answer and give its status. None: a status that has no body (204, 304)."""
    if data is not None:
        headers = [*headers, _length(len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = b"" if head or data is None else data
    await send({"type": "http.response.body", "body": body})
    trace().sent_bytes += len(body)
    return status


async def send_head(send: Send, described: AnswerHead | Answer, headers: Headers) -> int:
    """Answer HEAD for an image, which is not made for that; give the status."""
    headers = [*headers, *_described(described.etag, described.media, described.modified)]
    if described.size is not None:
        headers.append(_length(described.size))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
    return 200


async def send_error(send: Send, error: SpecialError, *, head: bool) -> int:
    """Send an error's public sentence, not to be cached, and give its status."""
    headers = [*CORS, PLAIN, (b"cache-control", b"no-store")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, section 15.5.2
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    return await send_bytes(send, error.status, headers, f"{error.public}\n".encode(), head=head)


async def send_answer(send: Send, answer: Answer, headers: Headers) -> int:
    """Send an image, whole or streamed, and give the status: 200 or 206.

    Raises `Broken` where a streamed body fails after its headers were sent.
    """
    headers = [*headers, *_described(answer.etag, answer.media, answer.modified), _length(answer.size)]
    if answer.incomplete:  # RFC 7234, section 5.5: 199 is for whatever is to be said to a person
        headers.append((b"warning", f'199 - "{answer.incomplete}"'.encode("ascii", "replace")))
    status = 200
    if answer.span:
        status = 206
        headers.append((b"content-range", f"bytes {answer.span.start}-{answer.span.stop - 1}/{answer.total}".encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    counted = trace()
    if isinstance(answer.body, bytes):
        stop = 0
        while stop < answer.size - CHUNK_BYTES:
            start, stop = stop, stop + CHUNK_BYTES
            await send({"type": "http.response.body", "body": answer.body[start:stop], "more_body": True})
            counted.sent_bytes += stop - start
            await yield_to_others()
        await send({"type": "http.response.body", "body": answer.body[stop:]})
        counted.sent_bytes += answer.size - stop
        return status
    async with aclosing(answer.body) as chunks:
        try:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                counted.sent_bytes += len(chunk)
        except SpecialError as error:
            raise Broken from error
    await send({"type": "http.response.body", "body": b""})
    return status


def _described(etag: str, media: str, modified: datetime | None) -> Headers:
    headers = [(b"etag", etag.encode()), (b"content-type", media.encode()), timing()]
    if modified:
        headers.append((b"last-modified", _http_date(modified)))
    return headers


@lru_cache(maxsize=4096)
def _http_date(moment: datetime) -> bytes:
    return format_datetime(moment, usegmt=True).encode()


def _length(size_bytes: int) -> tuple[bytes, bytes]:
    return b"content-length", str(size_bytes).encode()


def timing() -> tuple[bytes, bytes]:
    """The Server-Timing header of the current request."""
    return b"server-timing", trace().server_timing().encode()
