"""An ASGI application behind a real port and the protocol of `special serve`, in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from special.web.connections import ConnectionLimits, Connections
from special.web.protocol import GuardedProtocol, RequestLimits
from special.web.proxies import TrustedProxies

LIMITS = RequestLimits(url_bytes=4096, head_bytes=16384, receive_s=30.0)


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    limits: RequestLimits = LIMITS,
    connections: int = 1000,
    proxies: str = "127.0.0.1",
    keep_alive_s: int = 60,
) -> AsyncIterator[int]:
    """Serve an application that is running already; yields the port on the loopback address."""
    open_connections = Connections(ConnectionLimits(connections, TrustedProxies.parse([proxies])))
    config = uvicorn.Config(
        app,
        port=0,
        http=partial(GuardedProtocol, limits=limits, open_connections=open_connections),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_s,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110  uvicorn sets no event
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running
