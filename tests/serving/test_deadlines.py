"""No request waits longer than its deadline, whatever it waits for. By a virtual clock, so exactly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from special import composition
from special.images.masters import Masters
from special.renditions import RenditionStore
from special.serving import Engine
from special.settings import Settings, load
from special.storage.blob import Blob, Span
from special.storage.source import Opened
from special.volume import Volume
from special.web.app import App
from tests.support import virtual_time
from tests.support.live import MASTERS
from tests.support.memory import MemorySource

SIZES = b'{"o": [[400, 300], [100, 75]], "a": []}'
DEADLINES_S = {"stored": 5, "tile": 10, "full": 15, "max": 60}


@dataclass
class Silent(MemorySource):
    """A source that does not answer some verbs, from when it is told so."""

    silent: set[str] = field(default_factory=set)

    async def _wait(self, verb: str) -> None:
        if verb in self.silent:
            await asyncio.get_running_loop().create_future()

    async def stat(self, key: str) -> Blob:
        await self._wait("stat")
        return await super().stat(key)

    async def open(self, key: str, **named: Any) -> Opened:
        await self._wait("open")
        return await super().open(key, **named)

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        await self._wait("read")
        return await super().read(blob, spans)


class BusyWorkers:
    """Decoders that take every job and finish none; the pool's own deadline has its own tests."""

    ready, busy = True, False

    async def __aenter__(self) -> BusyWorkers:
        return self

    async def __aexit__(self, *raised: object) -> None:
        pass

    async def run(self, *given: object, **named: Any) -> object:
        return await asyncio.get_running_loop().create_future()


@dataclass
class Site:
    app: App
    masters: Silent
    thumbs: Silent
    client: httpx.AsyncClient
    held: list[asyncio.Task[httpx.Response]] = field(default_factory=list)
    """Requests that stand in the way of others."""

    async def get(self, path: str, **headers: str) -> tuple[int, float]:
        """Status, and how long the answer took by the virtual clock."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        answer = await self.client.get(path, headers=headers)
        return answer.status_code, loop.time() - start


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Site]:
    flat, tiled = (MASTERS / "manuscript.jpg").read_bytes(), (MASTERS / "herbarium.tif").read_bytes()
    masters = Silent({"flat": flat, "tiled": tiled, "stored": flat})
    thumbs = Silent({"stored/s.json": SIZES, "stored/open/400.jpg": flat, "stored/open/100.jpg": flat})

    def made(settings: Settings) -> Engine:
        return composition.assemble(
            settings,
            source=masters,
            store=RenditionStore(thumbs),
            masters=Masters(masters),
            volume=Volume(folder / "volume", size_bytes=2**28),
            workers=BusyWorkers(),  # type: ignore[arg-type]  # a double
        )

    settings = load(source="memory", home=folder, decoders=1, promote_after=1, decode_memory="1GiB")
    app = App(settings, made, clock=asyncio.get_running_loop().time)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.running())
        transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(transport=transport, base_url="http://x", timeout=1e6)
        yield Site(app, masters, thumbs, await stack.enter_async_context(client))


TILE = "/iiif/3/{}/256,256,256,256/128,/0/default.jpg"
FULL = "/iiif/3/{}/full/300,/0/default.jpg"

Setup = Callable[[Site], Awaitable[None]]


async def silent_store(site: Site) -> None:
    site.masters.silent.add("open")


async def silent_renditions(site: Site) -> None:
    site.thumbs.silent |= {"open", "stat"}


async def known_but_silent_renditions(site: Site) -> None:
    await site.client.get("/thumbs/stored/info.json")
    await silent_renditions(site)


async def silent_spans(site: Site) -> None:
    for name in ("tiled", "flat"):
        await site.client.get(f"/iiif/3/{name}/info.json")
    site.masters.silent.add("read")


async def full_lane(site: Site) -> None:
    """Requests that hold every place of the lane, with a decoder that never answers."""
    lane = composition.lanes(load(source="x", decoders=1))[1]
    for _ in range(lane.running + lane.reading):
        site.held.append(asyncio.create_task(site.client.get(FULL.format("flat"))))
    await asyncio.sleep(0.5)


async def held_slots(site: Site) -> None:
    """Requests for other tiles of one expensive master, which hold all the slots that it has."""
    for x in (0, 256, 512):
        path = f"/iiif/3/flat/{x},0,256,256/128,/0/default.png"
        site.held.append(asyncio.create_task(site.client.get(path)))
    await asyncio.sleep(0.5)


CASES = [
    pytest.param(silent_store, "/iiif/3/flat/info.json", "stored", id="the headers of a master, for info.json"),
    pytest.param(silent_store, TILE.format("tiled"), "tile", id="the headers of a master, for a tile"),
    pytest.param(silent_store, FULL.format("flat"), "full", id="the headers of a master, for a full region"),
    pytest.param(silent_renditions, "/thumbs/stored/full/100,75/0/default.jpg", "stored", id="a sizes file"),
    pytest.param(
        known_but_silent_renditions, "/thumbs/stored/full/100,75/0/default.jpg", "stored", id="a stored rendition"
    ),
    pytest.param(
        known_but_silent_renditions, "/thumbs/stored/full/90,/0/default.jpg", "tile", id="a rendition to be shrunk"
    ),
    pytest.param(silent_spans, FULL.format("tiled"), "full", id="spans of the master"),
    pytest.param(silent_spans, TILE.format("tiled"), "tile", id="blocks of the volume"),
    pytest.param(full_lane, FULL.format("tiled"), "full", id="admission"),
    pytest.param(held_slots, "/iiif/3/flat/0,256,256,256/128,/0/default.png", "tile", id="the line before a master"),
    pytest.param(silent_spans, TILE.format("flat"), "tile", id="a pyramid that does not come"),
]


@pytest.mark.parametrize(("setup", "path", "lane"), CASES)
def test_a_request_is_refused_at_its_deadline(tmp_path: Path, setup: Setup, path: str, lane: str):
    async def main() -> tuple[int, float]:
        async with serving(tmp_path) as site:
            await setup(site)
            found = await site.get(path)
            for task in site.held:
                task.cancel()
            await asyncio.gather(*site.held, return_exceptions=True)
            return found

    status, seconds = virtual_time.run(main())
    assert status == 503
    assert seconds == DEADLINES_S[lane]


def test_what_is_in_memory_needs_no_store(tmp_path: Path):
    async def main() -> tuple[int, float]:
        async with serving(tmp_path) as site:
            path = TILE.format("tiled").replace("128,", "256,")
            assert (await site.client.get(path)).status_code == 200
            for source in (site.masters, site.thumbs):
                source.silent |= {"open", "stat", "read"}
            return await site.get(path)

    assert virtual_time.run(main()) == (200, 0.0)
