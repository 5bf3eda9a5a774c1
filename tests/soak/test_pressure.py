"""P4: a volume never exceeds its size, and everybody is answered; and whole servers under viewers for long.

The long forms, which print their figures:

    python -m pytest -m long tests/soak/test_pressure.py -s            # 200 masters at once; 10 minutes of viewers
    SOAK_S=60 python -m pytest -m long tests/soak/test_pressure.py -s  # or as long as you like
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from special.volume import stat
from tests.soak.conftest import Library, started
from tests.soak.noise import Noise
from tests.soak.sampler import alone_on_disk, sampled
from tests.soak.viewers import for_seconds, metric, one_of_each, view
from tests.support import processes
from tests.support.servers import S3Server
from tests.support.waiting import until

MIB = 1 << 20
VOLUME_BYTES = 8 * MIB
"""Three masters of the size below, the ledger, and what the ledger may grow by."""
SOAK_S = float(os.environ.get("SOAK_S", "600"))
KNOWN_BYTES = 1.25
"""How much more memory than early on a server may have after a long time: allocators do not give all of it back."""
KNOWN_FILES = 12
"""How many more descriptors, beside those of masters on the volume: connections to the store are kept for a while."""
PROCESSES = 2
FILES = 2
"""Of each master on the volume, in each process."""


@dataclass(frozen=True)
class Open:
    """What a server's processes have open, by number of descriptors."""

    masters: int
    """Files of masters on the volume."""
    evicted: int
    """Files of masters that are there no more."""
    other: int

    @classmethod
    def of(cls, library: Library) -> Open:
        names, home = processes.open_files(library.server.process.pid), f"{library.volume}/objects/"
        masters = [name for name in names if name.startswith(home)]
        evicted = sum(name.endswith(" (deleted)") for name in masters)
        return cls(len(masters) - evicted, evicted, len(names) - len(masters))


@contextmanager
def small_volume(s3: S3Server, home: Path, count: int) -> Iterator[tuple[Library, dict[str, Noise]]]:
    """A server of two processes whose volume holds three of its masters."""
    masters = {f"{n}.tif": Noise(n, 768, 768) for n in range(count)}
    with (
        alone_on_disk(home / "volume", 2 * VOLUME_BYTES),
        started(s3, home, "--volume-size", str(VOLUME_BYTES)) as library,
    ):
        for name, master in masters.items():
            library.put(master.file, name)
        yield library, masters


async def flood(library: Library, masters: dict[str, Noise], *, seconds: float) -> None:
    """Every master at once, then viewers who come back; watched every 10 ms."""
    supervisor, evictions = library.server.process.pid, "special_volume_evictions_total"
    with sampled(library.volume) as samples:
        each = await one_of_each(library.url, masters, seed=1, parallel=len(masters))
        rest = await view(library.url, masters, seed=2, viewers=16, going=for_seconds(seconds / 4))
        memory, files = processes.resident_bytes(supervisor), Open.of(library)
        later = await view(library.url, masters, seed=3, viewers=16, going=for_seconds(seconds * 3 / 4))
    await until(lambda: not Open.of(library).evicted)
    await asyncio.sleep(1)  # the connections of those who left are closed by then
    after, files_after, kept = processes.resident_bytes(supervisor), Open.of(library), stat(library.volume).objects
    gone = await metric(library.url, evictions)
    for load in (each, rest, later):
        print(f"\n{load}", end="")
        assert load.wrong == []
        assert set(load.statuses) == {200}
    print(f"\n{len(masters)} masters on {VOLUME_BYTES:,} bytes: {samples};", end=" ")
    print(f"{gone:.0f} evictions, {len(library.between.log)} requests to the store;", end=" ")
    print(f"memory {memory / MIB:.0f} to {after / MIB:.0f} MiB, {files} to {files_after}, {kept} masters on the volume")
    assert max(samples.taken) <= VOLUME_BYTES
    assert max(samples.taken) > VOLUME_BYTES / 2  # it was used, too
    assert gone > 0
    assert after < KNOWN_BYTES * memory
    assert files_after.masters <= PROCESSES * FILES * kept
    assert files_after.other <= files.other + KNOWN_FILES


async def test_more_masters_than_there_is_room_for(seaweed_s3: S3Server, tmp_path: Path) -> None:
    with small_volume(seaweed_s3, tmp_path, 30) as (library, masters):
        await flood(library, masters, seconds=8)


@pytest.mark.long
async def test_two_hundred_masters_at_once_on_a_volume_for_three(seaweed_s3: S3Server, tmp_path: Path) -> None:
    with small_volume(seaweed_s3, tmp_path, 200) as (library, masters):
        await flood(library, masters, seconds=30)


@pytest.mark.long
async def test_ten_minutes_of_viewers(seaweed_s3: S3Server, tmp_path: Path) -> None:
    with small_volume(seaweed_s3, tmp_path, 50) as (library, masters):
        await flood(library, masters, seconds=SOAK_S)
