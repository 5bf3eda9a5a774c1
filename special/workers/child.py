"""The child's side: take limits, load codecs, enter the sandbox, then do one job after the other.

It ends when its parent has gone.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from special.errors import ConfigurationError, SpecialError
from special.workers import sandbox
from special.workers.messages import (
    LENGTH,
    Asks,
    Call,
    Failed,
    Gives,
    Outcome,
    Raised,
    Ready,
    Reply,
    Setup,
    Told,
    Unready,
    dump_reply,
)
from special.workers.results import form_of

NICENESS: Final = 10
"""Behind the server's own process, which answers the cheap requests while every processor decodes (nice(2))."""
SLICE_NS: Final = 100_000_000
"""Time slice that is asked for, the longest that Linux takes (from 6.12 on). A process with a shorter slice, the
default, gets the processor from a decoder at once, where it would otherwise wait for the end of the decoder's 3 ms."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")  # sched_setattr(2): size, policy, flags, nice, priority, runtime, …
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def main(descriptor: int) -> None:
    """Serve the parent at the other end of this socket until it has gone; never returns."""
    with socket.socket(fileno=descriptor) as parent, suppress(BrokenPipeError, ConnectionResetError):
        setup = _receive(parent)
        if isinstance(setup, Setup):
            _limit(setup)
            readiness = _prepare(setup)
            _send(parent, readiness)
            while isinstance(readiness, Ready) and isinstance(call := _receive(parent), Call):
                _send(parent, _work(call, parent))
    os._exit(0)  # codecs have threads and exit handlers, which need not be waited for


def _limit(setup: Setup) -> None:
    """Limit memory and core files, let other processes have the processor first, and end when the parent ends."""
    resource.setrlimit(resource.RLIMIT_AS, (setup.memory_bytes, setup.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower_priority()
    # A service manager signals the whole group; jobs that run are finished, and the parent ends us when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere the closed socket is noticed after the current job
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != setup.parent:
            os._exit(0)


def _lower_priority() -> None:
    """Let others have the processor first. Where the kernel knows no slices, or is not Linux, by niceness alone."""
    niceness = os.nice(NICENESS)
    number = _SCHED_SETATTR.get(os.uname().machine) if sys.platform == "linux" else None
    if number is not None:
        attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, niceness, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def _prepare(setup: Setup) -> Ready | Unready:
    try:
        setup.prepare()
        return Ready(sandbox.enter())
    except ConfigurationError as error:
        return Unready(str(error))
    except Exception as error:  # the parent logs it, once
        said = "" if isinstance(error, MemoryError) else f": {error}"  # cffi's text names another cause
        return Unready(f"{type(error).__name__}{' '.join(said.split())}; decoder_memory may be too low")


class Channel:
    """What a job says to its parent while it works: questions, and parts of its result. For one thread at a time."""

    def __init__(self, parent: socket.socket, cpu_s: float) -> None:
        self._parent = parent
        self._cpu_s = cpu_s

    def ask(self, *numbers: int) -> Any:
        """The parent's answer to a question. The job's limits of time start again with it."""
        return self._exchange(Asks(numbers))

    def give(self, value: object, parts: Sequence[bytes]) -> None:
        """Hand over a part of the result, and wait until the parent has taken it."""
        self._exchange(Gives(value, parts))

    def _exchange(self, said: Asks | Gives) -> Any:
        _send(self._parent, said)
        told = _receive(self._parent)
        if not isinstance(told, Told):
            os._exit(0)  # the parent has gone
        _limit_cpu(self._cpu_s)
        return told.value


def _limit_cpu(cpu_s: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + cpu_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _work(call: Call, parent: socket.socket) -> Outcome:
    _limit_cpu(call.cpu_s)
    channel = (Channel(parent, call.cpu_s),) if call.talks else ()
    try:
        return form_of(call.function).pack(call.function(*channel, *call.args))
    except SpecialError as error:
        return Raised(error)
    except Exception:  # the job fails, and the parent logs it
        return Failed(traceback.format_exc())


def _send(parent: socket.socket, reply: Reply) -> None:
    try:
        parts = dump_reply(reply)
    except (ValueError, TypeError, MemoryError):
        parts = dump_reply(Failed(traceback.format_exc()))
    for part in parts:
        parent.sendall(part)


def _receive(parent: socket.socket) -> Any:
    """The next message, or None where the parent has gone."""
    head = _exactly(parent, LENGTH.size)
    if head is None:
        return None
    body = _exactly(parent, LENGTH.unpack(head)[0])
    return None if body is None else pickle.loads(body)  # noqa: S301  a child trusts its parent


def _exactly(parent: socket.socket, length: int) -> bytearray | None:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        count = parent.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return buffer
