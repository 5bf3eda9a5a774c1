"""The duties of process 1 of a container: to reap every orphan, and to pass signals on.

The kernel gives orphans to process 1, and they stay in its table until it waits for them. A server that waited for any
child would take the exit codes of its own children from the code that waits for those. So process 1 only starts the
server, in a child, and ends when that ends.
"""

from __future__ import annotations

import os
import signal
import sys

PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def run_below_init() -> None:
    """Return in a child. The calling process stays as its init, and exits with its exit code.

    Call it before threads are started.
    """
    waited_for = {*PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # Ctrl-C reaches process 1 alone, which passes it on: the server would take two as haste
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    asked_by: int = 0
    while True:
        number = signal.sigwait(waited_for)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            asked_by = number
        elif (status := _reap(child)) is not None:
            code = os.waitstatus_to_exitcode(status)
            # uvicorn ends by the signal that stopped it, as processes should; of a container that is no failure.
            sys.exit(code if code >= 0 else 0 if -code == asked_by else 128 - code)


def _reap(child: int) -> int | None:
    """Wait for all that have ended; the wait status of the child, if it is one of them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return status
        if pid == 0:
            return None
