"""Another server that begins a pyramid and does not get done: `python -m tests.volume.sketcher DIRECTORY`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from special.volume import Volume
from tests.volume.made import blob

A = blob("a", 640 << 10)
SIZE_BYTES = 32 << 20
PARTS = [bytes([n]) * 300_000 for n in range(4)]


async def run(directory: Path) -> None:
    async with (
        Volume(directory, size_bytes=SIZE_BYTES) as volume,
        volume.pyramids.making(A, "pyramid-x", head_bytes=16) as making,
    ):
        assert making is not None
        await making.append(PARTS, [b"first"])
        print("sketched", flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
