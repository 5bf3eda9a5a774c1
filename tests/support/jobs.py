"""Functions for decoder processes to run in tests; a child imports them by name."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pyvips

from special import codecs
from special.errors import Malformed
from special.workers.child import Channel


def prepare() -> None:
    """Load codecs, and with this function's module all jobs of tests: a decoder loads nothing once it is ready."""
    codecs.prepare()


def environment() -> dict[str, str]:
    """All that a child sees of it."""
    return dict(os.environ)


def limits() -> dict[str, int]:
    """The soft limits that children run under, how nice they are, and the signals that they ignore."""
    return {
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "SIGINT": int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN),
        "SIGTERM": int(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN),
    }


def slice_ns() -> int:
    """What the kernel holds for the slice that this process wishes for; 0 where it knows of none."""
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]  # sched_getattr(2)
    attributes = ctypes.create_string_buffer(48)
    ctypes.CDLL(None).syscall(number, 0, attributes, len(attributes), 0)
    return int(struct.unpack_from("=IIQiIQ", attributes)[-1])


def refuse(message: str) -> None:
    """Raise an error of ours."""
    raise Malformed(message)


def raise_one_that_cannot_travel() -> None:
    """Raise an exception that pickle cannot take."""
    raise OSError(lambda: None)


def return_what_cannot_travel() -> object:
    """Return a value that JSON cannot say."""
    return lambda: None


_remembered: list[str] = []


def remember(name: str) -> list[str]:
    """All names that this child was ever given."""
    _remembered.append(name)
    return _remembered


def reply(message: bytes) -> None:
    """Write bytes to the parent that no decoder sends."""
    os.write(int(sys.argv[1]), message)
    signal.pause()


def waste_memory(megabytes: int) -> None:
    """Take memory inside libvips, where GLib ends the process that cannot have any."""
    side = 1024 * 16
    image = pyvips.Image.black(side, side, bands=megabytes // 256)
    image.copy_memory()


def die(marks: Path, times: int, spared: int = 0) -> None:
    """Be killed, as often in all as this says, after so many who were not; each of both leaves a file in a folder."""
    if _is_chosen(marks, times, spared):
        os.kill(os.getpid(), signal.SIGKILL)


def decline(marks: Path, error: Exception, times: int, spared: int = 0) -> None:
    """Raise this error as often as `die` would have it."""
    if _is_chosen(marks, times, spared):
        raise error


def _is_chosen(marks: Path, times: int, spared: int) -> bool:
    for n in range(spared + times):
        try:
            (marks / str(n)).touch(exist_ok=False)
        except FileExistsError:
            continue
        return n >= spared
    return False


def ask(channel: Channel) -> int:
    """What the parent answers, when it does."""
    answer: int = channel.ask(1)
    return answer


def burn() -> None:
    """Use a processor for ever."""
    while True:
        pass


def attempt(name: str) -> str:
    """What comes of something that no decoder needs: the name of the error, or what was gained by it."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(16)
    mine, theirs = (struct.pack("@PN", ctypes.addressof(buffer), 16) for _ in range(2))
    attempts = {
        "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "write a file": lambda: os.open(f"{os.getcwd()}/attempt", os.O_WRONLY | os.O_CREAT),
        "make a folder": lambda: os.mkdir(f"{os.getcwd()}/attempt"),
        "read the parent's environment": lambda: os.open(f"/proc/{parent}/environ", os.O_RDONLY),
        "open an internet socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "open a local socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "make a pair of sockets": socket.socketpair,
        "fork": os.fork,
        "execute a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        "spawn a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "signal the parent": lambda: os.kill(parent, 0),
        "trace the parent": lambda: _checked(libc.ptrace(16, parent, 0, 0)),  # PTRACE_ATTACH
        "read the parent's memory": lambda: _checked(libc.process_vm_readv(parent, mine, 1, theirs, 1, 0)),
        "hold the parent by a descriptor": lambda: os.pidfd_open(parent),
        "limit the parent": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
        "make a file in memory": lambda: os.memfd_create("x"),
        "renice": lambda: os.nice(1),
        "become another user": lambda: os.setuid(65534),
        "type into a terminal": lambda: fcntl.ioctl(2, 0x5412, b"x"),  # TIOCSTI
    }
    try:
        return f"gained {attempts[name]()!r}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def threads() -> int:
    """How many threads a decoder can start beside its own."""
    started = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(4)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return len(started)
