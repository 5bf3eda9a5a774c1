"""B15: a viewer's first view of a flat master that nobody has opened before, beside one bare decode-and-tile of it."""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import httpx

from tests.bench.bench import Bench, Result
from tests.support import live
from tests.support.live import LiveServer

WIDTH, HEIGHT = 9000, 6000
VIEWPORT = 1200
"""Width of the viewer's window, in pixels."""
CONNECTIONS = 6
"""As many as browsers open to one server."""
MOST = 1.4
"""How much longer than the bare work the whole view may take."""
NAMES = ("flat.tif", "flat.jpg", "flat.png", "flat.jp2")


def run(bench: Bench) -> Iterator[Result]:
    """Each turn has a server with an empty volume, and one process that only decodes and tiles."""
    folder = bench.cache / "flat"
    for name in NAMES:
        if not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            print(f"making {name}, once …", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "tests.bench.b15_first_view", "make", str(folder / name)], check=True)
        turns = [(_view(bench, folder, name, turn), _bare(folder / name)) for turn in range(bench.repeats)]
        refused, killed = (sum(view[at] for view, _ in turns) for at in (1, 2))
        mine_s, bare_s = median(view[0] for view, _ in turns), median(bare for _, bare in turns)
        ratio = median(bare / view[0] for view, bare in turns)
        said = f"{mine_s:.2f} s, {refused} refused, {killed} decoders killed"
        reached = not refused and not killed and 1 / ratio <= MOST
        yield Result(f"first view of {name}", said, f"bare: {bare_s:.2f} s", ratio, f"≥ {1 / MOST:.2f} ×", reached)


def _view(bench: Bench, folder: Path, name: str, turn: int) -> tuple[float, int, int]:
    """Seconds of the view, requests that were not answered by 200, decoders that were killed."""
    home = bench.folder / f"home-{name}-{turn}"
    home.mkdir()
    with live.special(folder, home=home, workers=None) as server:
        start = perf_counter()
        statuses = asyncio.run(_requested(server, name))
        seconds = perf_counter() - start
        metrics = httpx.get(f"{server.url}/metrics").text
    lost = re.findall(r'special_decoder_jobs_total\{outcome="(?:timed-out|crashed)"\} ([\d.]+)', metrics)
    return seconds, sum(status != 200 for status in statuses), int(sum(map(float, lost)))


async def _requested(server: LiveServer, name: str) -> list[int]:
    """The statuses of what OpenSeadragon asks for: info.json, then each level up to that which fills the window."""
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        described = (await client.get(f"/iiif/3/{name}/info.json")).json()
        (grid,) = described["tiles"]
        asked = [
            f"/iiif/3/{name}/{tile}/0/default.jpg"
            for factor in reversed(grid["scaleFactors"])
            if described["width"] / factor <= 2 * VIEWPORT
            for tile in _tiles(described["width"], described["height"], grid["width"], factor)
        ]
        return [answer.status_code for answer in await asyncio.gather(*map(client.get, asked))]


def _tiles(width: int, height: int, side: int, factor: int) -> Iterator[str]:
    if max(width, height) <= side * factor:
        yield f"full/{math.ceil(width / factor)},{math.ceil(height / factor)}"
        return
    for y in range(0, height, side * factor):
        for x in range(0, width, side * factor):
            across, down = min(side * factor, width - x), min(side * factor, height - y)
            yield f"{x},{y},{across},{down}/{math.ceil(across / factor)},{math.ceil(down / factor)}"


def _bare(path: Path) -> float:
    """Seconds that libvips takes in a process of its own, with all its threads; JPEG 2000 is decoded by pillow."""
    command = [sys.executable, "-m", "tests.bench.b15_first_view", "tile", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _tile(path: Path) -> float:
    import tempfile

    import numpy as np
    import pyvips
    from PIL import Image

    with tempfile.TemporaryDirectory() as scratch:
        start = perf_counter()
        if path.suffix == ".jp2":
            picture = pyvips.Image.new_from_array(np.asarray(Image.open(path)))
        else:
            picture = pyvips.Image.new_from_file(str(path), access="sequential")
        picture.dzsave(f"{scratch}/tiles", tile_size=512, overlap=0, suffix=".jpg[Q=85]")
        return perf_counter() - start


def _make(path: Path) -> None:
    import pyvips
    from PIL import Image

    from tests.support.live import MASTERS

    photo = pyvips.Image.thumbnail(str(MASTERS / "mountains.jpg"), WIDTH, height=HEIGHT, size="force")
    grain = pyvips.Image.gaussnoise(WIDTH, HEIGHT, sigma=4, mean=0, seed=1)
    picture = (photo + grain).cast("uchar").copy(interpretation="srgb")
    match path.suffix:
        case ".tif":
            picture.tiffsave(str(path), compression="deflate", predictor="horizontal", keep="none")
        case ".jpg":
            picture.jpegsave(str(path), Q=90, keep="none")
        case ".png":
            picture.pngsave(str(path), compression=3, keep="none")
        case ".jp2":
            options = {"num_resolutions": 7, "irreversible": True, "quality_mode": "rates", "quality_layers": [12]}
            Image.fromarray(picture.numpy()).save(path, **options)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        _make(Path(sys.argv[2]))
    else:
        print(_tile(Path(sys.argv[2])))
