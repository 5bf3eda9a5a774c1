"""Programs that know nothing of object stores read masters out of a mount: libvips by path, iipsrv by HTTP."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.bench.bench import Absent
from tests.bench.peers import iipsrv
from tests.mount.conftest import Shop
from tests.support.live import MASTERS
from tests.support.mounts import LiveMount

pytestmark = pytest.mark.service

NAMES = sorted(path.name for path in MASTERS.iterdir() if path.suffix != ".jp2")
LIBVIPS = """
import hashlib, sys, pyvips
for path in sys.argv[1:]:
    image = pyvips.Image.new_from_file(path, access="random", fail_on="error")
    print(hashlib.sha256(image.write_to_memory()).hexdigest())
"""


@pytest.fixture(scope="module")
def masters(shop: Shop, live: LiveMount) -> Path:
    for path in MASTERS.iterdir():
        shop.put(f"masters/{path.name}", path.read_bytes())
    return live.directory / "masters"


def pixels(folder: Path) -> list[str]:
    """By libvips, in a process of its own: which reads and maps files as it likes."""
    command = [sys.executable, "-c", LIBVIPS, *(folder / name for name in NAMES)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_libvips_reads_masters_by_path(masters: Path) -> None:
    assert pixels(masters) == pixels(MASTERS)


def test_iipsrv_reads_masters_unchanged(masters: Path, tmp_path: Path) -> None:
    request = "0,0,256,256/256,/0/default.jpg"
    try:
        with iipsrv(tmp_path / "mounted", masters) as ours, iipsrv(tmp_path / "local", MASTERS) as theirs:
            for name in ("herbarium.tif", "map.jp2", "stars.tif"):
                mine, local = (httpx.get(f"{front.url}/iiif/{name}/{request}") for front in (ours, theirs))
                assert mine.status_code == local.status_code == 200
                assert mine.content == local.content
                assert Image.open(io.BytesIO(mine.content)).size == (256, 256)
    except Absent as absent:
        pytest.skip(str(absent))
