"""B2: 304 for a thumbnail and for a tile, beside Starlette that compares a tag in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench import floor, webserver
from tests.bench.bench import Ask, Bench, Result, Side, running
from tests.bench.thumbs import lay_out
from tests.support import live
from tests.support.live import LiveServer

TILE = "/iiif/3/tiles.tif/0,0,256,256/max/0/default.jpg"


def run(bench: Bench) -> Iterator[Result]:
    """Who has it already is told so."""
    name = lay_out(bench.folder / "buckets")[0]
    (bench.folder / "buckets" / "masters" / "tiles.tif").symlink_to(live.MASTERS / "tiles.tif")
    with (
        webserver.store(bench.folder / "store", bench.folder / "buckets") as aws,
        live.special("s3://masters", "--thumbs", "s3://thumbs", home=bench.folder, settings=aws) as ours,
        floor.serving({**os.environ, **aws}) as bare,
        floor.serving(os.environ, "bare") as least,
    ):
        memory = Side("Starlette from memory", bare, [Ask("/memory/x", floor.ETAG)], bench.folder)
        memory.check(304)
        thumb = f"/thumbs/{name}/full/!200,200/0/default.jpg"
        for job, path in {"304 on a tile": TILE, "304 on a thumbnail": thumb}.items():
            mine = _again(ours, path, bench.folder)
            yield bench.faster(job, 2.5, mine, memory)
            yield bench.faster(job, None, mine, Side("httptools alone", least, [Ask("/", floor.ETAG)], bench.folder))


def _again(server: LiveServer, path: str, folder: Path) -> Side:
    """Requests of those who have been there before."""
    first = Side("special", running(server), [Ask(path)], folder).check()[0]
    again = Side("special", running(server), [Ask(path, first.headers["etag"])], folder)
    again.check(304)
    return again
