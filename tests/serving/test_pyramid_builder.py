"""Masters that are expensive per tile become pyramids: the same tiles as before, in memory, and made once."""

from __future__ import annotations

import asyncio
import io
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from special import formats
from special.codecs.render import Encoding
from special.concurrency import Deadline
from special.errors import Crashed
from special.formats.parser import solve
from special.formats.tiff.pyramid import Grid
from special.geometry import Box, Size
from special.images.masters import Master, Masters
from special.serving.master_pixels import MasterRenderer
from special.serving.pyramid_builder import PyramidBuilder
from special.serving.pyramid_maker import LANE, chunks
from special.serving.read_piece import ReadLimits
from special.volume import Volume, clear, stat
from special.workers import AdmissionController, Workers
from tests.support import oracle
from tests.support.live import MASTERS, LiveServer
from tests.support.memory import MemorySource
from tests.support.waiting import wait_until

pytestmark = pytest.mark.service

PROMOTED = ["map.jp2", "manuscript.jpg", "seafloor.png", "tiles.tif", "phases.jp2"]
Serve = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples, and a turned one whose levels do not come out even."""
    folder = tmp_path_factory.mktemp("masters")
    for path in MASTERS.iterdir():
        shutil.copy(path, folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(MASTERS / "manuscript.jpg").crop((0, 0, 1427, 1041)).save(folder / "turned.jpg", exif=exif, quality=90)
    return folder


@dataclass(frozen=True)
class Pair:
    """Two servers of the same masters."""

    plain: httpx.Client
    """It never builds a pyramid."""
    eager: httpx.Client
    """It builds a pyramid after two tiles."""
    volume: Path
    """The eager one's."""


@pytest.fixture(scope="module")
def pair(serve: Serve, masters: Path) -> Iterator[Pair]:
    plain = serve(masters, settings={"SPECIAL_PROMOTE_AFTER": "0"})
    eager = serve(masters, settings={"SPECIAL_PROMOTE_AFTER": "2", "SPECIAL_HOT_SIZE": "0"})
    with (
        httpx.Client(base_url=plain.url, timeout=60) as one,
        httpx.Client(base_url=eager.url, timeout=60) as other,
    ):
        yield Pair(one, other, eager.home / "volume")


def tiles(client: httpx.Client, name: str) -> list[str]:
    """Every tile that a viewer may ask for, from info.json alone (implementation notes, section 8)."""
    described = client.get(f"/iiif/3/{name}/info.json").json()
    full, (tiling,) = Size(described["width"], described["height"]), described["tiles"]
    found: list[str] = []
    for factor in tiling["scaleFactors"]:
        step = tiling["width"] * factor
        for y in range(0, full.height, step):
            for x in range(0, full.width, step):
                width, height = min(step, full.width - x), min(step, full.height - y)
                if (width, height) != (full.width, full.height):
                    size = f"{math.ceil(width / factor)},{math.ceil(height / factor)}"
                    found.append(f"/iiif/3/{name}/{x},{y},{width},{height}/{size}/0/default.jpg")
    return found


def outcomes(client: httpx.Client) -> dict[str, int]:
    """Outcomes of attempts to build a pyramid so far."""
    found = re.findall(r'special_promotions_total\{outcome="(\w+)"\} ([\d.]+)', client.get("/metrics").text)
    return {outcome: int(float(count)) for outcome, count in found}


def is_from_memory(answer: httpx.Response) -> bool:
    """Whether nothing was read from the source and nothing decoded for it."""
    timing = answer.headers["server-timing"]
    return "gets=0 " in timing and "decode;dur=0.0, encode;dur=0.0" in timing


def build_pyramid(client: httpx.Client, name: str) -> list[str]:
    """Ask for tiles until they come from the pyramid; all of them."""
    wanted = tiles(client, name)
    wait_until(lambda: is_from_memory(client.get(wanted[0])))
    return wanted


def pyramids(volume: Path) -> list[Path]:
    """All that lie on a volume, whole or not."""
    return list(volume.glob("objects/*/*/pyramid-*"))


@pytest.mark.parametrize("name", [*PROMOTED, "turned.jpg"])
def test_every_tile_is_the_same_and_needs_no_decoder(pair: Pair, name: str) -> None:
    before = pair.eager.get(f"/iiif/3/{name}/info.json").content
    wanted = build_pyramid(pair.eager, name)
    assert len(wanted) >= 4
    for path in wanted:
        from_pyramid, straight = pair.eager.get(path), pair.plain.get(path)
        assert from_pyramid.content == straight.content, path
        assert from_pyramid.headers["etag"] == straight.headers["etag"]
        assert from_pyramid.headers["x-special-route"] == "tile"
        assert is_from_memory(from_pyramid), from_pyramid.headers["server-timing"]
        assert not is_from_memory(straight)
    assert pair.eager.get(f"/iiif/3/{name}/info.json").content == before


def test_info_names_the_tiles_of_the_pyramid_from_the_start(serve: Serve, masters: Path) -> None:
    server = serve(masters, settings={"SPECIAL_TILE_SIZE": "320", "SPECIAL_PROMOTE_AFTER": "1"})
    with httpx.Client(base_url=server.url, timeout=60) as client:
        described = {name: client.get(f"/iiif/3/{name}/info.json").json()["tiles"] for name in PROMOTED}
        assert {name: tile["width"] for name, (tile,) in described.items()} == dict.fromkeys(PROMOTED, 320)
        assert described["map.jp2"][0]["scaleFactors"] == [1, 2, 4, 8, 16]
        assert client.get("/iiif/3/stars.tif/info.json").json()["tiles"][0]["width"] == 256
        for path in build_pyramid(client, "seafloor.png"):
            assert is_from_memory(client.get(path))


def shown(answer: httpx.Response) -> npt.NDArray[np.float64]:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(np.float64)


def psnr(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio, in dB."""
    return 10 * math.log10(255**2 / max(float(((one - other) ** 2).mean()), 1e-9))


@pytest.mark.parametrize(
    ("name", "path", "most_lost_db"),
    [
        pytest.param("map.jp2", "512,1024,512,512/512,512", 0.1, id="JP2, on the grid"),
        pytest.param("map.jp2", "0,1024,1024,1024/512,512", 0.1, id="JP2, on the grid at a half"),
        pytest.param("map.jp2", "700,1100,600,500/600,500", 1.5, id="JP2, off the grid"),
        pytest.param("map.jp2", "701,1103,612,508/306,254", 1.5, id="JP2, off the grid at a half"),
        pytest.param("map.jp2", "300,400,1800,2000/360,400", 1.5, id="JP2, off the grid at a fifth"),
        pytest.param("manuscript.jpg", "512,1024,512,512/512,512", 0.1, id="JPEG, on the grid"),
        pytest.param("manuscript.jpg", "333,777,555,444/555,444", 1.5, id="JPEG, off the grid"),
        pytest.param("manuscript.jpg", "334,778,600,800/150,200", 1.5, id="JPEG, off the grid at a quarter"),
        pytest.param("seafloor.png", "512,0,512,512/512,512", 0.1, id="PNG, on the grid"),
        pytest.param("seafloor.png", "100,200,700,300/700,300", 1.5, id="PNG, off the grid"),
    ],
)
def test_how_much_is_lost(pair: Pair, masters: Path, name: str, path: str, most_lost_db: float) -> None:
    build_pyramid(pair.eager, name)
    region, size = path.split("/")
    box, size_of = Box(*map(int, region.split(","))), Size(*map(int, size.split(",")))
    truth = oracle.rendered(masters / name, box, size_of).astype(np.float64)
    url = f"/iiif/3/{name}/{path}/0/default.jpg"
    straight, from_pyramid = (psnr(shown(client.get(url)), truth) for client in (pair.plain, pair.eager))
    assert from_pyramid >= straight - most_lost_db, (from_pyramid, straight)
    print(round(from_pyramid - straight, 2))


@pytest.mark.parametrize("last", ["default.png", "gray.tif", "default.gif", "bitonal.jpg", "bitonal.webp"])
def test_what_has_no_loss_comes_from_the_master(pair: Pair, last: str) -> None:
    build_pyramid(pair.eager, "map.jp2")
    path = f"/iiif/3/map.jp2/512,1024,512,512/512,512/0/{last}"
    assert pair.eager.get(path).content == pair.plain.get(path).content


@pytest.mark.parametrize("last", ["90/default.jpg", "!0/default.jpg", "0/gray.jpg", "0/default.webp"])
def test_other_forms_of_a_tile_come_from_the_pyramid(pair: Pair, last: str) -> None:
    build_pyramid(pair.eager, "manuscript.jpg")
    path = f"/iiif/3/manuscript.jpg/512,1024,512,512/512,512/{last}"
    from_pyramid, straight = pair.eager.get(path), pair.plain.get(path)
    assert "gets=0 " in from_pyramid.headers["server-timing"]
    assert psnr(shown(from_pyramid), shown(straight)) > 35


@pytest.mark.parametrize("name", ["rosette.png", "dragon.gif"])
def test_opacity_stays_with_the_master(pair: Pair, name: str) -> None:
    refused = outcomes(pair.eager).get("refused", 0)
    wanted = tiles(pair.eager, name)
    for path in wanted * 3:
        pair.eager.get(path)
    wait_until(lambda: outcomes(pair.eager).get("refused", 0) == refused + 1)
    for path in wanted * 3:
        answer = pair.eager.get(path)
        assert answer.content == pair.plain.get(path).content
        assert not is_from_memory(answer)
    assert outcomes(pair.eager)["refused"] == refused + 1


def test_two_server_processes_make_one(serve: Serve, masters: Path) -> None:
    server = serve(masters, settings={"SPECIAL_PROMOTE_AFTER": "2"}, workers=2)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        wanted = tiles(client, "map.jp2")

    async def flood() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as many:
            return await asyncio.gather(*(many.get(path) for path in wanted))

    def all_are_there() -> bool:
        answers = asyncio.run(flood())
        assert {answer.status_code for answer in answers} <= {200, 503}  # a lane may be full
        return all(answer.status_code == 200 and is_from_memory(answer) for answer in answers)

    wait_until(all_are_there)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        wait_until(lambda: outcomes(client).get("made") == 1)
    assert len(pyramids(server.home / "volume")) == 1


def test_one_that_was_evicted_is_made_again(pair: Pair) -> None:
    wanted = build_pyramid(pair.eager, "phases.jp2")
    (url,) = (entry.url for entry in stat(pair.volume, top=100).top if entry.url.endswith("/phases.jp2"))
    wait_until(lambda: clear(pair.volume, [url]).objects == 1)  # a second after it was last read
    made = outcomes(pair.eager)["made"]
    answer = pair.eager.get(wanted[0])
    assert not is_from_memory(answer)
    assert answer.content == pair.plain.get(wanted[0]).content
    build_pyramid(pair.eager, "phases.jp2")
    wait_until(lambda: outcomes(pair.eager)["made"] == made + 1)


def test_a_new_version_has_a_pyramid_of_its_own(serve: Serve, tmp_path: Path) -> None:
    master = tmp_path / "changing"
    shutil.copy(MASTERS / "manuscript.jpg", master)
    server = serve(tmp_path, settings={"SPECIAL_PROMOTE_AFTER": "1", "SPECIAL_ASSET_TTL_S": "0"})
    with httpx.Client(base_url=server.url, timeout=60) as client:
        (path, *_) = build_pyramid(client, "changing")
        old = client.get(path)
        negative = Image.eval(Image.open(master).convert("RGB"), lambda level: 255 - level)
        negative.save(tmp_path / "new", "jpeg", quality=90)
        (tmp_path / "new").rename(master)
        new = client.get(path)
        assert not is_from_memory(new)
        assert new.headers["etag"] != old.headers["etag"]
        assert np.abs(shown(new) + shown(old) - 255).mean() < 5
        build_pyramid(client, "changing")
        assert client.get(path).content == new.content
        wait_until(lambda: outcomes(client).get("made") == 2)  # counted when all is tidied up


# One builder by itself


@dataclass
class Refusing:
    """Workers in which every job crashes its decoder."""

    lanes: list[str] = field(default_factory=list)

    async def run(self, *arguments: object, lane: str, **options: Any) -> object:
        self.lanes.append(lane)
        raise Crashed("decoder 1 was ended by SIGKILL")


def open_gate() -> AdmissionController:
    """It lets in whatever comes."""
    return AdmissionController([LANE], budget_bytes=4 << 30)


def drawn_by(workers: Refusing, source: MemorySource) -> MasterRenderer:
    return MasterRenderer(Masters(source), workers, open_gate(), Encoding(), ReadLimits())  # type: ignore[arg-type]  # a double


async def test_a_failure_is_not_tried_again_at_once(tmp_path: Path) -> None:
    source = MemorySource({"a": (MASTERS / "manuscript.jpg").read_bytes()})
    blob = source.blob("a")
    master = Master(blob, solve(formats.parse(blob.size), source.objects["a"]))
    workers, now = Refusing(), 1000.0
    pixels = drawn_by(workers, source)
    async with Volume(tmp_path, size_bytes=32 << 20) as volume:
        builder = PyramidBuilder(pixels, volume, volume.reader(source), after=3, tile=512, clock=lambda: now)

        async def ask(times: int) -> int:
            """How often a build is tried when that many tiles are asked for."""
            before = len(workers.lanes)
            for _ in range(times):
                builder.count_tiles(master)
                for _ in range(200):
                    await asyncio.sleep(0.001)
                    if not builder.busy:
                        break
            return len(workers.lanes) - before

        assert await ask(2) == 0
        assert await ask(1) == 1
        assert await ask(20) == 0
        now += 59
        assert await ask(20) == 0
        now += 2
        assert await ask(20) == 1
        now += 61
        assert await ask(20) == 0  # the second pause is twice as long
        now += 60
        assert await ask(20) == 1
        assert set(workers.lanes) == {LANE.name}
        await builder.close()
    assert pyramids(tmp_path) == []


async def test_never_means_never(tmp_path: Path) -> None:
    source = MemorySource({"a": (MASTERS / "map.jp2").read_bytes()})
    blob = source.blob("a")
    master = Master(blob, solve(formats.parse(blob.size), source.objects["a"]))
    pixels = drawn_by(Refusing(), source)
    async with Volume(tmp_path, size_bytes=32 << 20) as volume:
        builder = PyramidBuilder(pixels, volume, volume.reader(source), after=0, tile=512)
        builder.count_tiles(master, 1000)
        assert not builder.begin(master)
        assert not builder.is_enough(1000)
        assert not builder.busy


def rss_peak_mb(pid: int) -> int:
    """The most memory that a process has had so far."""
    (line,) = (it for it in Path(f"/proc/{pid}/status").read_text().splitlines() if it.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def forget_peak() -> None:
    """Start our own peak again: that of drawing the master is of no interest. See proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")


def large(folder: Path, kind: str) -> Path:
    """A master of 48 megapixels, as full of detail as a photograph: samples side by side under grain."""
    photograph = Image.open(MASTERS / "mountains.jpg").convert("RGB").resize((3000, 2000))
    whole = np.tile(np.asarray(photograph), (4, 2, 1))
    grain = np.random.default_rng(1).normal(0, 4, (8000, 6000, 1)).astype(np.float32)
    picture = Image.fromarray((whole + grain).clip(0, 255).astype(np.uint8))
    path = folder / f"large.{kind}"
    if kind == "jp2":
        options: dict[str, Any] = {
            "num_resolutions": 7,
            "progression": "RPCL",
            "precinct_size": (256, 256),
            "plt": True,
        }
        picture.save(path, quality_mode="rates", quality_layers=[12], irreversible=True, **options)
    else:
        picture.save(path, quality=90)
    return path


@pytest.mark.long
@pytest.mark.parametrize(("kind", "most_mb"), [("jp2", 450), ("jpg", 450), ("png", 450)])
async def test_memory_does_not_grow_with_the_master(tmp_path: Path, kind: str, most_mb: int) -> None:
    """Prints time and memory of making a pyramid; 48 megapixels decoded at once take 144 MB as 8-bit RGB."""
    source = MemorySource({"a": large(tmp_path, kind).read_bytes()})
    blob = source.blob("a")
    masters = Masters(source)
    master = await masters.find("a")
    lane = replace(LANE, queue=1)
    async with (
        Volume(tmp_path / "volume", size_bytes=1 << 30) as volume,
        Workers(1, memory_bytes=4 << 30, lanes=[lane], spare=0) as workers,
    ):
        pixels = MasterRenderer(masters, workers, open_gate(), Encoding(), ReadLimits())
        builder = PyramidBuilder(pixels, volume, volume.reader(source), after=1, tile=512)
        child = await workers.run(os.getpid, deadline=Deadline.after(60))
        forget_peak()
        before_mb, own_mb = rss_peak_mb(child), rss_peak_mb(os.getpid())
        before_s = await workers.run(time.process_time, deadline=Deadline.after(60))
        builder.count_tiles(master)
        while builder.busy:  # noqa: ASYNC110  it is made by a task of its own
            await asyncio.sleep(0.05)
        took_s = await workers.run(time.process_time, deadline=Deadline.after(60)) - before_s
        (made,) = pyramids(tmp_path / "volume")
        print(
            f"{kind}: {blob.size / 1e6:.1f} MB, pyramid {made.stat().st_size / 1e6:.1f} MB in {took_s:.1f} s of "
            f"processor time; decoder {before_mb} to {rss_peak_mb(child)} MB, "
            f"server {own_mb} to {rss_peak_mb(os.getpid())} MB"
        )
        assert rss_peak_mb(child) - before_mb < most_mb


@pytest.mark.parametrize("name", PROMOTED)
def test_chunks_cover_every_tile_once(name: str) -> None:
    data = (MASTERS / name).read_bytes()
    layout = solve(formats.parse(len(data)), data)
    grid = Grid(layout.size, 64)
    seen = [
        (level, column, row)
        for level, chunk in chunks(layout, grid)
        for row in range(chunk.y, chunk.bottom)
        for column in range(chunk.x, chunk.right)
    ]
    assert len(seen) == len(set(seen))
    assert len(seen) == sum(grid.columns(level) * grid.rows(level) for level in range(grid.levels))
