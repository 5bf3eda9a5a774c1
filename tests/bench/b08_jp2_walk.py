"""B8: a walk over a JPEG 2000, before and after its promotion to a pyramid, beside iipsrv on the same file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from tests.bench import webserver
from tests.bench.bench import Ask, Bench, Result, Side, running
from tests.bench.big import big
from tests.bench.peers import iipsrv
from tests.bench.tiles import walk
from tests.support import live

SIDE = 256
"""Of tiles, those of the pyramid too: a viewer asks for the tiles that info.json names."""
PROMOTED_WITHIN_S = 300.0
LONGER = 8
"""A tile of a JPEG 2000 takes a tenth of a second of processor time, and more while the master is new."""
NEVER = 1_000_000


def run(bench: Bench) -> Iterator[Result]:
    """Ours out of S3 through the volume, iipsrv's from the local file; a process for each core at both."""
    bucket, cores = big("photo.jp2", bench.cache), os.cpu_count() or 1
    asks = [Ask(f"/iiif/3/photo.jp2/{tile}") for tile in walk(SIDE)]
    with (
        webserver.store(bench.folder / "store", bucket.parent) as aws,
        iipsrv(bench.folder / "iipsrv", bucket, processes=cores) as peer,
    ):
        theirs = Side("iipsrv", peer, [Ask(f"/iiif/photo.jp2/{tile}") for tile in walk(SIDE)], bench.folder)
        theirs.check()
        for job, promote_after, workers, bar in (
            ("tile walk on a JP2, before its pyramid", NEVER, 1, 1.2),
            ("tile walk on a JP2, from its pyramid", 1, cores, 300.0),
        ):
            home = bench.folder / f"after-{promote_after}"
            home.mkdir()
            settings = aws | {"SPECIAL_PROMOTE_AFTER": str(promote_after), "SPECIAL_TILE_SIZE": str(SIDE)}
            with live.special(f"s3://{bucket.name}", home=home, settings=settings, workers=workers) as ours:
                mine = Side("special", running(ours), asks, bench.folder)
                if promote_after < NEVER:
                    _wait_for_pyramid(mine)
                mine.check()
                yield bench.faster(job, bar, mine, theirs, longer=LONGER)


def _wait_for_pyramid(side: Side) -> None:
    """Until tiles pass through undecoded."""
    deadline = time.monotonic() + PROMOTED_WITHIN_S
    while any("decode;dur=0.0" not in answer.headers["server-timing"] for answer in side.check()):
        if time.monotonic() > deadline:
            raise RuntimeError("the master was not promoted")
        time.sleep(0.5)
