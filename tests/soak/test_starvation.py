"""Cheap answers are never starved by expensive ones (promise P11)."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Serve
from tests.soak.conftest import DELAY_S
from tests.soak.crowd import Reply, ask, percentile
from tests.soak.insist import insisting
from tests.soak.proxy import proxy
from tests.support import live
from tests.support.servers import S3Server

WIDTH, HEIGHT = 3000, 2000
"""Above 4 megapixels: the lane of the dearest."""
CROWD = 8
"""Clients that want the whole picture, each again as soon as it has been answered or refused."""
THUMBNAILS = 400
"""In each round."""
WHOLE = "/iiif/3/large.jpg/full/max/0/default.jpg"
THUMB = "/iiif/3/large.jpg/full/!200,200/0/default.jpg"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A large master, and a stored size of it."""
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    stored = thumbs / "large.jpg" / "open"
    masters.mkdir()
    stored.mkdir(parents=True)
    noise = np.random.default_rng(11).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((WIDTH, HEIGHT))
    large.save(masters / "large.jpg", quality=85)
    large.resize((200, 133)).save(stored / "200.jpg")
    (thumbs / "large.jpg" / "s.json").write_text(json.dumps({"o": [[200, 133]]}))
    return masters, thumbs


async def thumbnails(url: str, count: int) -> list[Reply]:
    return [await ask(url, THUMB) for _ in range(count)]


def may_go_first() -> bool:
    """Whether this user may have a processor before everybody else."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


async def unhindered(url: str, count: int) -> list[Reply]:
    """The same by a client on another machine, as it were: one that never waits for a processor of this one."""
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        return await thumbnails(url, count)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


async def test_thumbnails_pass_by_a_crowd_that_wants_whole_pictures(serve: Serve, folders: tuple[Path, Path]) -> None:
    masters, thumbs = folders
    url = serve(masters, "--thumbs", str(thumbs), settings={"SPECIAL_DECODERS": "1"}).url
    assert (await ask(url, WHOLE)).status == 200
    async with insisting(url, WHOLE, CROWD) as answers:
        replies = await thumbnails(url, 100)
    assert {it.status for it in replies} == {200}
    assert {it.headers["x-special-route"] for it in replies} == {"thumb"}
    assert all("queue;dur=0.0, decode;dur=0.0" in it.headers["server-timing"] for it in replies)
    assert answers[503] > 0
    assert set(answers) <= {200, 503}


@pytest.fixture
def alone() -> None:
    """The figures of P11 mean something only on a machine that does nothing else, to a client that never waits."""
    if not may_go_first():
        pytest.skip("whoever measures this must not wait for a processor, which this user may not have (SCHED_RR)")


@pytest.mark.long
async def test_thumbnails_out_of_s3_are_not_much_slower_beside_a_crowd(
    seaweed_s3: S3Server, tmp_path: Path, folders: tuple[Path, Path], alone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """S3 takes its usual time, and one server process answers."""
    buckets = [seaweed_s3.bucket() for _ in folders]
    for folder, bucket in zip(folders, buckets, strict=True):
        for path in folder.rglob("*.*"):
            if path.is_file():
                seaweed_s3.client().upload_file(str(path), bucket, str(path.relative_to(folder)))
    places = (f"s3://{buckets[0]}", "--thumbs", f"s3://{buckets[1]}")
    with proxy(seaweed_s3.endpoint, delay_s=DELAY_S) as between:
        settings = {**replace(seaweed_s3, endpoint=between.endpoint).environ, "SPECIAL_HOT_SIZE": "0"}
        with live.special(*places, home=tmp_path, settings=settings) as it:
            await hold_beside_a_crowd(it.url, 5, capsys)


@pytest.mark.long
@pytest.mark.parametrize("workers", [pytest.param(1, id="1"), pytest.param(None, id="default")])
async def test_thumbnails_from_memory_are_not_much_slower_beside_a_crowd(
    tmp_path: Path, folders: tuple[Path, Path], alone: None, capsys: pytest.CaptureFixture[str], workers: int | None
) -> None:
    """By one process, and by a server as users start it.

    The masters are in a folder, for a store here would take its share.
    """
    masters, thumbs = folders
    with live.special(masters, "--thumbs", str(thumbs), home=tmp_path, workers=workers) as it:
        await hold_beside_a_crowd(it.url, 12, capsys)


async def hold_beside_a_crowd(url: str, rounds: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Measure thumbnails alone and beside a crowd, in turn, lest one of them have the better weather."""
    assert (await ask(url, WHOLE)).status == 200
    await thumbnails(url, 200)
    idle: list[Reply] = []
    beside: list[Reply] = []
    told: Counter[int] = Counter()
    for _ in range(rounds):
        idle += await unhindered(url, THUMBNAILS)
        async with insisting(url, WHOLE, CROWD) as answers:
            beside += await unhindered(url, THUMBNAILS)
        told += answers
    before_ms, beside_ms = percentile(idle, 99), percentile(beside, 99)
    with capsys.disabled():
        print(
            f"thumbnails: p50 {percentile(idle, 50):.1f} ms, p99 {before_ms:.1f} ms idle; "
            f"p50 {percentile(beside, 50):.1f} ms, p99 {beside_ms:.1f} ms beside {CROWD} clients of full/max, "
            f"who were answered {told[200]} and refused {told[503]} times"
        )
    assert {reply.status for reply in idle + beside} == {200}
    assert beside_ms <= 2 * before_ms
