"""A proxy on loopback that misbehaves on purpose, between special and an S3 server, and takes everything down.

Requests go on byte for byte, the Host header included: the S3 server checks the signature over what
the client has signed, so no secret is needed here. Each request may meet one `Fault`, which a
`Choose` decides; `Weather` is the seeded one. What was asked and what was sent stands in the log.

    with proxy(s3.endpoint, delay_s=0.02) as between:
        environ = replace(s3, endpoint=between.endpoint).environ
        between.choose = Weather(seed=7, rate=0.05)
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from special.storage.blob import Span

PIECE_BYTES = 65536
HEAD_BYTES = 65536
"""Longest head of a request or an answer."""
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_CONTENT_RANGE = re.compile(rb"bytes (\d+)-(\d+)/(\d+)")
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing the socket sends a reset."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer comes late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """The request waits until the test lets it go on."""

    released: threading.Event = field(default_factory=threading.Event, hash=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The store says no, without having been asked."""

    status: int = 503
    code: str = "SlowDown"


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset after so many bytes of the body."""

    at_byte: int


@dataclass(frozen=True, slots=True)
class Short:
    """The body is so many bytes shorter than the range, and Content-Length says so."""

    by_bytes: int = 1


@dataclass(frozen=True, slots=True)
class Long:
    """The body is so many bytes longer than the range, and Content-Length says so."""

    by_bytes: int = 1


@dataclass(frozen=True, slots=True)
class WrongRange:
    """Content-Range names bytes so much further on than those that were asked for."""

    by_bytes: int = 1


@dataclass(frozen=True, slots=True)
class Whole:
    """200 for a 206: a body as long as the object, right only where the range is."""


@dataclass(frozen=True, slots=True)
class BlackHole:
    """No answer ever comes; the connection stays open until the client leaves."""


@dataclass(frozen=True, slots=True)
class Drip:
    """The body comes so many bytes a second."""

    bytes_per_s: float = 1.0


Fault = Delay | Held | Refused | Reset | Short | Long | WrongRange | Whole | BlackHole | Drip
ALL_FAULTS: tuple[Fault, ...] = (
    Delay(0.5),
    Refused(503, "SlowDown"),
    Refused(500, "InternalError"),
    Reset(0),
    Reset(1000),
    Short(),
    Long(),
    WrongRange(),
    Whole(),
    BlackHole(),
    Drip(),
)


@dataclass(slots=True)
class Exchange:
    """One request, and what became of it."""

    number: int
    """Its place in the log."""
    method: str
    bucket: str
    key: str
    span: Span | None
    """The bytes that its Range header asks for."""
    match: str | None
    """Its If-Match header: None for a read of whatever version is there."""
    client_port: int
    """The port that it came from; tells which process has sent it."""
    arrived_s: float
    """By the monotonic clock."""
    fault: Fault | None = None
    status: int = 0
    """What was answered; 0 while nothing was."""
    sent_bytes: int = 0
    """Bytes of the body that were sent."""
    over: bool = False
    """Whether it has been answered in full, cut off, or left by its client."""


Choose = Callable[[Exchange], Fault | None]


def fair(exchange: Exchange) -> Fault | None:
    """No fault at all."""
    return None


@dataclass(slots=True)
class Weather:
    """Faults at random: the same for the same seed and order of requests."""

    seed: int
    rate: float
    """Share of requests that meet a fault, 0 to 1; bursts come on top."""
    faults: tuple[Fault, ...] = ALL_FAULTS
    burst: int = 5
    """So many requests in a row are refused once one is: a store that throttles does so for a while."""
    _left: int = 0

    def __call__(self, exchange: Exchange) -> Fault | None:
        chance = random.Random(f"{self.seed} {exchange.number}")
        if self._left:
            self._left -= 1
            return Refused()
        if chance.random() >= self.rate:
            return None
        fault = chance.choice(self.faults)
        if isinstance(fault, Refused):
            self._left = self.burst - 1
        return fault


class Proxy:
    """A running proxy. Its attributes may be read and `choose` be set from any thread."""

    def __init__(self, upstream: str, *, delay_s: float, choose: Choose) -> None:
        self.endpoint = ""
        self.log: list[Exchange] = []
        self.choose = choose
        self.delay_s = delay_s
        """What every request takes longer than without the proxy."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._conversations: set[asyncio.Task[None]] = set()

    def gets(self, key: str, *, since: int = 0) -> list[Exchange]:
        """The GETs of one object from a place in the log on."""
        return [each for each in self.log[since:] if each.method == "GET" and each.key == key]

    @property
    def running(self) -> list[Exchange]:
        """The requests that are under way."""
        return [each for each in self.log if not each.over]

    async def run(self, started: Future[asyncio.Event]) -> None:
        """Serve until the event that `started` is given is set."""
        stop = asyncio.Event()
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=HEAD_BYTES, backlog=1024) as server:
            self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set_result(stop)
            await stop.wait()
            server.close()
            for conversation in self._conversations:
                conversation.cancel()
            await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(_Conversation(self, reader, writer).run(*self._upstream))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)


class _Left(Exception):
    """The client, or the proxy on purpose, has ended the conversation."""


class _Conversation:
    """One connection of a client, and the one to the store that belongs to it."""

    def __init__(self, owner: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._owner = owner
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(0)  # what is drained has been sent
        self._client_port: int = writer.get_extra_info("peername")[1]

    async def run(self, host: str, port: int) -> None:
        """Pass requests on, one after the other, until either side hangs up."""
        up_reader, up_writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES)
        try:
            while (head := await _Head.read(self._reader)) is not None:
                exchange = self._taken_down(head)
                try:
                    await self._exchange(exchange, head, up_reader, up_writer)
                finally:
                    exchange.over = True
        except (_Left, ConnectionError, asyncio.IncompleteReadError):
            pass  # what was sent of this exchange stands in the log
        finally:
            up_writer.close()
            self._writer.close()

    def _taken_down(self, head: _Head) -> Exchange:
        method, target, _ = head.line.decode("latin-1").split(" ", 2)
        bucket, _, key = unquote(urlsplit(target).path).removeprefix("/").partition("/")
        wanted = _RANGE.fullmatch(head.get(b"range").decode())
        span = Span(int(wanted[1]), int(wanted[2]) + 1) if wanted else None
        match = head.get(b"if-match").decode() or None
        log = self._owner.log
        exchange = Exchange(len(log), method, bucket, key, span, match, self._client_port, monotonic())
        exchange.fault = self._owner.choose(exchange)
        log.append(exchange)
        return exchange

    async def _exchange(
        self, exchange: Exchange, head: _Head, up_reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter
    ) -> None:
        body = await self._request_body(head)
        if self._owner.delay_s:
            await self._while_there(asyncio.sleep(self._owner.delay_s))
        match exchange.fault:
            case Delay(seconds):
                await self._while_there(asyncio.sleep(seconds))
            case Held(released):
                await self._while_there(_until(released))
            case BlackHole():
                await self._while_there(asyncio.Event().wait())
            case Refused(status, code):
                await self._refuse(exchange, status, code)
                return
        up_writer.write(bytes(head) + body)
        answer = await _Head.read(up_reader)
        if answer is None:
            raise _Left
        pieces = answer.body(up_reader, of=exchange.method)
        await self._answer(exchange, answer, pieces)

    async def _request_body(self, head: _Head) -> bytes:
        assert not head.get(b"transfer-encoding"), "requests with chunked bodies are not passed on"
        length = int(head.get(b"content-length") or 0)
        if length and head.drop(b"expect"):  # not signed; botocore waits for this before it sends a body
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await self._reader.readexactly(length)

    async def _refuse(self, exchange: Exchange, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>On purpose.</Message></Error>".encode()
        body = b"" if exchange.method == "HEAD" else text
        fields = b"Content-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(text)
        exchange.status = status
        await self._send(b"HTTP/1.1 %d On purpose\r\n" % status + fields)
        await self._send(body)
        exchange.sent_bytes = len(body)

    async def _answer(self, exchange: Exchange, answer: _Head, pieces: AsyncIterator[bytes]) -> None:
        """Pass the store's answer on, spoilt as the exchange's fault says."""
        told = _CONTENT_RANGE.fullmatch(answer.get(b"content-range"))
        fault = exchange.fault
        if told:
            start, last, total = (int(number) for number in told.groups())
            match fault:
                case WrongRange(by_bytes):
                    answer.put(b"content-range", b"bytes %d-%d/%d" % (start + by_bytes, last + by_bytes, total))
                case Whole():
                    answer.line = b"HTTP/1.1 200 OK"
                    answer.drop(b"content-range")
                    answer.put(b"content-length", b"%d" % total)
                    pieces = _surrounded(pieces, start, total - last - 1)
                case Short(by_bytes):
                    answer.put(b"content-length", b"%d" % (last + 1 - start - by_bytes))
                    pieces = _cut(pieces, last + 1 - start - by_bytes)
                case Long(by_bytes):
                    answer.put(b"content-length", b"%d" % (last + 1 - start + by_bytes))
                    pieces = _surrounded(pieces, 0, by_bytes)
        exchange.status = int(answer.line.split(b" ")[1])
        await self._send(bytes(answer))
        async for piece in pieces:
            match fault:
                case Reset(at_byte) if exchange.sent_bytes + len(piece) > at_byte:
                    rest = piece[: at_byte - exchange.sent_bytes]
                    await self._send(rest)
                    exchange.sent_bytes += len(rest)
                    self._reset()
                case Drip(bytes_per_s):
                    for n in range(len(piece)):
                        await self._while_there(asyncio.sleep(1 / bytes_per_s))
                        await self._send(piece[n : n + 1])
                        exchange.sent_bytes += 1
                case _:
                    await self._send(piece)
                    exchange.sent_bytes += len(piece)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def _reset(self) -> None:
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()
        raise _Left

    async def _while_there(self, waiting: Coroutine[None, None, object]) -> None:
        """Wait, but not for a client that has left."""
        work = asyncio.ensure_future(waiting)
        leaving = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _Left
        finally:
            work.cancel()
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    async def _gone(self) -> None:
        # A stream tells of its end to those who read it, and what they read would be missing from the next request.
        while not self._reader.at_eof() and not self._writer.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class _Head:
    """A first line and the fields below it, of a request or an answer."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    """Names as they were written."""

    BODILESS: ClassVar = (b"204", b"304")

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> _Head | None:
        """The next head; None at the end of the stream."""
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        return cls(lines[0], [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])])

    def __bytes__(self) -> bytes:
        return b"\r\n".join((self.line, *(name + b": " + value for name, value in self.fields), b"", b""))

    def get(self, name: bytes) -> bytes:
        """A field's value; empty if it is not there."""
        return next((value for other, value in self.fields if other.lower() == name), b"")

    def drop(self, name: bytes) -> bool:
        """Take a field out; says whether it was there."""
        kept = [field for field in self.fields if field[0].lower() != name]
        found, self.fields = len(kept) < len(self.fields), kept
        return found

    def put(self, name: bytes, value: bytes) -> None:
        """Replace a field."""
        self.drop(name)
        self.fields.append((name, value))

    def body(self, reader: asyncio.StreamReader, *, of: str) -> AsyncIterator[bytes]:
        """An answer's body in pieces; `of` is the request's method. What is done to the head later changes nothing."""
        if of == "HEAD" or self.line.split(b" ")[1] in self.BODILESS:
            return _read(reader, 0)
        if self.get(b"transfer-encoding").lower() == b"chunked":
            return _read_chunked(reader)
        return _read(reader, int(self.get(b"content-length") or 0))


async def _read(reader: asyncio.StreamReader, left: int) -> AsyncIterator[bytes]:
    while left:
        piece = await reader.read(min(left, PIECE_BYTES))
        if not piece:
            raise _Left
        left -= len(piece)
        yield piece


async def _read_chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Chunk by chunk, each as it is written."""
    while length := int(line := await reader.readuntil(b"\r\n"), 16):
        yield line + await reader.readexactly(length + 2)
    yield line + await reader.readuntil(b"\r\n")


async def _until(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110  it belongs to another thread
        await asyncio.sleep(0.005)


async def _cut(pieces: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """The first bytes alone; the rest is read all the same, for the connection to be used again."""
    async for piece in pieces:
        if length:
            yield piece[:length]
            length -= len(piece[:length])


async def _surrounded(pieces: AsyncIterator[bytes], before: int, after: int) -> AsyncIterator[bytes]:
    yield bytes(before)
    async for piece in pieces:
        yield piece
    yield bytes(after)


@contextmanager
def proxy(upstream: str, *, delay_s: float = 0.0, choose: Choose = fair) -> Iterator[Proxy]:
    """A proxy to `http://host:port` in a thread with a loop of its own, on a free port of the loopback address."""
    between = Proxy(upstream, delay_s=delay_s, choose=choose)
    started: Future[asyncio.Event] = Future()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await between.run(started)

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="fault-proxy")
    thread.start()
    try:
        stop = started.result(timeout=60)
        yield between
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def blocks_got(gets: list[Exchange], block_bytes: int) -> Counter[int]:
    """How often each block was asked for, by requests that are pinned and made of whole blocks."""
    return Counter(
        index
        for each in gets
        if each.match and each.span and not each.span.start % block_bytes
        for index in range(each.span.start // block_bytes, -(-each.span.stop // block_bytes))
    )
