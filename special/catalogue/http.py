"""The kind `http`: a web service that is asked for one image at a time, with GET, and answers in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from special.catalogue.entry import Entry
from special.errors import CatalogueError, ConfigurationError

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES = 1 << 20
MAX_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """A web service that knows images."""

    url: str
    """With `{id}` for the identifier, percent-encoded."""
    token: str | None = None
    """Sent as `Authorization: Bearer`."""
    timeout_s: float = 2.0
    """Within which it answers, connecting included."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "{id}" not in self.url:
            raise ConfigurationError(f"the catalogue '{self.url}' is no http(s):// address with {{id}} in it")
        if (
            self.token is not None
            and parts.scheme == "http"
            and parts.hostname not in ("127.0.0.1", "::1", "localhost")
        ):
            raise ConfigurationError(f"the catalogue '{self.url}' would be sent its token without TLS: write https://")


class HttpKind:
    """Knows what a web service knows; connects at the first question."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        return f"http {self._options.url}"

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        """One GET, conditional where the last answer had an entity tag. 404 and 410 mean that it does not know."""
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = _session(self._options)
        url = self._options.url.replace("{id}", quote(identifier, safe=""))
        condition = {"If-None-Match": previous.etag} if previous is not None and previous.etag else {}
        try:
            async with self._session.get(URL(url, encoded=True), headers=condition, allow_redirects=False) as answer:
                if answer.status in (404, 410):
                    return None
                if answer.status == 304 and condition:
                    return previous
                if answer.status != 200:
                    raise CatalogueError(f"{url} answers {answer.status}")
                data = await _body(answer)
                etag = answer.headers.get("ETag")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CatalogueError(f"{url} does not answer: {error or type(error).__name__}") from error
        return _entry(url, data, etag)

    def identifiers(self, after: str = "") -> AsyncIterator[str] | None:
        return None

    async def identifiers_of(self, place: str) -> Sequence[str] | None:
        return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # transports close in the next round of the loop


def _session(options: HttpOptions) -> aiohttp.ClientSession:
    import aiohttp

    headers = {"Accept": "application/json"}
    if options.token is not None:
        headers["Authorization"] = f"Bearer {options.token}"
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=options.timeout_s),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """All of an answer, or a little more than may be read of it."""
    chunks, size_bytes = list[bytes](), 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > MAX_BYTES:
            break
    return b"".join(chunks)


def _entry(url: str, data: bytes, etag: str | None) -> Entry:
    if len(data) > MAX_BYTES:
        raise CatalogueError(f"{url} answers more than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        return Entry.of(document, etag=etag)
    except ValueError as fault:
        raise CatalogueError(f"{url} cannot be understood: {fault}") from None
