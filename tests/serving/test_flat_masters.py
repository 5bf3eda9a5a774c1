"""Large flat masters: the first tile begins the pyramid, one decode answers all who wait, nothing is killed."""

from __future__ import annotations

import asyncio
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import pyvips
from PIL import Image

from special.codecs import Encoding
from special.concurrency import NEVER, Deadline
from special.errors import Preparing, Unreachable
from special.formats.tiff import Grid, Place
from special.geometry import Box, Size
from special.iiif import Job
from special.images import Master, Masters
from special.serving import MasterRenderer, PyramidBuilder, ReadLimits
from special.serving.pyramid_maker import LANE, PyramidMaker, Tiles
from special.storage import Blob, Span
from special.volume import Volume
from special.workers import AdmissionController, Workers, standard_lanes
from tests.support import oracle
from tests.support.live import LiveServer
from tests.support.memory import MemorySource
from tests.support.pieces import encoded, smooth
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.service

WIDTH, HEIGHT = 4200, 4000
"""Just large enough."""
TILE = 512
Serve = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same picture in the forms of which every view needs most."""
    folder = tmp_path_factory.mktemp("flat")
    picture = pyvips.Image.new_from_array(smooth(WIDTH, HEIGHT)).copy(interpretation="srgb")
    picture.tiffsave(str(folder / "flat.tif"), compression="deflate", predictor="horizontal")
    picture.pngsave(str(folder / "flat.png"), compression=1)
    picture.jpegsave(str(folder / "flat.jpg"), Q=90)
    return folder


@pytest.fixture(scope="module")
def server(serve: Serve, masters: Path) -> LiveServer:
    return serve(masters)


def tiles(size: Size, factors: Sequence[int]) -> list[str]:
    """`region/size` of all tiles at these scale factors."""
    return [
        f"{x},{y},{width},{height}/{math.ceil(width / factor)},{math.ceil(height / factor)}"
        for factor in factors
        for y in range(0, size.height, TILE * factor)
        for x in range(0, size.width, TILE * factor)
        for width, height in [(min(TILE * factor, size.width - x), min(TILE * factor, size.height - y))]
    ]


def counted(url: str, metric: str) -> dict[str, int]:
    found = re.findall(metric + r'_total\{outcome="([\w-]+)"\} ([\d.]+)', httpx.get(f"{url}/metrics").text)
    return {outcome: int(float(count)) for outcome, count in found}


@pytest.mark.parametrize("name", ["flat.tif", "flat.png", "flat.jpg"])
def test_a_viewers_first_view_is_one_decode(server: LiveServer, masters: Path, name: str) -> None:
    before = Counter(counted(server.url, "special_decoder_jobs")) + Counter(counted(server.url, "special_promotions"))
    asked = tiles(Size(WIDTH, HEIGHT), [16, 8, 4, 2])

    async def view() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            return await asyncio.gather(*(client.get(f"/iiif/3/{name}/{tile}/0/default.jpg") for tile in asked))

    answers = asyncio.run(view())
    again = [answer for answer in answers if answer.status_code == 503]  # only on a very busy machine
    assert {answer.text for answer in again} <= {"The image is being prepared for viewing; ask again.\n"}
    # The largest level goes on after its tiles, and after a 503 all levels do.
    wait_until(lambda: counted(server.url, "special_promotions").get("made", 0) > before["made"])
    jobs = {"done": before["done"] + 1}
    assert counted(server.url, "special_decoder_jobs") == jobs, "one decode, and none killed"
    assert counted(server.url, "special_promotions") == {"made": before["made"] + 1}
    with httpx.Client(base_url=server.url, timeout=120) as client:
        path = f"/iiif/3/{name}/512,1024,512,512/512,512/0/default.jpg"
        shown = np.asarray(Image.open(io.BytesIO(client.get(path).content))).astype(np.int16)
    assert counted(server.url, "special_decoder_jobs") == jobs
    truth = oracle.rendered(masters / name, Box(512, 1024, 512, 512), Size(512, 512)).astype(np.int16)
    assert np.abs(shown - truth).mean() < 1.5


def job(place: Place, grid: Grid) -> Job:
    box = grid.box(place.level, Box(place.column, place.row, 1, 1))
    return Job(box, grid.shown(place.level, box), False, 0.0, "default", "jpg")


MADE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(smooth(700, 500), "jpeg", quality=90),
    "jpeg-cmyk": lambda: encoded(Image.fromarray(smooth(700, 500)).convert("CMYK"), "jpeg", quality=90),
    "png": lambda: encoded(smooth(700, 500), "png"),
    "tiff-strips": lambda: encoded(smooth(700, 500), "tiff", compression="tiff_lzw"),
    "tiff-strips-jpeg": lambda: encoded(smooth(700, 500), "tiff", compression="jpeg", quality=90),
}


@pytest.mark.parametrize("name", MADE)
async def test_full_and_half_size_are_what_is_made_of_the_master_itself(name: str) -> None:
    source = MemorySource({"a": MADE[name]()})
    masters, lanes = Masters(source), (*standard_lanes(1), LANE)
    async with Workers(1, memory_bytes=4 << 30, lanes=lanes) as workers:
        gate = AdmissionController(lanes, budget_bytes=1 << 30)
        renderer = MasterRenderer(masters, workers, gate, Encoding(), ReadLimits())
        master, made = await masters.find("a"), dict[Place, Sequence[bytes]]()

        async def put(tiles: Tiles) -> None:
            made.update(tiles)

        assert await PyramidMaker(renderer, source, 64, large_pixels=0).make(master, put) == 3
        grid = Grid(master.layout.size, 64)
        assert len(made) == sum(grid.columns(level) * grid.rows(level) for level in range(grid.levels))
        for place in (Place(0, 3, 2), Place(0, 10, 7), Place(1, 2, 1), Place(1, 5, 3)):
            straight = await renderer.render(master, job(place, grid), source, lane="tile", deadline=Deadline.after(60))
            assert made[place][0] == straight, place


class Gated(MemorySource):
    """A source that gives the bytes of a master when it may; of the headers at once."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.gate = asyncio.Event()
        self.fails = False

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        await self.gate.wait()
        if self.fails:
            raise Unreachable("it does not answer")
        return await super().read(blob, spans)


class OneBuild:
    """A builder of one PNG's pyramid, whose bytes come when they may."""

    def __init__(self, builder: PyramidBuilder, source: Gated, master: Master, published: list[Blob]) -> None:
        self.builder, self.source, self.master, self.published = builder, source, master, published

    @property
    def job(self) -> Job:
        return job(Place(0, 1, 1), Grid(self.master.layout.size, 512))


@pytest.fixture
async def build(tmp_path: Path) -> object:
    source = Gated({"a": encoded(smooth(1400, 1200), "png")})
    masters, lanes = Masters(source), (LANE,)
    async with (
        Volume(tmp_path / "volume", size_bytes=64 << 20) as volume,
        Workers(1, memory_bytes=4 << 30, lanes=lanes, spare=0) as workers,
    ):
        gate = AdmissionController(lanes, budget_bytes=1 << 30)
        renderer = MasterRenderer(masters, workers, gate, Encoding(), ReadLimits())
        published: list[Blob] = []
        builder = PyramidBuilder(renderer, volume, source, after=1, tile=512, on_published=published.append)
        source.gate.set()
        master = await masters.find("a")
        source.gate.clear()
        source.calls.clear()
        yield OneBuild(builder, source, master, published)
        await builder.close()


async def test_a_deadline_ends_the_wait_and_not_the_work(build: OneBuild) -> None:
    assert build.builder.begin(build.master)
    for _ in range(2):
        with pytest.raises(Preparing) as caught:
            await build.builder.wait(build.master, build.job, deadline=Deadline.after(0.3))
        assert caught.value.status == 503
        assert (caught.value.retry_after_s or 0) >= 1
        assert build.builder.begin(build.master), "it goes on"
    build.source.gate.set()
    waiting = [build.builder.wait(build.master, build.job, deadline=NEVER) for _ in range(5)]
    found = set(await asyncio.gather(*waiting))
    assert len(found) == 1
    (data,) = found
    assert data is not None
    assert Image.open(io.BytesIO(data)).size == (512, 512)
    reads = [call for call in build.source.calls if call[0] == "read"]
    assert len(reads) == 3, "one for each level: all share one build"
    while build.builder.busy:  # noqa: ASYNC110  the last of it goes on after the tiles
        await asyncio.sleep(0.01)
    assert build.published == [build.master.blob], "those who answer from pyramids look at once"


class OneByOne(MemorySource):
    """A source each of whose reads waits for its turn."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.turns = asyncio.Semaphore(0)

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        await self.turns.acquire()
        return await super().read(blob, spans)


async def test_another_process_answers_from_what_is_made_by_then(tmp_path: Path) -> None:
    source = OneByOne({"a": encoded(smooth(1400, 1200), "png")})
    masters, lanes = Masters(MemorySource(source.objects)), (LANE,)
    async with (
        Volume(tmp_path / "volume", size_bytes=64 << 20) as volume,
        Volume(tmp_path / "volume", size_bytes=64 << 20) as same,
        Workers(1, memory_bytes=4 << 30, lanes=lanes, spare=0) as workers,
        AsyncExitStack() as closing,
    ):
        gate = AdmissionController(lanes, budget_bytes=1 << 30)
        renderer = MasterRenderer(masters, workers, gate, Encoding(), ReadLimits())
        one, other = (PyramidBuilder(renderer, it, source, after=1, tile=512) for it in (volume, same))
        closing.push_async_callback(one.close)
        closing.push_async_callback(other.close)
        master = await masters.find("a")
        grid = Grid(master.layout.size, 512)
        smallest, last = job(Place(2, 0, 0), grid), job(Place(0, 1, 1), grid)
        assert one.begin(master)
        source.turns.release()  # the smallest level is made first
        made = await one.wait(master, smallest, deadline=NEVER)
        assert made is not None
        assert other.begin(master)
        assert await other.wait(master, smallest, deadline=NEVER) == made
        assert await other.peek(master, smallest) == made
        assert await other.peek(master, last) is None
        with pytest.raises(Preparing):
            await other.wait(master, last, deadline=Deadline.after(0.5))
        source.turns.release()
        source.turns.release()
        await until(lambda: not one.busy)
        assert await other.peek(master, smallest) is None, "it is whole, and read as such"


async def test_when_the_store_fails_all_hear_of_it_and_a_try_follows_soon(build: OneBuild) -> None:
    build.source.fails = True
    build.source.gate.set()
    assert build.builder.begin(build.master)
    assert await build.builder.wait(build.master, build.job, deadline=NEVER) is None
    assert not build.builder.begin(build.master), "not at once"
