"""Masters of every kind, asked for over HTTP and compared with the arrays that they were written from.

Whole, as a thumbnail, and as tiles at three scales, before and after the server has made pyramids of what is expensive.
The default is a sample of all combinations, the long form (`-m long`) 1,100 of them.
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
from tests.conftest import Serve
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
ALL = {"tiff": range(700), "jp2": range(250), "other": range(150)}
SLACK = {"png": 2.5, "jpg": 4.0}
"""Mean difference, in levels, that another filter may add to what the input allows; of JPEG, in lightness and in each
channel's mean, since its colours are coarser."""
LIGHTNESS = np.array([0.299, 0.587, 0.114])
MAX_TOLD = 20


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

    def settle(self) -> None:
        """Wait until no pyramid has been finished for two seconds."""
        before, since = -1.0, time.monotonic()
        while time.monotonic() - since < 2:
            lines = self._http.get("/metrics").text.splitlines()
            now = sum(float(line.split()[-1]) for line in lines if line.startswith("special_promotions_total"))
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.2)


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
    scale = 200 / max(width, height)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    thumbnail = pictures.resized(wanted, (0, 0, width, height), *small)
    for form, slack in SLACK.items():
        request = f"full/!200,200/0/default.{form}"
        client.compare(it, request, thumbnail, largest=255, mean=it.mean_tolerance + slack)
        check_tiles(client, it, info, form)


def check_tiles(client: Client, it: Input, info: dict[str, Any], form: str) -> None:
    """The middle tile at the first, the second and the last scale factor that info.json names."""
    assert it.pixels is not None
    wanted = pictures.on_white(it.pixels)
    height, width, _ = wanted.shape
    (grid,) = info["tiles"]
    factors = grid["scaleFactors"]
    for factor in dict.fromkeys((factors[0], factors[min(1, len(factors) - 1)], factors[-1])):
        across, down = grid["width"] * factor, grid.get("height", grid["width"]) * factor
        x, y = width // 2 // across * across, height // 2 // down * down
        box = (x, y, min(across, width - x), min(down, height - y))
        small = -(-box[2] // factor), -(-box[3] // factor)
        request = f"{','.join(map(str, box))}/{small[0]},{small[1]}/0/default.{form}"
        exact = form == "png" and factor == 1
        client.compare(
            it,
            request,
            pictures.resized(wanted, box, *small),
            largest=it.tolerance + 1 if exact else 255,
            mean=it.mean_tolerance + (0 if exact else SLACK[form]),
        )


def sweep(serve: Serve, folder: Path, numbers: dict[str, range]) -> list[str]:
    """What is wrong with the answers for all inputs."""
    inputs = written(folder, numbers)
    with asking(serve(folder, workers=1)) as client:
        for it in inputs:
            check_first(client, it)
        client.settle()
        for it in inputs:
            answer = client.get(f"/iiif/3/{it.name}/info.json")
            if answer.status_code == 200:
                check_tiles(client, it, answer.json(), "jpg")
        return client.faults


def said(faults: Sequence[str]) -> str:
    return "\n".join([f"{len(faults)} faults", *faults[:MAX_TOLD]])


def test_a_sample_of_all_kinds_comes_out_right(serve: Serve, tmp_path: Path) -> None:
    faults = sweep(serve, tmp_path, SAMPLE)
    assert not faults, said(faults)


@pytest.mark.long
def test_all_kinds_come_out_right(serve: Serve, tmp_path: Path) -> None:
    faults = sweep(serve, tmp_path, ALL)
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
