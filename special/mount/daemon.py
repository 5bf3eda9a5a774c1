"""Runs a mount in the background, once it is known to work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def in_background(work: Callable[[Callable[[], None]], None]) -> None:
    """Do work in a process of its own, and return when it calls what it is handed: it is ready.

    Work that ends before ends this process with its exit code. Nothing may have started threads yet: it forks.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if child:
        os.close(writable)
        with os.fdopen(readable, "rb") as pipe:
            if pipe.read(1):
                return
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.close(readable)
    os.setsid()

    def ready() -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # a terminal that is closed, or a caller who waits for the end of a pipe
            os.dup2(nowhere, standard)
        os.close(nowhere)
        os.write(writable, b"1")
        os.close(writable)

    work(ready)
    sys.exit(0)
