"""Keeps the server processes of `special serve` going."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic
from weakref import WeakKeyDictionary

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

START_S = 60
"""Most that a new process may take for its imports and, at a rolling restart, until it serves."""
SILENT_S = 15.0
"""A process that has answered before and does not for so long is replaced."""

log = logging.getLogger("special.web")


@dataclass(slots=True)
class _Pulse:
    """What is known of a process by the pipe to it."""

    asked_s: float | None = None
    """When it was asked for a sign of life that it still owes."""
    answered: bool = False
    """Whether it ever gave one."""


class Supervisor(Multiprocess):
    """uvicorn's supervisor, but it waits for nobody: whoever died is replaced at its next look, half a second later.

    uvicorn's own asks one process after the other whether it lives, and waits for each. One that is killed before it
    can answer costs the whole `timeout_worker_healthcheck`, in which no other is looked after.
    """

    _pulses: WeakKeyDictionary[Process, _Pulse]

    def run(self) -> None:
        """Start the processes and look after them until a signal ends it."""
        self._pulses = WeakKeyDictionary()
        super().run()

    def keep_subprocess_alive(self) -> None:
        """Replace who died, and who has been silent for too long. One that cannot start ends the supervisor."""
        if self.should_exit.is_set():
            return
        for index, process in enumerate(self.processes):
            if self._lives(process):
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

    def _lives(self, process: Process) -> bool:
        if not process.process.is_alive():
            return False
        pulse = self._pulses.setdefault(process, _Pulse())
        try:
            while process.parent_conn.poll():
                process.parent_conn.recv()
                pulse.asked_s, pulse.answered = None, True
            if pulse.asked_s is None:
                process.parent_conn.send(b"ping")
                pulse.asked_s = monotonic()
        except (OSError, EOFError):
            return False
        return monotonic() - pulse.asked_s < (SILENT_S if pulse.answered else START_S)
