"""One child as its parent sees it: a process and a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

from special.errors import ConfigurationError
from special.workers.messages import (
    LENGTHS,
    MAX_HEADER_BYTES,
    Asks,
    Gives,
    Layers,
    Outcome,
    Ready,
    Said,
    Setup,
    Unready,
    dump,
    load_reply,
)

START_SECONDS: Final = 60.0
"""Maximum time that a child may take to get ready."""
_INHERITED: Final = frozenset(
    {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME"}
)
"""The variables that a child is given: no credentials, no home directory to find some in."""
_SET: Final = {
    # One job, one thread: each further one would cost address space.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # glibc uses freed memory again (mallopt(3)), where pages from the system took a quarter of a tile's time.
    "MALLOC_MMAP_THRESHOLD_": f"{16 << 20}",
    "MALLOC_TRIM_THRESHOLD_": f"{16 << 20}",
}
MESSAGE_BYTES: Final = 1 << 20
"""Of the messages to and from a child, what the socket takes at once: the parts of a tile, or the tile."""
_PROGRAM: Final = "import sys; from special.workers.child import main; main(int(sys.argv[1]))"


class Unfit(ConfigurationError):
    """A child reports that it cannot get ready: under the same limits no other will."""


class Owner(Protocol):
    """What hears of a child: the pool."""

    def replied(self, child: Child, reply: Outcome) -> None:
        """The child's reply to the call that it was sent last."""
        ...

    def said(self, child: Child, said: Said) -> None:
        """The child has a question, or a part of its result, and waits to be told."""
        ...

    def lost(self, child: Child) -> None:
        """A child that was ready is dead and reaped; `child.ending` says how it died."""
        ...


class Child(asyncio.BufferedProtocol):
    """A decoder process. A reply is received straight into a buffer of its length."""

    def __init__(self, process: subprocess.Popen[bytes], owner: Owner) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        """Done when the process has been reaped."""
        self.sandbox: Layers = {}
        """The layers of its sandbox and whether each holds, once it is ready."""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(_take_notice)
        self._is_ready = self._killed = False
        self._process = process
        self._owner = owner
        self._transport: asyncio.WriteTransport | None = None
        self._max_body_bytes = 0
        self._lengths = bytearray(LENGTHS.size)
        self._header_bytes = 0
        self._message: bytearray | None = None
        """Header and body of the reply that is being received; None while its lengths are."""
        self._filled = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        code = self._process.returncode
        if code is None:
            return "runs"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    async def prepare(self, setup: Setup) -> None:
        """Send the first message and wait until the child is ready.

        Raises `ConfigurationError` if it never is, `Unfit` where it says why.
        """
        self.send(dump(setup))
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._ready
        except BaseException as error:
            self.kill()
            await self.gone
            if isinstance(error, TimeoutError):
                raise ConfigurationError(f"a decoder process was not ready after {START_SECONDS:.0f} s") from error
            raise

    def send(self, parts: list[bytes], *, max_reply_bytes: int = 0) -> None:
        """Send a message of `messages.dump`, and take a reply of at most that many bytes beside its header.

        Never blocks: what the socket does not take at once is kept.
        """
        assert self._transport is not None, "sent before connected"
        self._max_body_bytes = max_reply_bytes
        for part in parts:
            self._transport.write(part)

    def kill(self) -> None:
        """End the process now; nothing more is received of it, and `lost` follows."""
        self._killed = True
        self._process.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._lengths if self._message is None else self._message)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._killed:
            return
        self._filled += nbytes
        if self._message is None:
            if self._filled == LENGTHS.size:
                self._begin_message(*LENGTHS.unpack(self._lengths))
        elif self._filled == len(self._message):
            message, self._message, self._filled = memoryview(self._message), None, 0
            try:
                reply = load_reply(message[: self._header_bytes], message[self._header_bytes :])
            except ValueError:
                self.kill()
                return
            match reply:
                case Ready() | Unready() if self._ready.done():
                    self.kill()  # it was ready already, or was given up
                case Ready(layers):
                    self.sandbox, self._is_ready = layers, True
                    self._ready.set_result(None)
                case Unready(reason):
                    self._ready.set_exception(Unfit(f"a decoder process cannot get ready: {reason}"))
                case Asks() | Gives():
                    self._owner.said(self, reply)
                case _:
                    self._owner.replied(self, reply)

    def _begin_message(self, header_bytes: int, body_bytes: int) -> None:
        self._filled = 0
        if not 0 < header_bytes <= MAX_HEADER_BYTES or body_bytes > self._max_body_bytes:
            self.kill()
            return
        self._header_bytes = header_bytes
        self._message = bytearray(header_bytes + body_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        # The socket closes when the process ends, after its memory is freed: this wait is short.
        self._process.kill()
        self._process.wait()
        self.gone.set_result(None)
        if self._is_ready:
            self._owner.lost(self)
        elif not self._ready.done():
            self._ready.set_exception(
                ConfigurationError(
                    f"a decoder process {self.ending} before it was ready; decoder_memory may be too low"
                )
            )


def _take_notice(ready: asyncio.Future[None]) -> None:
    """Retrieve the error of a child that ended before it was ready: where its start was given up, no caller does."""
    if not ready.cancelled():
        ready.exception()


@dataclass(frozen=True, slots=True)
class Begun:
    """A child that loads its codecs, and then waits to be told its limits. It ends where `socket` is closed."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def begin() -> Begun:
    """Begin a child: it gets ready while its parent does something else. Costs the fork and exec of an interpreter."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    environment = {name: value for name, value in os.environ.items() if name in _INHERITED}
    with theirs:
        process = subprocess.Popen(  # noqa: S603  our own interpreter
            [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment | _SET | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C at a terminal is for the parent
        )
    return Begun(process, ours)


async def spawn(owner: Owner, begun: Begun, *, memory_bytes: int, prepare: Callable[[], object]) -> Child:
    """A child that is ready for jobs. Waits for an interpreter's start and its imports, about 0.2 s from `begin` on.

    Raises `Unfit` if it says that it cannot get ready, `ConfigurationError` if it ends before, or takes too long.
    """
    process, ours = begun.process, begun.socket
    loop = asyncio.get_running_loop()
    try:
        _, child = await loop.create_unix_connection(lambda: Child(process, owner), sock=ours)
    except BaseException:
        process.kill()
        process.wait()
        ours.close()
        raise
    await child.prepare(Setup(os.getpid(), memory_bytes, prepare))
    return child
