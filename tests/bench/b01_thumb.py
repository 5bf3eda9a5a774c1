"""B1: a thumbnail of a known size out of S3, one worker, beside a bare Starlette route that does nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.bench import floor, webserver
from tests.bench.bench import Ask, Bench, Result, Side, running
from tests.bench.thumbs import lay_out
from tests.support import live


def run(bench: Bench) -> Iterator[Result]:
    """Many thumbnails in turn, each out of S3, beside a bare route; and one out of our memory, beside memory."""
    names = lay_out(bench.folder / "buckets")
    plain_home, hot_home = bench.folder / "plain", bench.folder / "hot"
    plain_home.mkdir()
    hot_home.mkdir()
    where = ("s3://masters", "--thumbs", "s3://thumbs")
    with (
        webserver.store(bench.folder / "store", bench.folder / "buckets") as aws,
        live.special(*where, home=plain_home, settings={**aws, "SPECIAL_HOT_SIZE": "0"}) as plain,
        live.special(*where, home=hot_home, settings=aws) as hot,
        floor.serving({**os.environ, **aws}) as bare,
        floor.serving(os.environ, "bare") as least,
        webserver.nginx(bench.folder / "static", f"root {bench.folder / 'buckets'};") as static,
    ):
        thumbs = [Ask(f"/thumbs/{name}/full/!200,200/0/default.jpg") for name in names]
        stored = [Ask(f"/stored/{name}/open/200.jpg") for name in names]
        mine = Side("special", running(plain), thumbs, bench.folder)
        theirs = Side("Starlette + obstore", bare, stored, bench.folder)
        assert mine.check()[0].content == theirs.check()[0].content
        yield bench.faster("thumbnail out of S3", 1.1, mine, theirs)
        memory = Side("Starlette from memory", bare, [Ask("/memory/x")], bench.folder)
        one = Side("special", running(hot), thumbs[:1], bench.folder)
        again = "the same one from the hot cache"
        yield bench.faster(again, 2.5, one, memory)
        yield bench.faster(again, None, one, Side("httptools alone", least, [Ask("/")], bench.folder))
        files = [Ask(f"/thumbs/{names[0]}/open/200.jpg")]
        yield bench.faster(again, 0.4, one, Side("nginx, a file in memory", static, files, bench.folder))
