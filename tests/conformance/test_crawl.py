"""Whatever info.json names is there: every size, tile, format and quality, for every sample master.

Tiles are asked for as the specification writes them and as OpenSeadragon does. The default run takes a
seeded sample of the tiles of each level; the long one takes them all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from math import ceil, floor, log2
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from tests.support.live import MASTERS, LiveServer

NAMES = sorted(path.name for path in MASTERS.iterdir() if not path.name.startswith("."))
SEED = 1729
TILES_OF_A_LEVEL = 4
CLIENTS = 4
ATTEMPTS = 5
PILLOW_NAMES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "avif": "AVIF"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, and what must come back."""

    path: str
    """`{region}/{size}/0/{quality}.{format}`"""
    width: int
    height: int
    """In pixels, exactly."""

    @classmethod
    def of(cls, region: str, size: str, width: int, height: int) -> Wanted:
        return cls(f"{region}/{size}/0/default.jpg", width, height)


@dataclass(frozen=True, slots=True)
class Grid:
    """What a viewer needs of info.json to make tiles."""

    version: int
    width: int
    height: int
    tile_width: int
    tile_height: int
    factors: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    """Ascending."""

    @classmethod
    def of(cls, info: dict[str, Any], version: int) -> Grid:
        (tiles,) = info["tiles"]
        return cls(
            version,
            info["width"],
            info["height"],
            tiles["width"],
            tiles.get("height", tiles["width"]),
            tuple(tiles["scaleFactors"]),
            tuple(sorted((size["width"], size["height"]) for size in info["sizes"])),
        )

    def whole(self, width: int, height: int) -> str | None:
        """The word for a size that is the image's own."""
        return ("full" if self.version == 2 else "max") if (width, height) == (self.width, self.height) else None


def tiles_of_the_specification(grid: Grid) -> Iterator[list[Wanted]]:
    """The tiles of each level: Image API 3.0 and 2.1, "Calculating tile requests" in the implementation notes."""
    for factor in grid.factors:
        level = []
        across, down = grid.tile_width * factor, grid.tile_height * factor
        for y in range(0, grid.height, down):
            for x in range(0, grid.width, across):
                w, h = min(across, grid.width - x), min(down, grid.height - y)
                width, height = ceil(w / factor), ceil(h / factor)
                region = "full" if (w, h) == (grid.width, grid.height) else f"{x},{y},{w},{h}"
                if grid.version == 2:
                    # 'w,' leaves the height to the server: the region's proportions, rounded half up.
                    height = max(1, floor(Fraction(h * width, w) + Fraction(1, 2)))
                    size = f"{width},"
                else:
                    size = f"{width},{height}"
                level.append(Wanted.of(region, grid.whole(width, height) or size, width, height))
        yield level


def tiles_of_openseadragon(grid: Grid) -> Iterator[list[Wanted]]:
    """The tiles of each level, by the arithmetic of OpenSeadragon's IIIF tile source."""
    top = round(log2(max(grid.factors)))
    listed = _resolutions(grid, top)
    for level in range(top + 1):
        factor = 2 ** (top - level)
        across, down = grid.tile_width * factor, grid.tile_height * factor
        level_width, level_height = listed[level] if listed else (ceil(grid.width / factor), ceil(grid.height / factor))
        if level_width < grid.tile_width and level_height < grid.tile_height:
            # 2.1 is asked by its width alone, and the height follows from the image's own proportions.
            height = floor(Fraction(grid.height * level_width, grid.width) + Fraction(1, 2))
            by_side = (
                (f"{level_width},", height) if grid.version == 2 else (f"{level_width},{level_height}", level_height)
            )
            size = grid.whole(level_width, level_height) or by_side[0]
            yield [Wanted.of("full", size, level_width, by_side[1])]
            continue
        tiles = []
        for row in range(ceil(level_height / grid.tile_height)):
            for column in range(ceil(level_width / grid.tile_width)):
                x, y = column * across, row * down
                w, h = min(across, grid.width - x), min(down, grid.height - y)
                region = "full" if (x, y, w, h) == (0, 0, grid.width, grid.height) else f"{x},{y},{w},{h}"
                width = min(grid.tile_width, level_width - column * grid.tile_width)
                height = min(grid.tile_height, level_height - row * grid.tile_height)
                whole = "full" if grid.version == 2 and width == grid.width else grid.whole(width, height)
                tiles.append(Wanted.of(region, whole or f"{width},{height}", width, height))
        yield tiles


def _resolutions(grid: Grid, top: int) -> list[tuple[int, int]] | None:
    """`sizes`, where OpenSeadragon takes them for the levels of the pyramid."""
    sizes = list(grid.sizes)
    if not sizes:
        return None
    if sizes[-1][0] < grid.width and sizes[-1][1] < grid.height:
        sizes.append((grid.width, grid.height))
    if len(sizes) != top + 1:
        return None
    factors = sorted(grid.factors, reverse=True)
    fits = all(
        floor(grid.width / width + 0.5) == factor and floor(grid.height / height + 0.5) == factor
        for (width, height), factor in zip(sizes, factors, strict=False)
    )
    return sizes if fits or len(factors) != len(sizes) else None


def everything_else(info: dict[str, Any], version: int) -> Iterator[Wanted]:
    """Sizes, and each quality in each format."""
    for size in info.get("sizes", []):
        yield Wanted.of("full", f"{size['width']},{size['height']}", size["width"], size["height"])
    extra = info if version == 3 else info["profile"][1]
    prefix = ("extraFormats", "extraQualities") if version == 3 else ("formats", "qualities")
    width = min(info["width"], 60)
    height = max(1, floor(Fraction(info["height"] * width, info["width"]) + Fraction(1, 2)))
    for suffix in {"jpg", "png", *extra[prefix[0]]}:
        for quality in {"default", "color", *extra[prefix[1]]}:
            yield Wanted(f"full/{width},/0/{quality}.{suffix}", width, height)


def ask(client: httpx.Client, url: str) -> httpx.Response:
    """The answer of a server that may be too busy at first: the crawl loads it with all that it can bear."""
    for _ in range(ATTEMPTS):
        answer = client.get(url)
        if answer.status_code != 503:
            break
        time.sleep(int(answer.headers["retry-after"]))
    return answer


def crawl(server: LiveServer, name: str, version: int, *, tiles_of_a_level: int | None) -> None:
    base = f"{server.url}/iiif/{version}/{quote(name, safe='')}"
    draw = random.Random(f"{SEED} {name}")
    with httpx.Client(timeout=60.0) as client, ThreadPoolExecutor(CLIENTS) as pool:
        info = client.get(f"{base}/info.json").raise_for_status().json()
        grid = Grid.of(info, version)
        wanted = set(everything_else(info, version))
        for level in (*tiles_of_the_specification(grid), *tiles_of_openseadragon(grid)):
            wanted.update(level if tiles_of_a_level is None else draw.sample(level, min(len(level), tiles_of_a_level)))
            wanted.add(level[-1])  # the corner that is cut short on both sides

        def differs(it: Wanted) -> str | None:
            answer = ask(client, f"{base}/{it.path}")
            if answer.status_code != 200:
                return f"{it.path}: {answer.status_code} {answer.text}"
            with Image.open(BytesIO(answer.content)) as image:
                image.load()
                got = (image.format, *image.size)
            asked = (PILLOW_NAMES[it.path.rpartition(".")[2]], it.width, it.height)
            return f"{it.path}: {got}, not {asked}" if got != asked else None

        problems = [problem for problem in pool.map(differs, sorted(wanted, key=str)) if problem]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_what_info_json_names_is_there(live_server: LiveServer, name: str, version: int):
    crawl(live_server, name, version, tiles_of_a_level=TILES_OF_A_LEVEL)


@pytest.mark.long
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_tile_that_info_json_names_is_there(live_server: LiveServer, name: str, version: int):
    crawl(live_server, name, version, tiles_of_a_level=None)


def test_there_are_samples_to_crawl():
    assert NAMES, f"{MASTERS} is empty"
