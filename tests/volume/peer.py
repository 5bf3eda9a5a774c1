"""Another server on a volume: `python -m tests.volume.peer '<json>'`.

Says `ready` when its volume is open, does its reads at `go`, says what came of them in a line of JSON,
and closes at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from special.errors import SpecialError
from special.storage.blob import Blob, Span
from special.volume import Volume
from special.volume.directory import Step
from tests.volume.made import Made, blob, expected


@dataclass(frozen=True)
class Orders:
    """What a peer is to do."""

    directory: str
    log: str
    size_bytes: int = 32 << 20
    block_bytes: int = 64 << 10
    leader_timeout_s: float = 5.0
    objects: dict[str, int] = field(default_factory=dict)
    """Length of each object."""
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    """One read for each: key, start, stop."""
    parallel: int = 1000
    """How many reads at once."""
    get_s: float = 0.02
    """How long a GET takes."""
    die_at: str = ""
    """Before which step to be killed."""
    die_after: int = 0
    """How often to pass it first."""


async def run(orders: Orders) -> None:
    left = orders.die_after

    def at(step: Step) -> None:
        nonlocal left
        if step == orders.die_at:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def pause(of: Blob, span: Span) -> None:
        await asyncio.sleep(orders.get_s)

    source = Made(dict.fromkeys(orders.objects, 1), before=pause, log=Path(orders.log))
    async with Volume(
        Path(orders.directory),
        size_bytes=orders.size_bytes,
        block_bytes=orders.block_bytes,
        leader_timeout_s=orders.leader_timeout_s,
        at=at,
    ) as volume:
        reader = volume.reader(source)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

        turns = asyncio.Semaphore(orders.parallel)

        async def right(key: str, start: int, stop: int) -> bool:
            wanted, of = [Span(start, stop)], blob(key, orders.objects[key])
            async with turns:
                return await reader.read(of, wanted) == expected(of, wanted)

        answers = await asyncio.gather(*(right(*read) for read in orders.spans), return_exceptions=True)
        failed = [error.code for error in answers if isinstance(error, SpecialError)]
        print(json.dumps({"right": answers.count(True), "wrong": answers.count(False), "failed": failed}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def arguments(orders: Orders) -> list[str]:
    """The command that starts a peer."""
    return [sys.executable, "-m", "tests.volume.peer", json.dumps(asdict(orders))]


if __name__ == "__main__":
    asyncio.run(run(Orders(**json.loads(sys.argv[1]))))
