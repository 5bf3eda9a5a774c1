"""B9: the full region at 1200 px wide, from TIFF and JPEG 2000 in S3, beside iipsrv on local files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from PIL import Image

from tests.bench import webserver
from tests.bench.bench import Ask, Bench, Result, Side, pixels, running
from tests.bench.big import big, pixels_of
from tests.bench.peers import iipsrv
from tests.support import live

REQUEST = "full/1200,/0/default.jpg"


def run(bench: Bench) -> Iterator[Result]:
    """Nothing is stored: each answer is made from the master."""
    for name, bar, longer in (("photo.tif", 1.5, 2), ("photo.jp2", 1.2, 4)):
        bucket, home = big(name, bench.cache), bench.folder / f"home-{name}"
        home.mkdir()
        with (
            webserver.store(home / "store", bucket.parent) as aws,
            iipsrv(home / "iipsrv", bucket, processes=os.cpu_count() or 1) as peer,
            live.special(f"s3://{bucket.name}", home=home, settings=aws) as ours,
        ):
            mine = Side("special", running(ours), [Ask(f"/iiif/3/{name}/{REQUEST}")], bench.folder)
            theirs = Side("iipsrv", peer, [Ask(f"/iiif/{name}/{REQUEST}")], bench.folder)
            mine.check()
            theirs.check()
            yield bench.faster(f"full/1200, of {name}", bar, mine, theirs, longer=longer)
            truth = pixels_of(bucket / name).resize((1200, 1600), Image.Resampling.LANCZOS)
            yield pixels(f"full/1200, of {name}: bytes, and nearness to the master", mine, theirs, truth)
