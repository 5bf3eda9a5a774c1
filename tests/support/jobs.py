"""Functions for decoder processes to run in tests; a child imports them by name."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path

import pyvips

from special.errors import Malformed


def environment() -> dict[str, str]:
    """All that a child sees of it."""
    return dict(os.environ)


def limits() -> dict[str, int]:
    """The soft limits that children run under, how nice they are, and the signals that they ignore."""
    return {
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
        "nice": os.nice(0),
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
    """Return a value that pickle cannot take."""
    return lambda: None


def return_a_stranger() -> object:
    """Return a value that the parent does not want to build."""
    return os.system


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


def get_ready_again(answer: bytes) -> None:
    """Write an answer to the parent that nobody waits for."""
    os.write(int(sys.argv[1]), answer)
    signal.pause()


def burn() -> None:
    """Use a processor for ever."""
    while True:
        pass
