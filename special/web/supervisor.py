"""Keeps the server processes of `special serve` going."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from socket import socket
from time import monotonic
from weakref import WeakKeyDictionary

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

START_S = 60
"""Maximum time of a new process for its imports and, at a rolling restart, until it serves."""
SILENT_S = 15.0
"""A process that has answered before and does not for this long is replaced."""

log = logging.getLogger("special.web")


@dataclass(slots=True)
class _Health:
    """What is known of a process by its health checks."""

    asked_s: float | None = None
    """When the check was sent that it has not answered; None without one."""
    answered: bool = False
    """Whether it ever answered one."""


class Supervisor(Multiprocess):
    """uvicorn's supervisor without its blocking health checks: a dead process is replaced half a second later.

    uvicorn's own asks one process after the other whether it is alive, and waits for each. One that is killed before
    it can answer costs the whole `timeout_worker_healthcheck`, in which no other is checked. `before_starts` is called
    each time before processes may be started again.
    """

    _health: WeakKeyDictionary[Process, _Health]

    def __init__(
        self, config: Config, sockets: list[socket], *, before_starts: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config, sockets)
        self._before_starts = before_starts

    def run(self) -> None:
        """Start the processes and supervise them until a signal ends it."""
        self._health = WeakKeyDictionary()
        super().run()

    def handle_signals(self) -> None:
        if self._before_starts is not None:
            self._before_starts()
        super().handle_signals()

    def keep_subprocess_alive(self) -> None:
        """Replace processes that died or do not answer. One that cannot start ends the supervisor."""
        if self.should_exit.is_set():
            return
        for index, process in enumerate(self.processes):
            if self._is_alive(process):
                continue
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE:
                log.error("server process %d could not start, as no other would: it said why", process.pid)
                self.should_exit.set()
                return
            self.processes[index] = another = Process(self.config, self.sockets)
            another.start()
            log.warning("server process %d ended (%s); %d takes its place", process.pid, process.exitcode, another.pid)

    def _is_alive(self, process: Process) -> bool:
        if not process.process.is_alive():
            return False
        health = self._health.setdefault(process, _Health())
        try:
            while process.parent_conn.poll():
                process.parent_conn.recv()
                health.asked_s, health.answered = None, True
            if health.asked_s is None:
                process.parent_conn.send(b"ping")
                health.asked_s = monotonic()
        except (OSError, EOFError):
            return False
        return monotonic() - health.asked_s < (SILENT_S if health.answered else START_S)
