"""B7: 512² tiles anywhere in a JPEG-TIFF that is warm: decoded, put together and encoded."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.bench import webserver
from tests.bench.bench import Ask, Bench, Result, Side, pixels, running
from tests.bench.big import big, pixels_of
from tests.bench.peers import iipsrv
from tests.bench.tiles import scattered
from tests.support import live


def run(bench: Bench) -> Iterator[Result]:
    """Ours out of S3 through the volume, iipsrv's from the local file."""
    bucket = big("photo.tif", bench.cache)
    with (
        webserver.store(bench.folder / "store", bucket.parent) as aws,
        iipsrv(bench.folder / "iipsrv", bucket, processes=os.cpu_count() or 1) as peer,
        live.special(f"s3://{bucket.name}", home=bench.folder, settings=aws) as ours,
    ):
        mine = Side(
            "special", running(ours), [Ask(f"/iiif/3/photo.tif/{tile}") for tile in scattered(200)], bench.folder
        )
        theirs = Side("iipsrv", peer, [Ask(f"/iiif/photo.tif/{tile}") for tile in scattered(200)], bench.folder)
        mine.check()
        theirs.check()
        yield bench.faster("random 512² tile of a TIFF", 1.15, mine, theirs)
        x, y, width, height = map(int, scattered(1)[0].partition("/")[0].split(","))
        truth = pixels_of(bucket / "photo.tif").crop((x, y, x + width, y + height))
        yield pixels("one such tile: bytes, and nearness to the master", mine, theirs, truth)
