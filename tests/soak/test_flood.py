"""P2: a flood on one cold image reads each block once, over two server processes on a real S3 server.

The long forms, which print their figures:

    python -m pytest -m long tests/soak/test_flood.py -s     # masters of 48 megapixels; prints the figures
"""

import io
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import pyvips
from PIL import Image

from special.geometry import Box
from tests.bench.big import HEIGHT, WIDTH, big
from tests.soak.conftest import Library
from tests.soak.crowd import Reply, at_once, percentile
from tests.soak.noise import TILE, Noise, address
from tests.soak.proxy import blocks_got
from tests.support.live import MASTERS
from tests.support.oracle import mean_difference

CACHE = Path(tempfile.gettempdir()) / "special-bench"
"""Where the benches keep the same masters."""
CROWD = 1000
PROCESSES = 2
MISSING_S = 2.0
"""How long it is remembered that something is not there."""


needs_opj = pytest.mark.skipif(
    shutil.which("opj_compress") is None, reason="needs opj_compress: apt-get install libopenjp2-tools"
)


def figures(library: Library, name: str, replies: list[Reply], first: int) -> str:
    gets = library.between.gets(name, since=first)
    return (
        f"\n{name}: {len(replies)} requests, {len(gets)} GETs, {sum(each.sent_bytes for each in gets)} bytes, "
        f"p50 {percentile(replies, 50):.0f} ms, p99 {percentile(replies, 99):.0f} ms, "
        f"{sum(reply.refusals for reply in replies)} times asked to come again"
    )


def fetched_once(library: Library, name: str, size_bytes: int) -> None:
    """No block was asked for twice, by whichever process, and each process has looked the master up once at most."""
    blocks = blocks_got(library.pinned(name), library.block_bytes)
    assert blocks
    assert set(blocks.values()) == {1}, blocks
    assert sum(head.status != 304 for head in library.heads(name)) <= PROCESSES
    # Headers that lie elsewhere than at the start.
    others = [each for each in library.pinned(name) if each.span and each.span.start % library.block_bytes]
    assert max(Counter(each.span for each in others).values(), default=0) <= PROCESSES, others
    assert sum(each.sent_bytes for each in library.pinned(name)) <= size_bytes + sum(it.sent_bytes for it in others)


async def test_a_thousand_tiles_of_a_cold_tiff_read_each_block_once(library: Library) -> None:
    first, data = len(library.between.log), Noise(2, 2048, 2048).jpeg_file
    name = library.put(data)
    whole = pyvips.Image.new_from_buffer(data, "").numpy()
    tiles = [Box(n * TILE % 2048, n // 8 * TILE % 2048, TILE, TILE) for n in range(CROWD)]
    replies = await at_once(library.url, [f"/iiif/3/{name}/{tile}/max/0/default.jpg" for tile in tiles])
    assert Counter(reply.status for reply in replies) == {200: CROWD}
    assert {reply.headers["x-special-route"] for reply in replies} == {"tile"}
    shown = {(tile, reply.body) for tile, reply in zip(tiles, replies, strict=True)}
    assert len(shown) == 64, sorted(Counter(tile for tile, _ in shown).items(), key=lambda item: item[1])[-3:]
    for tile, body in shown:
        part = whole[tile.y : tile.y + TILE, tile.x : tile.x + TILE]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), part)
    fetched_once(library, name, len(data))
    print(figures(library, name, replies, first))


async def test_a_hundred_tiles_that_are_decoded_read_each_block_once(library: Library) -> None:
    master, chance, first = Noise(2), random.Random(2), len(library.between.log)
    name = library.put(master.file)
    regions = [master.region(chance) for _ in range(100)]
    replies = await at_once(library.url, [address(name, region) for region in regions])
    assert Counter(reply.status for reply in replies) == {200: 100}
    assert all(master.shows(region, reply.body) for region, reply in zip(regions, replies, strict=True))
    fetched_once(library, name, len(master.file))
    print(figures(library, name, replies, first))


async def test_a_thousand_on_a_missing_key_are_one_look_up_for_each_process(library: Library) -> None:
    started_s, name = monotonic(), f"missing-{len(library.between.log)}.tif"
    replies = await at_once(library.url, [f"/iiif/3/{name}/0,0,256,256/max/0/default.jpg"] * CROWD)
    assert Counter(reply.status for reply in replies) == {404: CROWD}
    turns = 1 + int((monotonic() - started_s) / MISSING_S)
    assert 1 <= len(library.gets(name)) <= PROCESSES * turns
    assert {each.status for each in library.gets(name)} == {404}


async def test_fifty_tiles_of_a_cold_jp2_read_each_block_once(library: Library) -> None:
    first, data = len(library.between.log), (MASTERS / "map.jp2").read_bytes()
    name = library.put(data, f"{first}.jp2")
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    chance = random.Random(3)
    regions = [
        Box(chance.randrange(whole.shape[1] - 64), chance.randrange(whole.shape[0] - 64), 64, 64) for _ in range(50)
    ]
    replies = await at_once(library.url, [address(name, region) for region in regions])
    assert Counter(reply.status for reply in replies) == {200: 50}
    for region, reply in zip(regions, replies, strict=True):
        part = whole[region.y : region.y + 64, region.x : region.x + 64]
        assert mean_difference(np.asarray(Image.open(io.BytesIO(reply.body)).convert("RGB")), part) <= 1
    fetched_once(library, name, len(data))
    print(figures(library, name, replies, first))


def show_tiff(path: Path) -> Callable[[Box], np.ndarray]:
    """What a region of a master is, decoded the plain way."""
    image = pyvips.Image.new_from_file(str(path))
    return lambda box: image.crop(box.x, box.y, box.width, box.height).numpy()


def show_jp2(path: Path) -> Callable[[Box], np.ndarray]:
    """The same; decodes all of it at once."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return lambda box: pixels[box.y : box.y + box.height, box.x : box.x + box.width]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "show", "tolerance"),
    [
        pytest.param("photo.tif", show_tiff, 0.0, id="tiff"),
        # Its grain of 32 levels is encoded once more, as JPEG; any other tile would be 36 levels away.
        pytest.param("photo.jp2", show_jp2, 12.0, id="jp2", marks=needs_opj),
    ],
)
async def test_a_thousand_tiles_of_48_megapixels_read_each_block_once(
    library: Library, name: str, show: Callable[[Path], Callable[[Box], np.ndarray]], tolerance: float
) -> None:
    path = big(name, CACHE) / name
    first, chance, part = len(library.between.log), random.Random(5), show(path)
    key = library.put(path.read_bytes(), f"{first}-{name}")
    grid = [Box(x, y, TILE, TILE) for x in range(0, WIDTH - TILE, TILE) for y in range(0, HEIGHT - TILE, TILE)]
    tiles = chance.choices(grid, k=CROWD)
    paths = [f"/iiif/3/{key}/{tile}/max/0/default.jpg" for tile in tiles]
    replies = await at_once(library.url, paths, within_s=1200)
    assert Counter(reply.status for reply in replies) == {200: CROWD}
    for tile, reply in zip(tiles, replies, strict=True):
        assert mean_difference(np.asarray(Image.open(io.BytesIO(reply.body))), part(tile)) <= tolerance
    fetched_once(library, key, path.stat().st_size)
    print(figures(library, key, replies, first))
