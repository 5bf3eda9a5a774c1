"""What a server stores of its own accord: once, beside what is there, and never in the open above the limit."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import httpx
import pytest
from PIL import Image

from special.geometry import Size
from special.renditions import Addition, RenditionStore, Sidecar, SizesFile
from special.storage.blob import Absent, Blob
from tests.support.live import MASTERS, LiveServer
from tests.support.memory import MemorySource
from tests.support.servers import POLL_S, S3Server

ID = "leaf"
SHAPE = Size(600, 400)
MASTER = Blob("memory://m/", "leaf.tif", '"1"', 100)
NEW = Addition(ID, MASTER, SHAPE, b"layout", None, Size(300, 200), "jpg", "jpg 85", b"pixels")
OURS = Sidecar(
    "leaf.tif", '"1"', 100, None, None, SHAPE, None, SizesFile((Size(150, 100),)), None, "jpg 85", settled=True
)
RESTRICTED = replace(OURS, max_unauthorised=200)


def stored(sidecar: Sidecar | None, sizes: SizesFile | None = None) -> MemorySource:
    """What a run of `derive` left behind; other sizes than the side-car's where they are given."""
    files = {f"{ID}/special.json": sidecar.dump()} if sidecar else {}
    listed = sizes or (sidecar.sizes if sidecar else None)
    if listed:
        files |= {f"{ID}/s.json": listed.dump()} | {it.key: b"old" for it in listed.renditions(ID)}
    return MemorySource(files)


@pytest.mark.parametrize(
    ("before", "addition", "key", "sizes"),
    [
        pytest.param(None, NEW, "open/300.jpg", SizesFile((Size(300, 200),)), id="nothing stored"),
        pytest.param(OURS, NEW, "open/300.jpg", SizesFile((Size(300, 200), Size(150, 100))), id="beside others"),
        pytest.param(
            RESTRICTED,
            NEW,
            "auth/300.jpg",
            SizesFile((Size(150, 100),), (Size(300, 200),)),
            id="above the store's limit",
        ),
        pytest.param(
            OURS,
            replace(NEW, limit=299),
            "auth/300.jpg",
            SizesFile((Size(150, 100),), (Size(300, 200),)),
            id="above the operator's limit",
        ),
        pytest.param(
            replace(RESTRICTED, max_unauthorised=300),
            replace(NEW, limit=300),
            "open/300.jpg",
            SizesFile((Size(300, 200), Size(150, 100))),
            id="at the limit",
        ),
    ],
)
async def test_is_written_in_the_order_of_derive(
    before: Sidecar | None, addition: Addition, key: str, sizes: SizesFile
) -> None:
    thumbs = stored(before)
    store = RenditionStore(thumbs)

    assert await store.add(addition)

    assert thumbs.verbs("write") == [f"{ID}/{key}", f"{ID}/special.json", f"{ID}/s.json"]
    assert thumbs.objects[f"{ID}/{key}"] == b"pixels"
    thumbs.calls.clear()
    kept = await store.find(ID)
    assert thumbs.calls == []  # what was written need not be read
    assert kept == await RenditionStore(thumbs).reload(ID)
    assert kept is not None
    assert kept.sidecar is not None
    assert SizesFile.of(kept.renditions) == kept.sidecar.sizes == sizes
    assert kept.rule.max_unauthorised == (before.max_unauthorised if before else None)


@pytest.mark.parametrize(
    ("before", "sizes", "addition"),
    [
        pytest.param(None, SizesFile((Size(150, 100),)), NEW, id="others' bucket"),
        pytest.param(OURS, SizesFile((Size(75, 50),)), NEW, id="others wrote the sizes file"),
        pytest.param(replace(OURS, etag='"0"'), None, NEW, id="of an older master"),
        pytest.param(replace(OURS, key="leaf.jp2"), None, NEW, id="of another master"),
        pytest.param(replace(OURS, encoding="jpg 60"), None, NEW, id="of another quality"),
        pytest.param(
            replace(OURS, sizes=SizesFile((Size(9, 6),), formats=("webp",))), None, NEW, id="of another format"
        ),
        pytest.param(replace(OURS, settled=False), None, NEW, id="a run was killed"),
        pytest.param(OURS, None, replace(NEW, size=Size(150, 100)), id="it is there"),
        pytest.param(OURS, None, replace(NEW, size=Size(150, 101)), id="its place is taken"),
        pytest.param(OURS, None, replace(NEW, size=Size(300, 300)), id="distorted"),
        pytest.param(None, None, replace(NEW, form="webp"), id="nothing stored, and a DLCS could not read it"),
        pytest.param(
            replace(OURS, sizes=SizesFile(tuple(Size(3 * n, 2 * n) for n in range(1, 33)))),
            None,
            NEW,
            id="very many sizes",
        ),
    ],
)
async def test_nothing_is_added_to_what_it_does_not_fit(
    before: Sidecar | None, sizes: SizesFile | None, addition: Addition
) -> None:
    thumbs = stored(before, sizes)
    there = dict(thumbs.objects)

    assert not await RenditionStore(thumbs).add(addition)
    assert thumbs.objects == there


@dataclass
class Shared(MemorySource):
    """Another process writes before the n-th write of ours."""

    meddle_before: int = 0
    meddle: dict[str, bytes] = field(default_factory=dict)

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        if self.meddle_before == 0:
            self.objects |= self.meddle
            if not self.meddle:
                self.objects.clear()
        self.meddle_before -= 1
        return await super().write(key, data, media=media, pin=pin)


TIGHTER = replace(OURS, max_unauthorised=100, sizes=SizesFile((), (Size(150, 100),)))
OTHER = replace(OURS, sizes=SizesFile((Size(150, 100), Size(75, 50))))


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("theirs", [pytest.param(TIGHTER, id="tightened"), pytest.param(OTHER, id="added to")])
async def test_another_writer_wins(before: int, theirs: Sidecar) -> None:
    start = stored(OURS).objects
    meddle = stored(theirs).objects
    thumbs = Shared(start, meddle_before=before, meddle=meddle)

    assert not await RenditionStore(thumbs).add(NEW)

    kept = await RenditionStore(thumbs).reload(ID)
    assert kept is not None
    assert SizesFile.of(kept.renditions) == theirs.sizes
    assert all(it.key in thumbs.objects for it in kept.renditions)
    assert (f"{ID}/open/300.jpg" in thumbs.objects) == (theirs is OTHER)


async def test_a_file_that_another_process_writes_is_its_own() -> None:
    thumbs = Shared(stored(OURS).objects, meddle={f"{ID}/open/300.jpg": b"theirs"})

    assert not await RenditionStore(thumbs).add(NEW)
    assert thumbs.objects[f"{ID}/open/300.jpg"] == b"theirs"


async def test_of_servers_that_add_at_once_one_is_heard() -> None:
    thumbs = stored(OURS)
    additions = [replace(NEW, size=Size(side * 3, side * 2)) for side in (90, 110, 120, 130)]

    heard = await asyncio.gather(*(RenditionStore(thumbs).add(it) for it in additions))

    assert 1 <= sum(heard) <= len(additions)
    kept = await RenditionStore(thumbs).reload(ID)
    assert kept is not None
    assert kept.sidecar is not None
    assert {it.size for it, won in zip(additions, heard, strict=True) if won} <= set(kept.sidecar.sizes.open)
    assert all(it.key in thumbs.objects for it in kept.renditions)


def test_the_second_request_is_a_thumb(serve: Callable[..., LiveServer], seaweed_s3: S3Server) -> None:
    """Two servers share the buckets; `derive` runs afterwards."""
    masters, thumbs, client = seaweed_s3.bucket(), seaweed_s3.bucket(), seaweed_s3.client()
    client.upload_file(str(MASTERS / "map.jp2"), masters, "map.jp2")
    ours = {"SPECIAL_STORE_ON_MISS": "true", "SPECIAL_SIZES": "300, 200,", "SPECIAL_DECODERS": "1"}
    settings = seaweed_s3.environ | ours
    servers = [serve(f"s3://{masters}", "--thumbs", f"s3://{thumbs}", settings=settings) for _ in range(2)]
    path = "/iiif/3/map.jp2/full/300,/0/default.jpg"
    with httpx.Client(timeout=60) as web:
        web.get(servers[0].url + path.replace("300,", "250,"))  # no size of the policy
        first = web.get(servers[0].url + path)
        assert first.headers["x-special-route"] == "stream"
        while 'special_kept_total{outcome="stored"} 1.0' not in web.get(f"{servers[0].url}/metrics").text:
            time.sleep(POLL_S)
        since = len(seaweed_s3.logged(masters)), len(seaweed_s3.logged(thumbs))
        second = web.get(servers[0].url + path)
        lines = [seaweed_s3.logged(bucket)[start:] for bucket, start in zip((masters, thumbs), since, strict=True)]
        elsewhere = web.get(servers[1].url + path)
        # A size that was not asked for before, on the other server; then both know both.
        web.get(servers[1].url + path.replace("300,", "200,"))
    assert (second.headers["x-special-route"], second.content) == ("thumb", first.content)
    assert [(it.operation, it.key) for it in lines[1]] == [("REST.GET.OBJECT", f"map.jp2/open/{_long(second)}.jpg")]
    assert lines[0] == []
    assert (elsewhere.headers["x-special-route"], elsewhere.content) == ("thumb", first.content)
    done_to_masters = {line.operation for line in seaweed_s3.logged(masters)[since[0] :]}
    assert done_to_masters <= {"REST.GET.OBJECT", "REST.HEAD.OBJECT"}

    stored_keys = {it["Key"] for it in client.list_objects_v2(Bucket=thumbs)["Contents"]}
    assert not any("250" in key for key in stored_keys)

    command = [sys.executable, "-m", "special", "derive", f"s3://{masters}", "--thumbs", f"s3://{thumbs}"]
    environment = os.environ | seaweed_s3.environ
    for options in (
        ["--sizes", "100", "--max-unauthorised", "50"],
        ["--sizes", "100", "--max-unauthorised", "50", "--verify"],
    ):
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    keys = sorted(it["Key"] for it in client.list_objects_v2(Bucket=thumbs)["Contents"])
    assert keys == ["map.jp2/auth/100.jpg", "map.jp2/s.json", "map.jp2/special.json"]


def _long(answer: httpx.Response) -> int:
    with Image.open(io.BytesIO(answer.content)) as image:
        return max(image.size)
