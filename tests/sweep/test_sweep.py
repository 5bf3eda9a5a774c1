"""Masters of every kind, asked for over HTTP and compared with the arrays that they were written from.

Whole, as a thumbnail, and as tiles at three scales, by every route, before and after the server has made pyramids of
what is expensive. The default is a sample of all combinations, the long form (`-m long`) 1,100 of them, 25 in a test.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pyvips
from PIL import Image

from fixtures.profiles import press as own_inks
from special import formats
from special.formats.tiff import Grid, pyramid
from tests.conftest import Serve
from tests.serving.test_published import derive
from tests.support import live
from tests.support.live import LiveServer
from tests.sweep import jp2_inputs, other_inputs, pictures, refused_inputs, tiff_inputs
from tests.sweep.pictures import Input, Real
from tests.sweep.profiles import ADOBE, GREY_18

pytestmark = pytest.mark.service

DRAWS: dict[str, Callable[[int, dict[str, bytes], bytes], Input]] = {
    "tiff": tiff_inputs.draw,
    "jp2": jp2_inputs.draw,
    "other": other_inputs.draw,
}
SAMPLE = {"tiff": range(10_000, 10_009), "jp2": range(10_000, 10_004), "other": range(10_000, 10_004)}
ALL = {"tiff": 700, "jp2": 250, "other": 150}
SLICE = 25
"""Inputs of one test of the long form, which then takes a minute or two."""
ROUTES = {"thumb", "derivative", "stream", "tile"}
PYRAMID_TILE = 512
SLACK = {"png": 2.5, "jpg": 5.0}
"""Mean difference, in levels, that another filter may add to what the input allows; of JPEG, in lightness and in each
channel's mean, since its colours are coarser. A JPEG of quality 85 that pillow makes of 19×17 pixels without a fault,
of `tiff` number 642, differs from them by 5.3 levels, as ours does; of 16×200 pixels of `jp2` number 55 by 4.7."""
TWICE_SHRUNK = 3.0
"""What is added where a JPEG was shrunk once more. Of `tiff` number 473, 1100×90, pillow alone makes 120×10 pixels that
differ by 7.3 levels if it saves 200×16 as JPEG and shrinks that; saved once, they differ by 5.6."""
LEAST_SIDE = 16
"""Of the shorter side of a picture, in pixels of a tile's scale: below, hardly anything is seen of it."""
LIGHTNESS = np.array([0.299, 0.587, 0.114])
MAX_TOLD = 20
PYRAMIDS_WITHIN_S = 200.0


def written(folder: Path, numbers: dict[str, range]) -> list[Input]:
    """Inputs in a folder."""
    press = bytes(pyvips.Image.profile_load("cmyk"))
    profiles = {"adobe": ADOBE, "grey": GREY_18, "junk": b"junk" * 50, "inks": own_inks()}
    inputs = [DRAWS[kind](number, profiles, press) for kind, run in numbers.items() for number in run]
    for it in inputs:
        (folder / it.name).write_bytes(it.data)
    return inputs


class Client:
    """Requests to a server, and what is wrong with their answers."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.routes: set[str] = set()
        """Those by which it was answered."""
        self.faults: list[str] = []

    def get(self, path: str) -> httpx.Response:
        for _ in range(20):
            answer = self._http.get(path)
            if answer.status_code != 503:
                break
            time.sleep(0.5)  # it is busy with pyramids
        return answer

    def pixels(self, it: Input, request: str) -> Real | None:
        """An answer on white, or None and a fault."""
        answer = self.get(f"/iiif/3/{it.name}/{request}")
        if answer.status_code != 200:
            self.faults.append(f"{it.name} {request}: {answer.status_code} {answer.text.strip()[:200]}")
            return None
        self.routes.add(answer.headers["x-special-route"])
        image = Image.open(io.BytesIO(answer.content))
        has_opacity = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
        return pictures.on_white(np.asarray(image.convert("RGBA" if has_opacity else "RGB")))

    def compare(self, it: Input, request: str, wanted: Real, *, largest: float, mean: float) -> None:
        got = self.pixels(it, request)
        if got is None:
            return
        if got.shape != wanted.shape:
            self.faults.append(f"{it.name} {request}: {got.shape} instead of {wanted.shape}")
            return
        difference = np.abs(got - wanted)
        if request.endswith("jpg"):
            means = np.abs(got.mean(axis=(0, 1)) - wanted.mean(axis=(0, 1)))
            difference = np.abs((got - wanted) @ LIGHTNESS).clip(min=means.max())
        if difference.max() > largest or difference.mean() > mean:
            told = f"largest difference {difference.max():.0f}, mean {difference.mean():.2f}"
            self.faults.append(f"{it.name} {request}: {told}")

    def settle(self, pyramids: int) -> None:
        """Wait until so many pyramids were made, or could not be."""
        deadline = time.monotonic() + PYRAMIDS_WITHIN_S
        while self._promotions() < pyramids:
            assert time.monotonic() < deadline, f"{self._promotions():.0f} of {pyramids} pyramids"
            time.sleep(0.2)

    def _promotions(self) -> float:
        lines = self._http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("special_promotions_total"))


@contextmanager
def asking(server: LiveServer) -> Iterator[Client]:
    with httpx.Client(base_url=server.url, timeout=120) as http:
        yield Client(http)


def check_first(client: Client, it: Input) -> None:
    """info.json, the whole, a thumbnail, and tiles."""
    assert it.pixels is not None
    wanted = pictures.on_white(it.pixels)
    height, width, _ = wanted.shape
    answer = client.get(f"/iiif/3/{it.name}/info.json")
    if answer.status_code != 200:
        client.faults.append(f"{it.name} info.json: {answer.status_code} {answer.text.strip()[:200]}")
        return
    info = answer.json()
    if (info["width"], info["height"]) != (width, height):
        client.faults.append(f"{it.name}: {info['width']}×{info['height']} instead of {width}×{height}")
        return
    client.compare(it, "full/max/0/default.png", wanted, largest=it.tolerance, mean=it.mean_tolerance)
    for form in SLACK:
        check_small(client, it, 200, form)
        check_tiles(client, it, info, form)


def check_small(client: Client, it: Input, side: int, form: str, *, more: float = 0.0) -> None:
    """The whole picture within a square; `more` is added to the mean difference that is allowed."""
    assert it.pixels is not None
    wanted = pictures.on_white(it.pixels)
    height, width, _ = wanted.shape
    scale = side / max(width, height)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    thumbnail = pictures.resized(wanted, (0, 0, width, height), *small)
    request = f"full/!{side},{side}/0/default.{form}"
    client.compare(it, request, thumbnail, largest=255, mean=it.mean_tolerance + SLACK[form] + more)


def check_tiles(client: Client, it: Input, info: dict[str, Any], form: str) -> None:
    """The middle tile at the first, the second and the last scale factor, of those that leave enough to see."""
    assert it.pixels is not None
    wanted = pictures.on_white(it.pixels)
    height, width, _ = wanted.shape
    (grid,) = info["tiles"]
    factors = [factor for factor in grid["scaleFactors"] if factor == 1 or min(width, height) >= LEAST_SIDE * factor]
    for factor in dict.fromkeys((factors[0], factors[min(1, len(factors) - 1)], factors[-1])):
        across, down = grid["width"] * factor, grid.get("height", grid["width"]) * factor
        x, y = width // 2 // across * across, height // 2 // down * down
        box = (x, y, min(across, width - x), min(down, height - y))
        small = -(-box[2] // factor), -(-box[3] // factor)
        request = f"{','.join(map(str, box))}/{small[0]},{small[1]}/0/default.{form}"
        exact = form == "png" and factor == 1
        more = pictures.half_a_pixel(wanted, box, *small) if it.is_wavelet and factor > 1 else 0.0
        client.compare(
            it,
            request,
            pictures.resized(wanted, box, *small),
            largest=it.tolerance + 1 if exact else 255,
            mean=it.mean_tolerance + (0 if exact else SLACK[form]) + more,
        )


def is_expensive(data: bytes) -> bool:
    """Whether a server makes a pyramid of a master."""
    layout = formats.solve(formats.parse(len(data)), data)
    return pyramid.is_expensive(layout, Grid(layout.size, PYRAMID_TILE))


def sweep(folder: Path, numbers: dict[str, range]) -> list[str]:
    """What is wrong with the answers for all inputs: with nothing stored; of stored renditions; and of pyramids."""
    masters, thumbs, first, second = (folder / name for name in ("masters", "thumbs", "first", "second"))
    for made in (masters, first, second):
        made.mkdir()
    inputs = written(masters, numbers)
    with live.special(masters, home=first, settings={"SPECIAL_PROMOTE_AFTER": "0"}) as server, asking(server) as client:
        for it in inputs:
            check_first(client, it)
        faults, routes = client.faults, client.routes
    derive(masters, thumbs, "--format", "jpg", "--quiet")
    options, settings = ("--thumbs", str(thumbs)), {"SPECIAL_PROMOTE_AFTER": "1"}
    with live.special(masters, *options, home=second, settings=settings) as server, asking(server) as client:
        infos = [(it, client.get(f"/iiif/3/{it.name}/info.json")) for it in inputs]
        shown = [(it, info.json()) for it, info in infos if info.status_code == 200]
        for it, info in shown:
            check_small(client, it, 200, "jpg")
            check_small(client, it, 120, "jpg", more=TWICE_SHRUNK)
            check_tiles(client, it, info, "jpg")
        client.settle(sum(is_expensive(it.data) for it, _ in shown))
        for it, info in shown:
            check_tiles(client, it, info, "jpg")
        assert routes | client.routes == ROUTES
        return faults + client.faults


def said(faults: Sequence[str]) -> str:
    return "\n".join([f"{len(faults)} faults", *faults[:MAX_TOLD]])


def test_a_sample_of_all_kinds_comes_out_right(tmp_path: Path) -> None:
    faults = sweep(tmp_path, SAMPLE)
    assert not faults, said(faults)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "first"),
    [
        pytest.param(kind, first, id=f"{kind}-{first}")
        for kind, count in ALL.items()
        for first in range(0, count, SLICE)
    ],
)
def test_all_kinds_come_out_right(kind: str, first: int, tmp_path: Path) -> None:
    faults = sweep(tmp_path, {kind: range(first, first + SLICE)})
    assert not faults, said(faults)


def test_what_is_refused_is_refused_by_name_everywhere(serve: Serve, tmp_path: Path) -> None:
    inputs = list(refused_inputs.inputs())
    for it in inputs:
        (tmp_path / it.name).write_bytes(it.data)
    with asking(serve(tmp_path, workers=1)) as client:
        for it in inputs:
            for request in ("info.json", "full/!200,200/0/default.jpg", "0,0,8,8/max/0/default.png"):
                answer = client.get(f"/iiif/3/{it.name}/{request}")
                assert answer.status_code == 422, (it.name, request, answer.text)
                assert it.refusal in answer.text, (it.name, request, answer.text)
                assert str(tmp_path) not in answer.text


def test_of_a_file_that_ends_early_the_answer_warns(serve: Serve, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(file, "JPEG")
    (tmp_path / "whole.jpg").write_bytes(file.getvalue())
    (tmp_path / "cut.jpg").write_bytes(file.getvalue()[:-2])
    with asking(serve(tmp_path, workers=1)) as client:
        for request in ("full/!200,200/0/default.jpg", "0,0,100,100/max/0/default.png", "full/!200,200/0/default.jpg"):
            assert "warning" not in client.get(f"/iiif/3/whole.jpg/{request}").headers
            answer = client.get(f"/iiif/3/cut.jpg/{request}")
            assert answer.headers["warning"] == '199 - "the JPEG has no end (EOI)"'
        assert "special_incomplete_answers_total 3.0" in client.get("/metrics").text
