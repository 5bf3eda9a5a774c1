"""One HTTP request to the image routes, and what its headers ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal
from urllib.parse import quote

from starlette.types import Scope

from special.iiif import BaseRequest, ImageRequest, InfoRequest, Version
from special.observability import Trace
from special.storage import Span, Unless
from special.web.negotiation import Form, preferred
from special.web.proxies import PublicAddress

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)
_OPEN_END = 2**62
_SAFE = "/%:@!$&'()*+,;=~"
EXTENSION: Final = "special.response_cache"
"""Where a scope's extensions have the `key` of a request that the connection may answer by itself, and if it has tried
to what has `begun`."""

RequestKey = tuple[bytes, ...]
"""All of a request that its answer depends on, as it was sent."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a connection has done for a request before it asked the application."""

    trace: Trace
    arrived_s: float
    failure: Exception | None
    """What the application is to tell."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What the image routes need to know of one HTTP request."""

    prefix: str
    path: str
    """Below the prefix, still percent-encoded."""
    method: str
    headers: dict[bytes, bytes]
    query: str
    base: str
    """`scheme://host` as the public sees it, without a trailing slash."""
    is_shareable: bool
    """Whether caches may give the answer to other clients: `base` is what they asked for, or what the settings name."""
    by_proxy: bool
    """Whether it comes straight from a trusted proxy that offers to fetch what is stored."""
    client: str
    """Address of the client, as far as it is known."""
    arrived_s: float
    """When it arrived, by the monotonic clock."""
    key: RequestKey | None = None
    """Where the answer may be one that the connection gives by itself the next time."""
    default_version: Version = 3
    """Of addresses that name none."""
    tier: Literal["", "auth/open/"] = ""
    """What stands before the prefix: the image service as it is for all, or that for strangers."""

    @classmethod
    def of(
        cls,
        scope: Scope,
        prefix: str,
        path: str,
        *,
        address: PublicAddress,
        arrived_s: float,
        default_version: Version = 3,
    ) -> HttpRequest:
        """The request of an ASGI scope. Raises `BadRequest` and `Misdirected` for its Host header."""
        headers = dict(scope["headers"])
        query = scope["query_string"].decode("latin-1")
        return cls(
            prefix,
            path,
            scope["method"],
            headers,
            query,
            address.base(scope, headers),
            is_shareable=address.is_shareable(scope, headers),
            by_proxy=b"x-offload-to" in headers and address.trusts(scope),
            client=address.client(scope, headers),
            arrived_s=arrived_s,
            key=scope.get("extensions", {}).get(EXTENSION, {}).get("key"),
            default_version=default_version,
        )

    @property
    def level0(self) -> bool:
        """Whether only stored sizes are served here."""
        return self.prefix == "thumbs"

    @property
    def head(self) -> bool:
        """Whether only headers are wanted."""
        return self.method == "HEAD"

    @property
    def accept(self) -> str:
        """The Accept header; empty without one."""
        return self.header(b"accept") or ""

    def header(self, name: bytes) -> str | None:
        """A request header, if it is there."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def form(self, named: Version | None) -> Form:
        """The form of info.json that Accept prefers, of the version that the URL names if it does."""
        return preferred(self.accept, named, default=self.default_version)

    def uri(self, request: ImageRequest | InfoRequest | BaseRequest, *, id_segments: int) -> str:
        """The image's base URI as it was asked for: with the version segment, and in the same spelling."""
        segments = self.quoted_path.split("/")[: id_segments + bool(request.version)]
        return f"{self.base}/{self.tier}{self.prefix}/{'/'.join(segments)}"

    def unversioned_uri(self, request: InfoRequest | BaseRequest, *, id_segments: int) -> str:
        """The same without the version segment, for a request whose address has one."""
        segments = self.quoted_path.split("/")[1 : id_segments + 1]
        return f"{self.base}/{self.tier}{self.prefix}/{'/'.join(segments)}"

    @property
    def quoted_path(self) -> str:
        """The path as it was asked for, with what is no part of a URI (RFC 3986, section 3.3) percent-encoded."""
        return quote(self.path.encode("latin-1"), safe=_SAFE)

    def offers_offload(self, location: str) -> bool:
        """Whether a trusted proxy offers to fetch the answer by itself, at this location of its configuration."""
        return self.by_proxy and self.header(b"x-offload-to") == location

    @property
    def unless(self) -> Unless | None:
        """The conditions under which no body is wanted."""
        etag, since = self.header(b"if-none-match"), _date(self.header(b"if-modified-since"))
        return Unless(etag, since) if etag or since else None

    @property
    def range(self) -> Span | None:
        """The single range that is wanted of a copied object.

        A server may ignore Range (RFC 9110, section 14.2): with If-Range, or with several ranges, all is sent.
        """
        wanted = _RANGE.fullmatch(self.header(b"range") or "")
        if wanted is None or self.header(b"if-range") is not None:
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
