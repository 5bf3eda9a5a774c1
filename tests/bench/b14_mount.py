"""B14: iipsrv over `special mount`, over s3fs and over rclone's full cache, at 20 ms per S3 request."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from special.volume import DEFAULT_BLOCK_BYTES
from tests.bench.bench import Absent, Bench, Result, Trial
from tests.bench.cold import SlowBucket, Visits, slow_bucket
from tests.bench.peers import iipsrv, rclone, s3fs
from tests.bench.tiles import scattered
from tests.soak.proxy import blocks_got
from tests.support.mounts import special_mount
from tests.support.servers import S3Server

TILES = 64
READERS = 1000
FILE_BYTES = 8 << 20
LONG_BYTES = 96 << 20
"""More than any of them reads ahead."""
READ_BYTES = 20_000


def run(bench: Bench) -> Iterator[Result]:
    """What a mount costs and how soon it answers; then what it makes of an overwrite, and of a crowd."""
    each = 2 * bench.repeats + 2  # for special, which takes turns with both
    with slow_bucket(bench, "photo.tif", 2 * each) as here, ExitStack() as stack:
        mounts: dict[str, Path] = {}
        for name, mount in {"special": _special, "s3fs": s3fs, "rclone": rclone}.items():
            # Before it is mounted: rclone lists a folder once in five minutes.
            for purpose, size in (("changed", LONG_BYTES), ("crowd", FILE_BYTES)):
                here.s3.client().put_object(Bucket=here.bucket, Key=f"{purpose}-{name}", Body=_random(1, size))
            try:
                mounts[name] = stack.enter_context(mount(bench.folder / name, here.bucket, here.s3))
            except Absent as absent:
                yield Result(f"mounts beside {name}", "", f"skipped: needs {absent}", None, "", reached=False)
        processes = os.cpu_count() or 1
        fronts = {
            name: stack.enter_context(iipsrv(bench.folder / f"iipsrv-{name}", folder, processes=processes))
            for name, folder in mounts.items()
        }
        for count, at_least, keys in ((1, 1.5, here.keys[:each]), (TILES, 2.0, here.keys[each:])):
            job = f"{count} cold tile{'s at once' if count > 1 else ''} through iipsrv"
            visits = {name: Visits(front.url, "/iiif", keys, scattered(count)) for name, front in fronts.items()}
            costs = {name: _cost(here, visit) for name, visit in visits.items()}
            often = blocks_got(here.between.gets(keys[1]), DEFAULT_BLOCK_BYTES)
            mine = costs.pop("special")
            least = min((sent for _, sent in costs.values()), default=mine[1])
            said = "; ".join(f"{name}: {_said(cost)}" for name, cost in costs.items())
            once = max(often.values()) == 1
            yield Result(
                f"{job}: what it reads",
                f"{_said(mine)}, {'each block once' if once else 'blocks twice'}",
                said,
                None,
                "each block once, fewest bytes",
                once and mine[1] <= least,
            )
            ours = Trial("special", visits["special"].next)
            for name in costs:
                yield bench.sooner(job, at_least, ours, Trial(f"{name} + iipsrv", visits[name].next))
        found = {name: _overwritten(here, folder, f"changed-{name}") for name, folder in mounts.items()}
        mine_is = found.pop("special")
        said = "; ".join(f"{name}: {what}" for name, what in found.items())
        yield Result(
            "overwritten while it is read", mine_is, said, None, "one version, or an error", "mix" not in mine_is
        )
        crowds = {name: _crowd(here, folder, f"crowd-{name}") for name, folder in mounts.items()}
        mine = crowds.pop("special")
        said = "; ".join(f"{name}: {_said(cost)}" for name, cost in crowds.items())
        job = f"{READERS:,} readers of one file of {FILE_BYTES >> 20} MiB"
        yield Result(job, _said(mine), said, None, "≤ the file once", mine[1] <= FILE_BYTES)


@contextmanager
def _special(folder: Path, bucket: str, s3: S3Server) -> Iterator[Path]:
    with special_mount(f"s3://{bucket}", home=folder, settings=s3.environ) as live:
        yield live.directory


def _cost(here: SlowBucket, visit: Visits) -> tuple[int, int]:
    start = len(here.between.log)
    visit.next()
    return _spent(here, start)


def _spent(here: SlowBucket, start: int) -> tuple[int, int]:
    """Requests and bytes from a place in the log on, what is still being read ahead included."""
    while here.between.running:
        time.sleep(0.05)
    spent = here.between.log[start:]
    return len(spent), sum(each.sent_bytes for each in spent)


def _said(cost: tuple[int, int]) -> str:
    return f"{cost[0]} requests, {cost[1] / 1e6:.2f} MB"


def _overwritten(here: SlowBucket, folder: Path, key: str) -> str:
    """What a program gets that reads the start of a file, and the rest after it was overwritten."""
    old, new = _random(1, LONG_BYTES), _random(2, LONG_BYTES)
    with (folder / key).open("rb", buffering=0) as file:
        parts = [os.pread(file.fileno(), READ_BYTES, 0)]
        here.s3.client().put_object(Bucket=here.bucket, Key=key, Body=new)
        try:
            rest = range(READ_BYTES, LONG_BYTES, READ_BYTES)
            parts += [os.pread(file.fileno(), READ_BYTES, place) for place in rest]
        except OSError as error:
            return f"error: {error.strerror}"
    return "one version" if b"".join(parts) in (old, new) else "a mixture of both, and no error"


def _crowd(here: SlowBucket, folder: Path, key: str) -> tuple[int, int]:
    """What many programs cost that read here and there in one file at once. Raises `RuntimeError` for a wrong byte."""
    data = _random(1, FILE_BYTES)
    start, gate = len(here.between.log), threading.Barrier(READERS)
    places = [random.Random(place).randrange(FILE_BYTES - READ_BYTES) for place in range(READERS)]

    def read(place: int) -> bool:
        gate.wait()
        with (folder / key).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), READ_BYTES, place) == data[place : place + READ_BYTES]

    with ThreadPoolExecutor(READERS) as threads:
        if not all(threads.map(read, places)):
            raise RuntimeError(f"{folder}: wrong bytes")
    return _spent(here, start)


@cache
def _random(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)
