"""B5: 64 different tiles of a cold TIFF at once, at 20 ms per S3 request, beside iipsrv on s3fs."""

from __future__ import annotations

import os
from collections.abc import Iterator

from special.volume.volume import DEFAULT_BLOCK_BYTES
from tests.bench.bench import Bench, Result, Trial
from tests.bench.cold import Visits, slow_bucket
from tests.bench.peers import iipsrv, s3fs
from tests.bench.tiles import scattered
from tests.soak.proxy import blocks_got
from tests.support import live

TILES = 64


def run(bench: Bench) -> Iterator[Result]:
    """How often each block was fetched, exactly; then how long it takes until all have theirs."""
    tiles = scattered(TILES)
    with (
        slow_bucket(bench, "photo.tif", bench.repeats + 2) as here,
        live.special(f"s3://{here.bucket}", home=here.home, settings=here.s3.environ) as ours,
    ):
        mine = Visits(ours.url, "/iiif/3", here.keys, tiles)
        mine.next()
        gets = here.between.gets(here.keys[1])
        often = blocks_got(gets, DEFAULT_BLOCK_BYTES)
        said = f"{len(gets)} GETs, {len(often)} blocks, {sum(get.sent_bytes for get in gets):,} bytes"
        yield Result(f"{TILES} cold tiles: blocks", said, "", None, "each once", max(often.values()) == 1)
        with (
            s3fs(bench.folder / "s3fs", here.bucket, here.s3) as mount,
            iipsrv(bench.folder / "iipsrv", mount, processes=os.cpu_count() or 1) as front,
        ):
            theirs = Visits(front.url, "/iiif", here.keys, tiles)
            again = Trial("special", mine.next)
            yield bench.sooner(f"{TILES} cold tiles at once", 4.0, again, Trial("s3fs + iipsrv", theirs.next))
