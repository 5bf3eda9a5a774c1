"""B6: a viewer's walk over stored 256² tiles that are warm: they pass through undecoded, at both servers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.bench import webserver
from tests.bench.bench import Ask, Bench, Result, Side, running
from tests.bench.big import big
from tests.bench.peers import iipsrv
from tests.bench.tiles import walk
from tests.support import live


def run(bench: Bench) -> Iterator[Result]:
    """Ours out of S3 through the volume, iipsrv's from the local file; a process for each core at both."""
    bucket, cores = big("photo.tif", bench.cache), os.cpu_count() or 1
    with (
        webserver.store(bench.folder / "store", bucket.parent) as aws,
        iipsrv(bench.folder / "iipsrv", bucket, processes=cores) as peer,
        live.special(f"s3://{bucket.name}", home=bench.folder, settings=aws, workers=cores) as ours,
    ):
        mine = Side("special", running(ours), [Ask(f"/iiif/3/photo.tif/{tile}") for tile in walk()], bench.folder)
        theirs = Side("iipsrv", peer, [Ask(f"/iiif/photo.tif/{tile}") for tile in walk()], bench.folder)
        for answer in mine.check():
            assert "decode;dur=0.0" in answer.headers["server-timing"], "the tile was decoded"
        theirs.check()
        yield bench.faster("256² tile walk, stored tiles", 20.0, mine, theirs)
