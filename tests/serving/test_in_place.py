"""A folder as source is read in place: of its masters only metadata and pyramids are in the volume."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from special import composition, iiif
from special.auth import ANONYMOUS
from special.concurrency import Deadline
from special.iiif import ImageRequest
from special.settings import Settings
from special.volume import admin
from tests.support.live import MASTERS
from tests.volume.made import taken_bytes

pytestmark = pytest.mark.service  # decoders are processes

TILES = [f"{x},{y},256,256/256,/0/default.jpg" for x in (0, 256, 512) for y in (0, 256, 512)]


async def test_tiles_of_a_folder_take_no_copy_of_its_masters(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("stars.tif", "map.jp2", "herbarium.tif"):
        shutil.copy(MASTERS / name, source)
    settings = Settings(
        source=str(source), volume=tmp_path / "volume", home=tmp_path / "home", workers=1, decoders=1, promote_after=0
    )
    async with composition.engine(settings) as engine:
        for name in ("stars.tif", "map.jp2", "herbarium.tif"):
            for tile in TILES:
                request = iiif.parse(f"{name}/{tile}")
                assert isinstance(request, ImageRequest)
                planned = await engine.plan(request, version=3, identity=ANONYMOUS)
                assert planned.plan.name == "tile"
                answer = await planned.route.answer(planned, deadline=Deadline.after(60), unless=None, span=None)
                assert isinstance(answer.body, bytes)
                assert answer.body.startswith(b"\xff\xd8")
    found = admin.stat(tmp_path / "volume")
    assert found.misses == 0, "no block was stored"
    assert all(not path.stat().st_blocks for path in (tmp_path / "volume").glob("objects/*/*/data"))
    assert taken_bytes(tmp_path / "volume" / "objects") < 200_000, "of 1.2 MB of masters"
