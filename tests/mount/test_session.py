"""Every request of the kernel gets one answer, whatever happens: a program that got none could not even be killed."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import pack, unpack_from

from special.errors import Denied, Unreachable
from special.mount.protocol import Opcode
from special.mount.session import Session
from special.storage import Blob

BLOB = Blob("s3://a/", "b", '"1"', 9)


class Files:
    """A file system of one kind of answer."""

    def __init__(self, look_up: Callable[[], Awaitable[Blob | str]]) -> None:
        self._look_up = look_up

    async def look_up(self, prefix: str, name: str) -> Blob | str:
        return await self._look_up()


class Kernel:
    """The other end of the device: a socket that keeps messages apart."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        ours.setblocking(False)

    def ask(self, opcode: int, unique: int, body: bytes, *, node: int = 1) -> None:
        self._ours.send(pack("=IIQQIIII", 40 + len(body), opcode, unique, node, 0, 0, 0, 0) + body)

    async def answered(self) -> tuple[int, int]:
        """`unique` and the errno of the next answer."""
        async with asyncio.timeout(10):
            message = await asyncio.get_running_loop().sock_recv(self._ours, 65536)
        length, error, unique = unpack_from("=IiQ", message)
        assert length == len(message)
        return unique, -error


@asynccontextmanager
async def session(look_up: Callable[[], Awaitable[Blob | str]], deadline_s: float = 20) -> AsyncIterator[Kernel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        serving = asyncio.create_task(
            Session(theirs.fileno(), Files(look_up), entry_s=1, deadline_s=deadline_s).serve()  # type: ignore[arg-type]
        )
        await asyncio.sleep(0)
        try:
            yield Kernel(ours)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def for_ever() -> Blob:
    await asyncio.Event().wait()
    return BLOB


async def test_a_request_that_is_taken_back_is_answered_even_before_it_began() -> None:
    async with session(for_ever) as kernel:
        kernel.ask(Opcode.LOOKUP, 8, b"name\0")
        kernel.ask(Opcode.INTERRUPT, 9, pack("=Q", 8))  # both are read before the look-up's task runs
        assert await kernel.answered() == (8, errno.EINTR)
        kernel.ask(Opcode.LOOKUP, 10, b"name\0")
        await asyncio.sleep(0.05)
        kernel.ask(Opcode.INTERRUPT, 11, pack("=Q", 10))
        assert await kernel.answered() == (10, errno.EINTR)
        kernel.ask(Opcode.INTERRUPT, 12, pack("=Q", 10))
        kernel.ask(Opcode.STATFS, 14, b"")
        assert await kernel.answered() == (14, 0), "a second one has no answer of its own"


async def test_what_takes_too_long_is_an_error() -> None:
    async with session(for_ever, deadline_s=0.05) as kernel:
        kernel.ask(Opcode.LOOKUP, 8, b"name\0")
        assert await kernel.answered() == (8, errno.EIO)


async def test_errors_of_the_store_and_of_ours_are_told() -> None:
    errors = [Denied("no"), Unreachable("silent"), ZeroDivisionError("a mistake")]

    async def fail() -> Blob:
        raise errors.pop(0)

    async with session(fail) as kernel:
        for unique, number in ((2, errno.EACCES), (4, errno.EIO), (6, errno.EIO)):
            kernel.ask(Opcode.LOOKUP, unique, b"name\0")
            assert await kernel.answered() == (unique, number)
        kernel.ask(Opcode.READ, 8, bytes(40))
        assert await kernel.answered() == (8, errno.EIO), "no such handle"
        kernel.ask(Opcode.GETATTR, 10, bytes(16), node=77)
        assert await kernel.answered() == (10, errno.ESTALE)
        kernel.ask(3000, 12, b"")
        assert await kernel.answered() == (12, errno.ENOSYS)
