"""Masters that are valid and rare come out as the arrays that they were written from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.sweep import odd_inputs, pictures
from tests.sweep.test_sweep import SLACK, asking, said

pytestmark = pytest.mark.service

X, Y, ACROSS, DOWN = 40, 30, 60, 40
SMALL = 50


def test_each_is_shown_as_it_was_written(serve: Serve, tmp_path: Path) -> None:
    inputs = list(odd_inputs.inputs())
    for it in inputs:
        (tmp_path / it.name).write_bytes(it.data)
    with asking(serve(tmp_path, workers=1)) as client:
        for it in inputs:
            assert it.pixels is not None
            wanted = pictures.on_white(it.pixels)
            height, width, _ = wanted.shape
            info = client.get(f"/iiif/3/{it.name}/info.json")
            if info.status_code != 200:
                client.faults.append(f"{it.name} info.json: {info.status_code} {info.text.strip()}")
                continue
            exact = {"largest": it.tolerance, "mean": it.mean_tolerance}
            client.compare(it, "full/max/0/default.png", wanted, **exact)
            if width > SMALL:
                part = wanted[Y : Y + DOWN, X : X + ACROSS]
                client.compare(it, f"{X},{Y},{ACROSS},{DOWN}/max/0/default.png", part, **exact)
                small = pictures.resized(wanted, (0, 0, width, height), SMALL, round(height * SMALL / width))
                mean = it.mean_tolerance + SLACK["jpg"]
                client.compare(it, f"full/{SMALL},/0/default.jpg", small, largest=255, mean=mean)
        assert not client.faults, said(client.faults)
