"""`DELETE /admin/images/{id}`: an image leaves memory and volume of a machine.

Each server process has memory of its own. The one that is asked writes the identifier into a file that all of them
look at.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from special.concurrency import replace_file
from special.errors import ConfigurationError, RequestError, SpecialError
from special.iiif import IdentifierForm, parse_identifier

log = logging.getLogger("special.web")

PREFIX = "admin/images/"
INTERVAL_S = 1.0
"""How often a process looks for what another one was asked to purge."""
MAX_BYTES = 1 << 20
"""A longer file is begun anew."""


class Purges:
    """The purges of all processes of a machine, by a file in their state folder."""

    def __init__(self, path: Path, purge: Callable[[str], Awaitable[None]]) -> None:
        self._path = path
        self._purge = purge
        self._read_to = 0

    async def add(self, identifier: str) -> None:
        """Purge an image here, and by and by in all other processes."""
        await asyncio.to_thread(self._append, identifier)
        await self._purge(identifier)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Purge what other processes are asked to, from now on."""
        self._read_to = await asyncio.to_thread(self._size)
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
                for identifier in await asyncio.to_thread(self._news):
                    await self._purge(identifier)
            except (OSError, ValueError, SpecialError) as error:
                log.warning("purges of other processes are missed: %s", error)

    def _news(self) -> list[str]:
        size = self._size()
        if size == self._read_to:
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_to if self._read_to < size else 0)
            lines = file.read().split(b"\n")
            self._read_to = file.tell() - len(lines[-1])  # a line that is being written is read the next time
        return [json.loads(line) for line in lines[:-1]]

    def _append(self, identifier: str) -> None:
        if self._size() > MAX_BYTES:
            replace_file(self._path, b"")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(identifier).encode() + b"\n")
        finally:
            os.close(descriptor)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0


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
