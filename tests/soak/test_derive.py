"""`derive` on a store that asks for less haste again and again: it backs off, and every master is done."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from special import settings
from special.derive.run import Options, derive_images
from special.geometry import Size
from special.renditions import RenditionStore
from tests.soak.proxy import Refused, Weather, proxy
from tests.support.live import MASTERS
from tests.support.memory import MemorySource
from tests.support.servers import S3Server

REFUSALS = Refused(503, "SlowDown"), Refused(429, "TooManyRequests"), Refused(500, "InternalError")


async def throttled(s3: S3Server, monkeypatch: pytest.MonkeyPatch, *, masters: int, seed: int, burst: int) -> None:
    """One run through a proxy that refuses one request of ten, and those that come after it."""
    source, thumbs, client = s3.bucket(), s3.bucket(), s3.client()
    for number in range(masters):
        client.upload_file(str(MASTERS / "seafloor.png"), source, f"{number:03}.png")
    with proxy(s3.endpoint) as between:
        for name, value in replace(s3, endpoint=between.endpoint).environ.items():
            monkeypatch.setenv(name, value)
        between.choose = Weather(seed=seed, rate=0.1, faults=REFUSALS, burst=burst)
        chosen = settings.load(source=f"s3://{source}", thumbs=f"s3://{thumbs}", sizes="100,50", decoders=1)
        out, seen = io.StringIO(), io.StringIO()
        code = await derive_images(chosen, [], Options(json=True), out=out, console=Console(file=seen, soft_wrap=True))
    outcomes = [json.loads(line) for line in out.getvalue().splitlines()]
    refused = sum(isinstance(exchange.fault, Refused) for exchange in between.log)
    print(f"\nseed {seed}: {refused} of {len(between.log)} requests refused. {seen.getvalue().splitlines()[-1]}")

    assert refused >= masters
    assert code == 0
    assert sorted((it["identifier"], it["result"]) for it in outcomes) == [
        (f"{number:03}.png", "made") for number in range(masters)
    ]
    files = {
        it["Key"]: client.get_object(Bucket=thumbs, Key=it["Key"])["Body"].read()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=thumbs)
        for it in page["Contents"]
    }
    for number in range(masters):
        kept = await RenditionStore(MemorySource(files)).reload(f"{number:03}.png")
        assert kept is not None
        assert kept.sidecar is not None
        assert len(kept.renditions) == 2
        for rendition in kept.renditions:
            with Image.open(io.BytesIO(files[rendition.key])) as image:
                assert Size(*image.size) == rendition.size


async def test_slow_down_slows_down(seaweed_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await throttled(seaweed_s3, monkeypatch, masters=12, seed=20261122, burst=5)


@pytest.mark.long
async def test_long_bursts_are_waited_out(seaweed_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await throttled(seaweed_s3, monkeypatch, masters=300, seed=20261122, burst=20)
