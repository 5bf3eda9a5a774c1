"""B12: what a session in a viewer, and a page of thumbnails, cost in S3 requests and bytes, beside mounts with iipsrv.

Both are exact; nothing is timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import httpx

from tests.bench.bench import Absent, Bench, Result
from tests.bench.cold import SlowBucket, slow_bucket
from tests.bench.peers import iipsrv, rclone, s3fs
from tests.bench.tiles import scattered, walk
from tests.support import live

THUMBNAIL = "full/200,/0/default.jpg"
SESSION = ["info.json", THUMBNAIL, *walk(), *scattered(20)]
ON_A_PAGE = 100
"""Images that a page of search results shows."""


def run(bench: Bench) -> Iterator[Result]:
    """The same requests to each server, of masters that it has never seen, one after the other; nothing is stored."""
    with slow_bucket(bench, "photo.tif", 3) as here:
        yield from _compared(bench, here, "a session", SESSION, 1)
    with slow_bucket(bench, "herbarium.tif", 3 * ON_A_PAGE, folder=live.MASTERS) as here:
        yield from _compared(bench, here, f"a page of {ON_A_PAGE} thumbnails", [THUMBNAIL], ON_A_PAGE)


def _compared(bench: Bench, here: SlowBucket, what: str, requests: Sequence[str], images: int) -> Iterator[Result]:
    with live.special(f"s3://{here.bucket}", home=here.home, settings=here.s3.environ) as ours:
        mine = _cost(here, ours.url, "/iiif/3", here.keys[:images], requests)
    for turn, (name, mount) in enumerate({"s3fs": s3fs, "rclone": rclone}.items(), 1):
        with ExitStack() as stack:
            job = f"S3 per 1,000 requests of {what}, beside {name}"
            try:
                folder = stack.enter_context(mount(here.home / name, here.bucket, here.s3))
                front = stack.enter_context(iipsrv(here.home / f"iipsrv-{name}", folder))
            except Absent as absent:
                yield Result(job, _said(mine), f"skipped: needs {absent}", None, "fewer bytes", reached=False)
                continue
            keys = here.keys[turn * images : (turn + 1) * images]
            theirs = _cost(here, front.url, "/iiif", keys, requests)
        fewer = mine[1] < theirs[1]
        yield Result(job, _said(mine), f"{name} + iipsrv: {_said(theirs)}", theirs[1] / mine[1], "> 1 ×", fewer)


def _cost(here: SlowBucket, url: str, prefix: str, keys: Sequence[str], requests: Sequence[str]) -> tuple[float, float]:
    """S3 requests and bytes for each of a server's requests, HEADs and listings included."""
    start = len(here.between.log)
    with httpx.Client(base_url=url, timeout=120) as client:
        for key in keys:
            for request in requests:
                client.get(f"{prefix}/{key}/{request}").raise_for_status()
    spent, asked = here.between.log[start:], len(keys) * len(requests)
    return len(spent) / asked, sum(each.sent_bytes for each in spent) / asked


def _said(cost: tuple[float, float]) -> str:
    return f"{1000 * cost[0]:,.0f} requests, {cost[1] / 1000:,.1f} MB"
