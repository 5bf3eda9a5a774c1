"""Server processes whose supervisor was killed do not stay behind: the next server finds its port free."""

import asyncio
import socket
from pathlib import Path

from tests import live, processes
from tests.volume.made import until


async def test_no_process_outlives_a_killed_supervisor(tmp_path: Path) -> None:
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
