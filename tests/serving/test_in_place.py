"""A folder of the machine is read in place: of its masters only metadata and pyramids are in the volume."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from special import composition, iiif
from special.auth import ANONYMOUS
from special.concurrency import Deadline
from special.iiif import ImageRequest
from special.settings import Settings
from special.volume import admin
from tests.support.live import MASTERS
from tests.support.servers import S3Server
from tests.volume.made import taken_bytes

pytestmark = pytest.mark.service  # decoders are processes

NAMES = ("stars.tif", "map.jp2", "herbarium.tif")
TILES = [f"{x},{y},256,256/256,/0/default.jpg" for x in (0, 256, 512) for y in (0, 256, 512)]


async def view(settings: Settings) -> None:
    """Have all tiles made."""
    async with composition.engine(settings) as engine:
        for name in NAMES:
            for tile in TILES:
                request = iiif.parse(f"{name}/{tile}")
                assert isinstance(request, ImageRequest)
                planned = await engine.plan(request, version=3, identity=ANONYMOUS)
                assert planned.plan.name == "tile"
                answer = await planned.route.answer(planned, deadline=Deadline.after(60), unless=None, span=None)
                assert isinstance(answer.body, bytes)
                assert answer.body.startswith(b"\xff\xd8")


async def test_tiles_of_a_folder_take_no_copy_of_its_masters(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in NAMES:
        shutil.copy(MASTERS / name, source)
    await view(
        Settings(
            source=str(source),
            volume=tmp_path / "volume",
            home=tmp_path / "home",
            workers=1,
            decoders=1,
            promote_after=0,
        )
    )
    found = admin.stat(tmp_path / "volume")
    assert found.misses == 0, "no block was stored"
    assert all(not path.stat().st_blocks for path in (tmp_path / "volume").glob("objects/*/*/data"))
    assert taken_bytes(tmp_path / "volume" / "objects") < 200_000, "of 1.2 MB of masters"


async def test_a_folder_beside_a_bucket_is_read_in_place_and_the_bucket_through_the_volume(
    tmp_path: Path, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    bucket, folder = moto_s3.bucket(), tmp_path / "folder"
    folder.mkdir()
    moto_s3.client().upload_file(str(MASTERS / "map.jp2"), bucket, "map.jp2")
    for name in ("stars.tif", "herbarium.tif"):
        shutil.copy(MASTERS / name, folder)
    await view(
        Settings(
            source=f"s3://{bucket}",
            sources=[{"url": str(folder)}],
            volume=tmp_path / "volume",
            home=tmp_path / "home",
            workers=1,
            decoders=1,
            promote_after=0,
        )
    )
    found = admin.stat(tmp_path / "volume", top=10)
    assert found.misses > 0
    stored = {urlsplit(entry.url.partition(" ")[2] or entry.url).scheme for entry in found.top if entry.misses}
    assert stored == {"s3"}
    held = sum(path.stat().st_blocks * 512 for path in (tmp_path / "volume").glob("objects/*/*/data"))
    assert 0 < held <= (MASTERS / "map.jp2").stat().st_size + 65536
