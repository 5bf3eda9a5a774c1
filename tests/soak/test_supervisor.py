"""The supervisor of several server processes: whoever dies is replaced, and none stays behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from special.web.supervisor import SILENT_S
from tests.support import live, processes
from tests.support.waiting import until

pytestmark = pytest.mark.service

NOTICED_S = 10.0
"""A look is due each half second; a processor may be hard to come by."""


async def test_no_process_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """The next server finds its port free."""
    with live.special(live.MASTERS, home=tmp_path, workers=2) as server:
        await until(lambda: len(processes.servers(server.process.pid)) == 2)
        others = processes.family(server.process.pid)[1:]
        assert len(others) > 4  # two servers and their decoders
        server.process.kill()
        server.process.wait()
        async with asyncio.timeout(60):
            while any(processes.lives(each) for each in others):  # noqa: ASYNC110  a signal is on its way
                await asyncio.sleep(0.1)
    with socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))):
        pass  # its port is free


async def test_processes_killed_before_they_can_answer_keep_nobody_waiting(tmp_path: Path) -> None:
    with live.special(live.MASTERS, home=tmp_path, workers=2) as server:
        supervisor = server.process.pid
        await until(lambda: len(processes.servers(supervisor)) == 2)
        for _ in range(2):
            dead = processes.servers(supervisor)
            for pid in dead:
                os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(NOTICED_S):
                while len(set(processes.servers(supervisor)) - set(dead)) != 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert server.process.poll() is None


@pytest.mark.long
async def test_a_process_that_is_silent_is_replaced(tmp_path: Path) -> None:
    with live.special(live.MASTERS, home=tmp_path, workers=2) as server:
        supervisor = server.process.pid
        await until(lambda: len(processes.servers(supervisor)) == 2)
        await asyncio.sleep(5)  # it has answered before
        silent = processes.servers(supervisor)[0]
        os.kill(silent, signal.SIGSTOP)
        async with asyncio.timeout(SILENT_S + NOTICED_S):
            while processes.lives(silent) or len(processes.servers(supervisor)) != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def test_processes_that_cannot_start_end_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "special", "serve", str(live.MASTERS), "--port", "0", "--workers", "2"]
    environ = os.environ | {"SPECIAL_HOME": str(tmp_path), "SPECIAL_DECODER_MEMORY": "1KiB"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "decoder_memory may be too low" in done.stderr
    assert "Traceback" not in done.stderr
