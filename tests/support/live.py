"""A whole server in a process of its own, as a user starts it: `special serve SOURCE`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import POLL_S, READY_WITHIN_S, free_ports

MASTERS = Path(__file__).parents[2] / "fixtures" / "masters"
STOPS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A running server."""

    url: str
    """`http://127.0.0.1:{port}`, without a trailing slash."""
    home: Path
    """Its state folder."""
    log: Path
    """What it wrote to standard output and standard error."""
    process: subprocess.Popen[bytes]


@contextmanager
def special(
    source: str | Path,
    *options: str,
    home: Path,
    settings: Mapping[str, str] | None = None,
    workers: int | None = 1,
    before: Sequence[str] = (),
) -> Iterator[LiveServer]:
    """Serve a source on a free port of the loopback address; it is ready when it is yielded.

    `settings` are environment variables, `SPECIAL_…` among them; those of the test run are not passed on.
    `workers` are its processes: one, so that what a test counts is in one place; None: as many as users have.
    `before` is put before the command: a program that runs it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPECIAL_")}
    environ = {**inherited, "SPECIAL_HOME": str(home), **(settings or {})}
    port, log = free_ports(1)[0], home / "serve.log"
    command = [*before, sys.executable, "-m", "special", "serve", str(source), "--port", str(port), *options]
    if workers is not None:
        command += ["--workers", str(workers)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    server = LiveServer(f"http://127.0.0.1:{port}", home, log, process)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait_until_ready(server: LiveServer) -> None:
    import httpx

    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(POLL_S)
    raise RuntimeError(f"special serve did not become ready:\n{server.log.read_text(errors='replace')[-4000:]}")
