"""B12: what a viewer's session costs in S3 requests and bytes, beside mounts with iipsrv: exact, nothing is timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from tests.bench.bench import Absent, Bench, Result
from tests.bench.cold import SlowBucket, slow_bucket
from tests.bench.peers import iipsrv, rclone, s3fs
from tests.bench.tiles import scattered, walk
from tests.support import live

SESSION = ["info.json", "full/200,/0/default.jpg", *walk(), *scattered(20)]


def run(bench: Bench) -> Iterator[Result]:
    """The same session at each server, on a master that it has never seen, one request after the other."""
    with slow_bucket(bench, "photo.tif", 3) as here:
        with live.special(f"s3://{here.bucket}", home=here.home, settings=here.s3.environ) as ours:
            mine = _cost(here, ours.url, "/iiif/3", here.keys[0])
        for key, (name, mount) in zip(here.keys[1:], {"s3fs": s3fs, "rclone": rclone}.items(), strict=True):
            with ExitStack() as stack:
                job = f"S3 per 1,000 requests of a session, beside {name}"
                try:
                    folder = stack.enter_context(mount(bench.folder / name, here.bucket, here.s3))
                    front = stack.enter_context(iipsrv(bench.folder / f"iipsrv-{name}", folder))
                except Absent as absent:
                    yield Result(job, _said(mine), f"skipped: needs {absent}", None, "fewer bytes", reached=False)
                    continue
                theirs = _cost(here, front.url, "/iiif", key)
            fewer = mine[1] < theirs[1]
            yield Result(job, _said(mine), f"{name} + iipsrv: {_said(theirs)}", theirs[1] / mine[1], "> 1 ×", fewer)


def _cost(here: SlowBucket, url: str, prefix: str, key: str) -> tuple[int, int]:
    """Requests and bytes of one session, HEADs and listings included."""
    start = len(here.between.log)
    with httpx.Client(base_url=url, timeout=120) as client:
        for request in SESSION:
            client.get(f"{prefix}/{key}/{request}").raise_for_status()
    spent = here.between.log[start:]
    return len(spent), sum(each.sent_bytes for each in spent)


def _said(cost: tuple[int, int]) -> str:
    requests, sent = (1000 * each / len(SESSION) for each in cost)
    return f"{requests:,.0f} requests, {sent / 1e6:,.1f} MB"
