"""How long a process may have a processor before another is asked: what Linux calls its slice (EEVDF, from 6.12 on)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")  # sched_setattr(2): size, policy, flags, nice, priority, runtime, …


def ask_for_slice(slice_ns: int) -> None:
    """Ask for a slice of 100,000 to 100,000,000 ns for this thread, and for threads and processes that it starts.

    A process with a shorter slice gets the processor from one with a longer slice at once, where it would otherwise
    wait for the end of the other's 3 ms. Does nothing where the kernel knows no slices, is not Linux, or was told to
    schedule this process by another policy.
    """
    number = _SCHED_SETATTR.get(os.uname().machine) if sys.platform == "linux" else None
    if number is not None and os.sched_getscheduler(0) == os.SCHED_OTHER:
        attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, os.nice(0), 0, slice_ns, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
