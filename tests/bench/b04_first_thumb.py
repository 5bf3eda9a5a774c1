"""B4: the first 200 px thumbnail of a cold master with nothing stored: what it reads, at 20 ms per S3 request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from special import composition, iiif
from special.auth.access import ANONYMOUS
from special.iiif import ImageRequest
from special.settings import Settings
from tests.bench.bench import Bench, Result
from tests.bench.big import big
from tests.bench.cold import Visits, rounds, slow_bucket
from tests.support import live

THUMBNAIL = "full/!200,200/0/default.jpg"
MOST_ROUNDS = 2
MOST_HEADERS = 128 << 10
"""Maximum number of bytes read beside the pixels."""


def run(bench: Bench) -> Iterator[Result]:
    """A TIFF and a JPEG 2000."""
    for name in ("photo.tif", "photo.jp2"):
        least = asyncio.run(_least_bytes(bench, name))
        most = least * 11 // 10 + MOST_HEADERS
        with (
            slow_bucket(bench, name, 2) as here,
            live.special(f"s3://{here.bucket}", home=here.home, settings=here.s3.environ) as ours,
        ):
            Visits(ours.url, "/iiif/3", here.keys, [THUMBNAIL]).next()
            gets = here.between.gets(here.keys[1])
        read = sum(get.sent_bytes for get in gets)
        yield Result(
            f"cold thumbnail of {name}: what it reads",
            f"{len(gets)} GETs, {rounds(gets)} in series, {read:,} bytes",
            f"the plan alone: {least:,} bytes",
            None,
            f"≤ {MOST_ROUNDS} in series, ≤ {most:,} bytes",
            rounds(gets) <= MOST_ROUNDS and read <= most,
        )


async def _least_bytes(bench: Bench, name: str) -> int:
    """What the pixels of the thumbnail take in this master, headers apart."""
    engine = composition.engine(Settings(source=str(big(name, bench.cache)), home=bench.folder / "planning"))
    try:
        request = iiif.parse(f"{name}/{THUMBNAIL}")
        assert isinstance(request, ImageRequest)
        planned = await engine.plan(request, version=3, identity=ANONYMOUS)
        layout = engine.catalog.master(planned.asset).layout
        return sum(len(span) for span in layout.extract(planned.job.box, planned.job.size).spans)
    finally:
        await engine.close()
