"""Clients of a server: one connection each, as many at once as a test wants, who may leave or ask again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

LONGEST_S = 120.0
"""No client waits longer, unless it says so: a request that hangs is a failure."""
HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what it took to get it."""

    status: int
    headers: dict[str, str]
    """By lower-case names."""
    body: bytes
    seconds: float
    """From the first time of asking to the last byte."""
    refusals: int = 0
    """How often the server was busy first."""
    broken: int = 0
    """How often the connection broke first."""


class Broken(Exception):
    """The connection ended before the answer did."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(status)
        self.status = status
        """What the headers said, where they had come already: such a client was promised an answer."""


@asynccontextmanager
async def asked(base: str, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A request that was sent on a connection of its own; leaving the block hangs up, answered or not."""
    parts = urlsplit(base)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=HEAD_BYTES)
    except OSError as error:
        raise Broken from error
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        yield reader
    finally:
        writer.close()


async def ask(base: str, path: str, *, within_s: float = LONGEST_S) -> Reply:
    """Ask once. Raises `Broken` where the connection ends before the answer does."""
    start_s, status = monotonic(), None
    async with asyncio.timeout(within_s), asked(base, path) as reader:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            status = int(first.split(" ")[1])
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Broken(status) from error
    return Reply(status, headers, body, monotonic() - start_s)


async def ask_again(base: str, path: str, *, within_s: float = LONGEST_S) -> Reply:
    """Ask until there is an answer other than "ask again", as viewers do: after Retry-After, or a broken connection."""
    start_s, refusals, broken = monotonic(), 0, 0
    while True:
        try:
            reply = await ask(base, path, within_s=within_s)
        except Broken:
            broken += 1
            pause_s = 0.2
        else:
            if reply.status != 503 or monotonic() - start_s > within_s:
                return Reply(reply.status, reply.headers, reply.body, monotonic() - start_s, refusals, broken)
            refusals += 1
            pause_s = float(reply.headers["retry-after"])
        assert monotonic() - start_s < within_s, f"{path}: no answer in {within_s} s"
        await asyncio.sleep(pause_s)


async def at_once(base: str, paths: Iterable[str], *, within_s: float = LONGEST_S) -> list[Reply]:
    """A crowd: everybody asks at the same moment, and again where told to."""
    return await asyncio.gather(*(ask_again(base, path, within_s=within_s) for path in paths))


def percentile(replies: Sequence[Reply], percent: int) -> float:
    """How long that share of the replies took at most, in milliseconds."""
    seconds = sorted(reply.seconds for reply in replies)
    return 1000 * seconds[min(len(seconds) - 1, len(seconds) * percent // 100)]
