"""B3: the first tile of a cold TIFF at 20 ms per S3 request, beside iipsrv on rclone's full cache."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.bench import Bench, Result, Trial
from tests.bench.cold import Visits, rounds, slow_bucket
from tests.bench.peers import iipsrv, rclone
from tests.bench.tiles import scattered
from tests.support import live

MOST_BYTES = 1_000_000
MOST_ROUNDS = 3


def run(bench: Bench) -> Iterator[Result]:
    """What one tile reads, exactly; then how long it takes."""
    tile = scattered(1)
    with (
        slow_bucket(bench, "photo.tif", bench.repeats + 2) as here,
        live.special(f"s3://{here.bucket}", home=here.home, settings=here.s3.environ) as ours,
    ):
        mine = Visits(ours.url, "/iiif/3", here.keys, tile)
        mine.next()
        gets = here.between.gets(here.keys[1])
        read = sum(get.sent_bytes for get in gets)
        said = f"{len(gets)} GETs, {rounds(gets)} in series, {read:,} bytes"
        reached = rounds(gets) <= MOST_ROUNDS and read <= MOST_BYTES
        yield Result("cold tile: what it reads", said, "", None, "≤ 3 in series, ≤ 1.0 MB", reached)
        with (
            rclone(bench.folder / "rclone", here.bucket, here.s3) as mount,
            iipsrv(bench.folder / "iipsrv", mount) as front,
        ):
            theirs = Visits(front.url, "/iiif", here.keys, tile)
            again = Trial("special", mine.next)
            yield bench.sooner("cold tile", 2.0, again, Trial("rclone + iipsrv", theirs.next))
