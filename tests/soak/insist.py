"""Clients who ask for the same again and again, in a process of their own: what measures others must not wait for them.

    python -m tests.soak.insist URL PATH CLIENTS

Says `refused` once somebody was told to come again, and at the end of its standard input what was answered, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.soak.crowd import ask

REFUSED = "refused"
PAUSE_S = 0.1
"""What a client waits once it was refused."""
READY_WITHIN_S = 60.0


@asynccontextmanager
async def insisting(url: str, path: str, clients: int) -> AsyncIterator[Counter[int]]:
    """The time in which a crowd keeps a lane full, queue and all; afterwards, how it was answered, by status."""
    answers: Counter[int] = Counter()
    command = [sys.executable, "-m", "tests.soak.insist", url, path, str(clients)]
    pipe = asyncio.subprocess.PIPE
    crowd = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            assert (await crowd.stdout.readline()).decode().strip() == REFUSED
        yield answers
        told, _ = await crowd.communicate(b"")  # which ends its input
        answers.update({int(status): count for status, count in json.loads(told).items()})
    finally:
        if crowd.returncode is None:
            crowd.kill()
            await crowd.wait()


async def insist(url: str, path: str, clients: int) -> None:
    """Ask until standard input ends."""
    answers: Counter[int] = Counter()

    async def client() -> None:
        while True:
            status = (await ask(url, path)).status
            answers[status] += 1
            if status == 503:
                if answers[503] == 1:
                    print(REFUSED, flush=True)
                await asyncio.sleep(PAUSE_S)

    # They stand for clients on other machines, which take no processor from the server.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    crowd = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.to_thread(sys.stdin.read)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(insist(sys.argv[1], sys.argv[2], int(sys.argv[3])))
