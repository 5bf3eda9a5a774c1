"""`DELETE /admin/images/{id}`: an image leaves memory and volume of a machine.

Each server process has memory of its own. The one that is asked writes the identifier into a file that all of them
look at, and so does `special forget`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from special.errors import ConfigurationError, RequestError, SpecialError
from special.iiif import IdentifierForm, parse_identifier
from special.images import PurgeList

log = logging.getLogger("special.web")

PREFIX = "admin/images/"
INTERVAL_S = 1.0
"""How often a process looks for what another one was asked to purge."""


class Purges:
    """Purges what this process, another one or `special forget` was asked to, while `running` lasts."""

    def __init__(self, listed: PurgeList, purge: Callable[[str], Awaitable[None]]) -> None:
        self._listed = listed
        self._purge = purge

    async def add(self, identifier: str) -> None:
        """Purge an image here, and by and by in all other processes."""
        await asyncio.to_thread(self._listed.add, [identifier])
        await self._purge(identifier)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                for identifier in await asyncio.to_thread(self._listed.news):
                    await self._purge(identifier)
            except (OSError, ValueError, SpecialError) as error:
                log.warning("purges are missed: %s", error)


def token_of(path: Path) -> str:
    """The token in a file. Raises `ConfigurationError`."""
    try:
        token = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"the token of administrators {path} cannot be read: {error.strerror}") from None
    if len(token) < 16:
        raise ConfigurationError(f"the token of administrators in {path} has less than 16 characters")
    return token


def route(token: str, form: IdentifierForm, purges: Callable[[], Purges]) -> Route:
    """The address for administrators; `purges` gives those of the running server."""

    async def delete(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return PlainTextResponse("this needs the token of administrators\n", 401, {"WWW-Authenticate": "Bearer"})
        raw: bytes = request.scope["raw_path"]
        try:
            identifier = parse_identifier(raw.decode("latin-1").removeprefix(f"/{PREFIX}"), form)
        except RequestError as error:
            return PlainTextResponse(f"{error.public}\n", error.status)
        await purges().add(identifier)
        return Response(status_code=204)

    return Route(f"/{PREFIX}{{identifier:path}}", delete, methods=["DELETE"])
