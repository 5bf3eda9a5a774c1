"""A tile on the grid is the same file before and after its master has a pyramid, by whichever codec it is made.

No server: what `MasterRenderer` makes from spans, beside the pyramid that `PyramidBuilder` makes.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image

from special.codecs.render import Encoding
from special.concurrency import Deadline
from special.formats.tiff.pyramid import Grid, Place
from special.geometry import Box
from special.iiif import Job
from special.images.masters import Masters
from special.serving.master_pixels import MasterRenderer
from special.serving.pyramid_builder import PyramidBuilder
from special.serving.pyramid_maker import LANE
from special.serving.pyramid_tiles import read_index
from special.serving.read_piece import ReadLimits
from special.volume import Volume
from special.workers import AdmissionController, Workers, standard_lanes
from tests.support.live import MASTERS
from tests.support.memory import MemorySource

pytestmark = pytest.mark.service

TILE = 128
SAMPLE = 60
"""Tiles of each master, drawn from a seed; the long form takes all."""


def picture(mode: str) -> Image.Image:
    """Detail and grain, of sides that no tile and no halving divides."""
    base = Image.open(MASTERS / "mountains.jpg").convert("RGB").resize((1037, 779))
    grain = np.random.default_rng(4).normal(0, 6, (779, 1037, 1))
    return Image.fromarray((np.asarray(base) + grain).clip(0, 255).astype(np.uint8)).convert(mode)


def jp2(mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    defaults: dict[str, Any] = {"num_resolutions": 5, "progression": "RPCL", "precinct_size": (128, 128), "plt": True}
    picture(mode).save(out, "jpeg2000", **{**defaults, **options})
    return out.getvalue()


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    picture(mode).save(out, "jpeg", quality=92, **options)
    return out.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif)


def by_vips(kind: str, *, bits: int = 8, **options: Any) -> bytes:
    image = pyvips.Image.new_from_array(np.asarray(picture("RGB")))
    image = (image.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16") if bits == 16 else image
    data: bytes = image.write_to_buffer(f".{kind}", **options)
    return data


MADE: dict[str, Callable[[], bytes]] = {
    "jp2-lossless": jp2,
    "jp2-lossy": lambda: jp2(irreversible=True, quality_mode="rates", quality_layers=[20, 10]),
    "jp2-grey": lambda: jp2("L"),
    "jp2-no-precincts": lambda: jp2(precinct_size=(32768, 32768)),
    "jp2-lrcp-without-plt": lambda: jp2(progression="LRCP", plt=False, irreversible=True),
    "jp2-tiled": lambda: jp2(tile_size=(300, 200), irreversible=True),
    "jpeg-420": jpeg,
    "jpeg-444": lambda: jpeg(subsampling=0),
    "jpeg-progressive": lambda: jpeg(progressive=True),
    "jpeg-grey": lambda: jpeg("L"),
    "jpeg-cmyk": lambda: jpeg("CMYK"),
    **{f"jpeg-turned-{n}": lambda n=n: turned(n) for n in (2, 3, 5, 6, 8)},  # type: ignore[misc]
    "png": lambda: by_vips("png"),
    "png-16-bits": lambda: by_vips("png", bits=16),
    "webp": lambda: by_vips("webp", Q=90),
    "avif": lambda: by_vips("avif", Q=90),
    "tiff-strips": lambda: by_vips("tif", compression="none"),
    "tiff-strips-16-bits": lambda: by_vips("tif", bits=16, compression="deflate", predictor="horizontal"),
    "tiff-strips-jpeg": lambda: by_vips("tif", compression="jpeg", Q=90),
}


def places(grid: Grid) -> list[Place]:
    return [
        Place(level, column, row)
        for level in range(grid.levels)
        for row in range(grid.rows(level))
        for column in range(grid.columns(level))
    ]


async def compared(data: bytes, folder: Path, *, most: int) -> tuple[int, list[Place]]:
    """How many tiles were looked at, and those that differ."""
    source = MemorySource({"a": data})
    masters = Masters(source)
    lanes = (*standard_lanes(1), LANE)
    async with Volume(folder, size_bytes=64 << 20) as volume, Workers(1, memory_bytes=4 << 30, lanes=lanes) as workers:
        reader = volume.reader(source)
        pixels = MasterRenderer(
            masters, workers, AdmissionController(lanes, budget_bytes=1 << 30), Encoding(), ReadLimits()
        )
        builder = PyramidBuilder(pixels, volume, reader, after=1, tile=TILE)
        master = await masters.find("a")
        grid = Grid(master.layout.size, TILE)
        chosen = places(grid)
        if len(chosen) > most:
            chosen = random.Random(len(data)).sample(chosen, most)
        straight: dict[Place, bytes] = {}
        for place in chosen:
            box = grid.box(place.level, Box(place.column, place.row, 1, 1))
            job = Job(box, grid.shown(place.level, box), False, 0.0, "default", "jpg")
            straight[place] = await pixels.render(master, job, reader, lane="tile", deadline=Deadline.after(60))
        builder.count_tiles(master)
        while builder.busy:  # noqa: ASYNC110  it is made by a task of its own
            await asyncio.sleep(0.02)
        parts = await volume.pyramids.find(master.blob, builder.name)
        assert parts is not None, "it has a pyramid"
        index = await read_index(parts, grid)
        different: list[Place] = []
        for place, wanted in straight.items():
            box = grid.box(place.level, Box(place.column, place.row, 1, 1))
            span = index.find(box, grid.shown(place.level, box), whole_part_before=parts.before)
            assert span is not None
            if parts.read(span) != wanted:
                different.append(place)
    return len(straight), different


@pytest.mark.parametrize("name", MADE)
async def test_tiles_are_the_same_before_and_after(tmp_path: Path, name: str) -> None:
    count, different = await compared(MADE[name](), tmp_path, most=SAMPLE)
    assert count == SAMPLE
    assert different == []


@pytest.mark.long
@pytest.mark.parametrize("name", MADE)
async def test_all_tiles_are_the_same_before_and_after(tmp_path: Path, name: str) -> None:
    count, different = await compared(MADE[name](), tmp_path, most=10_000)
    print(f"{name}: {count} tiles")
    assert different == []
