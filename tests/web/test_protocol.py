"""What a connection may bring, byte by byte, to uvicorn itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from special.web.protocol import RequestLimits
from tests.support import in_process

pytestmark = pytest.mark.service

BOUNDS = RequestLimits(url_bytes=300, head_bytes=2000, receive_s=0.5, write_s=0.5)
CONNECTIONS = 16
LARGE = b"x" * (64 << 20)
"""More than the kernel buffers for a connection."""


async def answer(scope: dict[str, object], receive: object, send: object) -> None:
    """Says how long the address was that reached it; `/large` is 64 MiB."""
    body = LARGE if scope["path"] == "/large" else f"{len(scope['raw_path'])}".encode()  # type: ignore[arg-type]
    await send(  # type: ignore[operator]
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


PATIENT = replace(BOUNDS, receive_s=600.0, write_s=600.0)


def serving(proxies: str = "127.0.0.1", limits: RequestLimits = BOUNDS) -> AbstractAsyncContextManager[int]:
    return in_process.serving(answer, limits=limits, connections=CONNECTIONS, proxies=proxies)  # type: ignore[arg-type]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving() as opened:
        yield opened


async def told(port: int, *pieces: bytes) -> bytes:
    """All that the server says to pieces that come one by one, until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.02)
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    return said


def get(path: str = "/", *more: str, close: bool = True) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: a", *more, *(["Connection: close"] if close else [])]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        pytest.param([get("/" + "a" * 299)], 200, id="longest address"),
        pytest.param([get("/" + "a" * 300)], 414, id="address too long"),
        pytest.param([b"GET /" + b"a" * 200, b"a" * 200], 414, id="address too long, in pieces"),
        pytest.param([get("/", "X: " + "x" * 1900)], 200, id="longest header"),
        pytest.param([get("/", "X: " + "x" * 2000)], 431, id="header too long"),
        pytest.param([get("/", *[f"X{n}: {'x' * 90}" for n in range(30)])], 431, id="too many headers"),
        pytest.param([b"GET / HTTP/1.1\r\nX: ", *[b"x" * 500] * 5], 431, id="a header without an end"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n"], 400, id="NUL in a header"),
        pytest.param([b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n"], 400, id="a control character"),
        pytest.param([b"hello\r\n\r\n"], 400, id="no HTTP"),
        pytest.param([], 408, id="a connection that says nothing"),
        pytest.param([b"GET / HTTP/1.1\r\nHost:"], 408, id="a request without an end"),
        pytest.param([get("/", *(["X: y"] * 3), close=False) * 40 + get()], 200, id="many small requests at once"),
    ],
)
async def test_a_request_has_bounds(port: int, pieces: list[bytes], status: int) -> None:
    said = await told(port, *pieces)
    assert int(said.split(b" ")[1]) == status
    if status != 200:
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert b"cache-control: no-store" in head
        assert body.endswith(b".\n")


async def test_all_of_a_pipeline_is_answered(port: int) -> None:
    said = await told(port, get("/1", close=False) * 50 + get("/1234"))
    assert said.count(b"HTTP/1.1 200") == 51
    assert said.endswith(b"\r\n\r\n5")


async def test_a_connection_may_bring_any_number_of_requests(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(100):
        writer.write(get(f"/{number}", close=False))
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)
    writer.close()


async def test_a_request_may_begin_in_a_large_piece(port: int) -> None:
    many = get("/", close=False) * 100
    said = await told(port, many + get()[:20], get()[20:])
    assert said.count(b"HTTP/1.1 200") == 101


async def test_a_body_that_never_ends_does_not_hold_the_connection(port: int) -> None:
    said = await told(port, get("/", "Content-Length: 1000", close=False), b"x")
    assert said.count(b"HTTP/1.1") == 1
    assert b"HTTP/1.1 200" in said


async def test_a_connection_that_was_answered_may_be_idle_longer_than_a_request_may_take(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(get(close=False))
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(1) == b"1"
        await asyncio.sleep(2 * BOUNDS.receive_s)
    assert not reader.at_eof()
    writer.close()


async def test_a_slow_second_request_has_no_more_time_than_the_first(port: int) -> None:
    said = await told(port, get(close=False), b"GET / HT")
    assert said.count(b"HTTP/1.1 200") == 1
    assert said.count(b"HTTP/1.1 408") == 1


async def slow_reader(port: int, *requests: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that buffers little and reads only when it is told to."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"".join(requests))
    return reader, writer


async def test_a_client_that_takes_nothing_loses_its_connection(port: int) -> None:
    reader, writer = await slow_reader(port, get("/large", close=False))
    await asyncio.sleep(4 * BOUNDS.write_s)
    async with asyncio.timeout(20):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(len(LARGE))
    writer.close()


async def test_a_client_that_reads_slowly_gets_all_of_it(port: int) -> None:
    reader, writer = await slow_reader(port, get("/large"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200" in head
    received = 0
    for _ in range(8):
        await asyncio.sleep(BOUNDS.write_s / 2)
        received += len(await reader.readexactly(len(LARGE) // 8))
    assert received == len(LARGE)
    assert await reader.read() == b""
    writer.close()


async def open_idle(port: int, number: int) -> list[asyncio.StreamWriter]:
    return [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(number)]


@pytest.mark.parametrize(
    ("proxies", "idle", "status"),
    [
        pytest.param("10.0.0.1", CONNECTIONS // 4 - 1, 200, id="a client's share"),
        pytest.param("10.0.0.1", CONNECTIONS // 4, 503, id="more than its share"),
        pytest.param("127.0.0.1", CONNECTIONS - 1, 200, id="a proxy has all"),
        pytest.param("127.0.0.1", CONNECTIONS, 503, id="more than there are"),
    ],
)
async def test_connections_are_bounded_and_health_is_always_told(proxies: str, idle: int, status: int) -> None:
    async with serving(proxies) as port:
        others = await open_idle(port, idle)
        said = await told(port, get("/1"))
        assert int(said.split(b" ")[1]) == status
        if status == 503:
            assert b"\r\nretry-after: 5\r\n" in said
            assert said.count(b"connection: close") == 1
        for path in ("/livez", "/readyz", "/metrics", "/livez?x"):
            assert (await told(port, get(path))).startswith(b"HTTP/1.1 200")
        for writer in others:
            writer.close()
            await writer.wait_closed()
        assert (await told(port, get("/1"))).startswith(b"HTTP/1.1 200")


async def test_connections_without_a_request_make_room_for_new_ones() -> None:
    surplus = CONNECTIONS // 8
    async with serving(limits=PATIENT) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * CONNECTIONS)]
        async with asyncio.timeout(20):
            assert {await reader.read() for reader, _ in idle[CONNECTIONS:-surplus]} == {b""}
            for reader, writer in idle[:CONNECTIONS] + idle[-surplus:]:
                writer.write(get("/livez", close=False))
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in idle:
            writer.close()


async def test_an_answer_under_way_is_not_cut_for_a_new_connection() -> None:
    async with serving(limits=PATIENT) as port:
        idle = await open_idle(port, CONNECTIONS)
        reader, writer = await slow_reader(port)  # opened over the limit; below it when it asks
        for other in idle[:2]:
            other.close()
        async with asyncio.timeout(20):
            while not (await told(port, get("/1"))).startswith(b"HTTP/1.1 200"):
                pass
            writer.write(get("/large"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            idle += await open_idle(port, CONNECTIONS)
            assert (await told(port, get("/livez"))).startswith(b"HTTP/1.1 200")
            assert len(await reader.read()) == len(LARGE)
        for other in (*idle, writer):
            other.close()
