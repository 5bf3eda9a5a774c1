"""The floor: bare Starlette routes, and a bare protocol, beside which special's own are measured.

    /stored/{key}   an object out of the store, by obstore; nothing else is done
    /memory/{key}   16 KB out of memory, or 304 if the client has it

`python -m tests.bench.floor PORT` serves them as special serves its own: one uvicorn process, uvloop and httptools.
`python -m tests.bench.floor PORT bare` parses requests and writes the same bytes to all, which is the least that a
process of Python can do.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import httptools
import httpx
import obstore
import uvicorn
import uvloop
from obstore.store import S3Store
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.bench.bench import Running
from tests.support.servers import POLL_S, READY_WITHIN_S, free_ports

BUCKET = "thumbs"
DATA = bytes(range(256)) * 64
ETAG = '"memory"'


def app() -> Starlette:
    """The routes."""
    store = S3Store(BUCKET, virtual_hosted_style_request=False, client_options={"allow_http": True})

    async def stored(request: Request) -> Response:
        result = await obstore.get_async(store, request.path_params["key"])
        body = bytes(await result.bytes_async())
        return Response(body, media_type="image/jpeg", headers={"ETag": result.meta["e_tag"] or ""})

    async def memory(request: Request) -> Response:
        if request.headers.get("if-none-match") == ETAG:
            return Response(status_code=304, headers={"ETag": ETAG})
        return Response(DATA, media_type="image/jpeg", headers={"ETag": ETAG})

    return Starlette(routes=[Route("/stored/{key:path}", stored), Route("/memory/{key:path}", memory)])


class _BareProtocol(asyncio.Protocol):
    """One connection: 16 KB to every request, or 304 where it has an If-None-Match."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._is_known = False

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"if-none-match":
            self._is_known = True

    def on_message_complete(self) -> None:
        self._transport.writelines(_UNMODIFIED if self._is_known else _FOUND)
        self._is_known = False


_UNMODIFIED = [b"HTTP/1.1 304 Not Modified\r\netag: %b\r\n\r\n" % ETAG.encode()]
_FOUND = [
    b"HTTP/1.1 200 OK\r\netag: %b\r\ncontent-type: image/jpeg\r\ncontent-length: %d\r\n\r\n"
    % (ETAG.encode(), len(DATA)),
    DATA,
]


async def _serve_bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_BareProtocol, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def serving(environ: Mapping[str, str], *options: str) -> Iterator[Running]:
    """The floor in a process of its own."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "tests.bench.floor", str(port), *options]
    process = subprocess.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/memory/ready")
            except httpx.TransportError:
                time.sleep(POLL_S)
            else:
                yield Running(url, (process.pid,))
                return
        raise RuntimeError("the bare Starlette routes did not become ready")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    if sys.argv[2:] == ["bare"]:
        uvloop.run(_serve_bare(int(sys.argv[1])))
    uvicorn.run(app(), port=int(sys.argv[1]), log_level="warning", access_log=False, server_header=False)
