"""Who gets in, seen through the whole server: memory, turns, and refusals before anything is fetched."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from special import composition, iiif
from special.codecs import memory_estimate
from special.formats.layout import Extract
from special.geometry import Box, Size
from special.iiif import ImageRequest, Job, Limits
from special.images.masters import HEAD_BYTES, Masters
from special.renditions import RenditionStore
from special.serving.engine import Engine
from special.settings import Settings, load
from special.storage import open_source
from special.storage.blob import Blob, Span
from special.volume import Volume
from special.web.app import App
from special.workers import Workers, standard_lanes
from tests.support.fakes import CountingSource
from tests.support.processes import resident_bytes
from tests.support.waiting import until

pytestmark = pytest.mark.service

WIDTH, HEIGHT = 800, 600
MAX = "/iiif/3/{}/full/max/0/default.jpg"


@dataclass
class Held(CountingSource):
    """A source whose reads of pixels wait until they may go on."""

    folder: Path
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__(open_source(str(self.folder)))

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        found = await super().read(blob, spans)
        if sum(map(len, spans)) > HEAD_BYTES:  # headers are elsewhere in a file, too
            await self.may_go_on.wait()
        return found


def picture(path: Path, width: int = WIDTH, height: int = HEIGHT) -> int:
    """A master that has to be decoded whole for each part, larger than the head that is read of it; its length."""
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "png", compress_level=1)
    return path.stat().st_size


def memory_of(length: int) -> int:
    """What one of them takes at full size."""
    size = Size(WIDTH, HEIGHT)
    request = iiif.parse("x/full/max/0/default.jpg")
    assert isinstance(request, ImageRequest)
    job: Job = iiif.resolve(request, size, version=3, limits=Limits())
    return memory_estimate.decode_bytes("png", Extract((Span(0, length),), 0, Box.whole(size).size.area, None), job)


@dataclass
class Site:
    """A server in this process, with clients of several addresses."""

    app: App
    source: Held
    clients: dict[str, httpx.AsyncClient]

    async def get(self, path: str, client: str = "a") -> httpx.Response:
        return await self.clients[client].get(path)


@asynccontextmanager
async def site(root: Path, **chosen: object) -> AsyncIterator[Site]:
    source = Held(root / "masters")
    settings = load(source=str(root / "masters"), home=root / "home", decoders=1, **{"promote_after": 0, **chosen})

    def made(settings: Settings) -> Engine:
        workers = Workers(1, memory_bytes=2**32, lanes=composition.lanes(settings))
        store, volume = (
            RenditionStore(open_source(str(root / "thumbs"), create=True)),
            Volume(root / "v", size_bytes=2**28),
        )
        return composition.assemble(
            settings, source=source, store=store, masters=Masters(source), volume=volume, workers=workers
        )

    app = App(settings, made)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.running())
        clients = {}
        for number, name in enumerate("ab"):
            transport = httpx.ASGITransport(app, client=(f"192.0.2.{number}", 1))
            opened = httpx.AsyncClient(transport=transport, base_url="http://x", timeout=120)
            clients[name] = await stack.enter_async_context(opened)
        yield Site(app, source, clients)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "masters").mkdir()
    return tmp_path


async def settled(site: Site, *, reads: int = 0, asked: Sequence[asyncio.Task[Any]] = (), done: int = 0) -> None:
    """Until that many reads have reached the source, so many requests are done, and nothing more reaches it."""
    await until(lambda: len(site.source.of("read")) >= reads and sum(it.done() for it in asked) >= done)
    seen = -1
    while seen != len(site.source.calls):
        seen = len(site.source.calls)
        await asyncio.sleep(0.2)


async def test_no_more_is_read_than_there_is_memory_for(root: Path) -> None:
    names = [f"{number}.png" for number in range(8)]
    memory = max(memory_of(picture(root / "masters" / name)) for name in names)
    async with site(root, decode_memory=int(2.5 * memory / 0.875)) as running:
        for name in names:
            assert (await running.get(f"/iiif/3/{name}/info.json")).status_code == 200
        running.source.clear()
        asked = [asyncio.create_task(running.get(MAX.format(name))) for name in names]
        await settled(running, reads=2)
        gate = running.app.engine.admission
        assert len(running.source.of("read")) == gate.admitted("full") == 2
        assert 0 < gate.reserved_bytes <= 2.5 * memory
        running.source.may_go_on.set()
        answers = await asyncio.gather(*asked)
        assert Counter(it.status_code for it in answers) == {200: 8}
        assert (gate.reserved_bytes, gate.admitted("full"), gate.waiting("full")) == (0, 0, 0)


async def test_a_full_queue_refuses_at_once_and_has_read_nothing(root: Path) -> None:
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        picture(root / "masters" / name)
    async with site(root) as running:
        for name in names:
            await running.get(f"/iiif/3/{name}/info.json")
        running.source.clear()
        asked = [asyncio.create_task(running.get(MAX.format(name))) for name in names]
        lane = standard_lanes(1)[1]
        too_many = len(names) - lane.running - lane.queue
        await settled(running, reads=lane.running + lane.reading, asked=asked, done=too_many)
        refused = [task.result() for task in asked if task.done()]
        assert len(refused) == too_many
        assert {it.status_code for it in refused} == {503}
        assert all(int(it.headers["retry-after"]) >= 1 for it in refused)
        assert len(running.source.of("read")) == lane.running + lane.reading
        running.source.may_go_on.set()
        answers = await asyncio.gather(*asked)
        assert {it.status_code for it in answers} == {200, 503}


async def test_what_can_never_be_made_is_refused_without_being_read(root: Path) -> None:
    memory = memory_of(picture(root / "masters" / "a.png"))
    async with site(root, decode_memory=memory - 1) as running:
        await running.get("/iiif/3/a.png/info.json")
        running.source.clear()
        answer = await running.get(MAX.format("a.png"))
        assert answer.status_code == 422
        assert answer.headers["cache-control"] == "no-store"
        assert "ask for a smaller size" in answer.text
        assert running.source.calls == []


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        pytest.param({"max_master_pixels": 1000}, "/iiif/3/a.png/0,0,9,9/max/0/default.jpg", id="pixels to decode"),
        pytest.param({"max_whole_bytes": 1000}, "/iiif/3/a.png/full/9,/0/default.jpg", id="bytes to read"),
    ],
)
async def test_more_than_one_answer_may_take_is_the_callers_mistake(
    root: Path, settings: dict[str, int], path: str
) -> None:
    picture(root / "masters" / "a.png")
    async with site(root, **settings) as running:
        running.source.may_go_on.set()
        await running.get("/iiif/3/a.png/info.json")
        running.source.clear()
        answer = await running.get(path)
        assert (answer.status_code, len(running.source.of("read"))) == (422, 0)


async def test_an_image_that_is_purged_while_it_is_read_is_answered(root: Path) -> None:
    picture(root / "masters" / "a.png")
    async with site(root) as running:
        await running.get("/iiif/3/a.png/info.json")
        asked = asyncio.create_task(running.get("/iiif/3/a.png/0,0,64,64/max/0/default.jpg"))
        await settled(running, reads=1)
        await running.app.engine.purge("a.png")
        running.source.may_go_on.set()
        assert (await asked).status_code == 200


async def test_one_tile_is_answered_before_another_clients_two_hundred(root: Path) -> None:
    picture(root / "masters" / "a.png", 2000, 1500)  # each tile decodes all of it
    order: list[str] = []
    async with site(root) as running:
        running.source.may_go_on.set()
        tile = "/iiif/3/a.png/{},0,64,64/max/0/default.jpg"
        assert (await running.get(tile.format(0))).status_code == 200

        async def ask(client: str, number: int) -> int:
            answer = await running.get(tile.format(number), client)
            if answer.status_code == 200:
                order.append(client)
            return answer.status_code

        crowd = [asyncio.create_task(ask("a", number)) for number in range(1, 201)]
        await settled(running)
        answered_before = len(order)
        assert await ask("b", 500) == 200
        assert order.index("b") - answered_before <= 6
        assert Counter(await asyncio.gather(*crowd))[200] > 6, "the crowd was still waiting, and is answered too"


@pytest.mark.long
async def test_decoders_together_take_no_more_than_the_budget(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = 2**30
    noise = np.random.default_rng(1).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((6000, 4000))
    for number in range(16):
        large.save(root / "masters" / f"{number}.jpg", quality=80, progressive=number % 2 == 1)
    async with site(root, decode_memory=budget) as running:
        running.source.may_go_on.set()
        resting, highest, most = resident_bytes(os.getpid()), 0, 0
        crowd = [asyncio.create_task(running.get(MAX.format(f"{number}.jpg"))) for number in range(16)]
        while not all(task.done() for task in crowd):
            highest = max(highest, resident_bytes(os.getpid()) - resting)
            most = max(most, running.app.engine.admission.reserved_bytes)
            await asyncio.sleep(0.01)
        statuses = Counter(task.result().status_code for task in crowd)
    with capsys.disabled():
        print(f"budget {budget >> 20} MiB, set aside {most >> 20}, taken {highest >> 20}; answers {dict(statuses)}")
    assert most <= budget
    assert highest <= budget
    assert set(statuses) <= {200, 503}


async def test_a_crowd_of_tiles_waits_for_one_pyramid_also_those_who_came_first(root: Path) -> None:
    """Of 60 tiles the first 35 are too few for a pyramid. Two of these are begun; the others wait for it, too."""
    picture(root / "masters" / "a.png", 1280, 896)
    tiles = [f"{x},{y},128,128/128,128" for y in range(0, 768, 128) for x in range(0, 1280, 128)]
    async with site(root, promote_after=8, tile_size=128) as running:

        async def jobs() -> int:
            text = (await running.get("/metrics")).text
            return sum(int(float(count)) for count in re.findall(r"special_decoder_jobs_total\{.*?\} ([\d.]+)", text))

        before = await jobs()
        crowd = [asyncio.create_task(running.get(f"/iiif/3/a.png/{tile}/0/default.jpg")) for tile in tiles]
        await settled(running, reads=1)
        running.source.may_go_on.set()
        answers = await asyncio.gather(*crowd)
        assert Counter(answer.status_code for answer in answers) == {200: 60}
        levels = 5  # of 1280 pixels, down to 128: a job for each
        assert await jobs() - before <= 2 + levels
        # Off the grid, a decoder makes each of the pyramid: more than its queue is long.
        regions = [f"{x},{y},100,100/100,100" for y in range(10, 810, 100) for x in range(10, 1010, 100)]
        asked = [running.get(f"/iiif/3/a.png/{region}/0/default.jpg") for region in regions]
        assert Counter(answer.status_code for answer in await asyncio.gather(*asked)) == {200: 80}
