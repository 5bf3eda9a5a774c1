"""An image whose master was deleted is forgotten by command: by every process, within seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import Serve
from tests.support.live import MASTERS

pytestmark = pytest.mark.service

PATHS = (
    "/iiif/3/map.jp2/info.json",
    "/iiif/3/map.jp2/full/!100,100/0/default.jpg",
    "/iiif/3/map.jp2/0,0,256,256/256,/0/default.jpg",
    "/thumbs/map.jp2/full/!100,100/0/default.jpg",
)


def test_a_forgotten_image_is_gone_within_seconds(serve: Serve, tmp_path: Path) -> None:
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    for name in ("map.jp2", "moon.jpg"):
        shutil.copy(MASTERS / name, masters / name)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SPECIAL_")}

    def special(*arguments: str, **variables: str) -> str:
        command = [sys.executable, "-m", "special", *arguments, "--thumbs", str(thumbs)]
        return subprocess.run(
            command, env={**environ, **variables}, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    special("derive", str(masters), "--sizes", "100", "--jobs", "1")
    server = serve(
        masters, "--thumbs", str(thumbs), settings={"SPECIAL_ASSET_TTL_S": "3600", "SPECIAL_DECODERS": "1"}, workers=2
    )

    def statuses(paths: tuple[str, ...] = PATHS) -> list[int]:
        return [httpx.get(f"{server.url}{path}", timeout=60).status_code for path in paths]

    for _ in range(4):  # a connection each: both processes know it
        assert statuses() == [200] * 4
    (masters / "map.jp2").unlink()
    assert statuses(PATHS[:2]) == [200, 200]  # for as long as it is believed
    said = special("forget", "map.jp2", "--source", str(masters), SPECIAL_HOME=str(server.home))
    assert said.startswith("removed: map.jp2: 1 renditions removed, ")
    assert [path.name for path in thumbs.iterdir() if any(path.rglob("*.*"))] == ["moon.jpg"]

    def is_in_volume() -> bool:
        return any(b"map.jp2" in path.read_bytes() for path in (server.home / "volume").rglob("map"))

    deadline = time.monotonic() + 30
    while (statuses() != [404] * 4 or is_in_volume()) and time.monotonic() < deadline:
        time.sleep(0.5)
    for _ in range(4):
        assert statuses() == [404] * 4
    assert not is_in_volume()
    assert statuses(("/iiif/3/moon.jpg/full/100,/0/default.jpg",)) == [200]
