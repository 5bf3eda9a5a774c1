"""OpenSeadragon on an image with a published pyramid: a whole session, no byte of the master, no decoder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from special.web import viewer
from tests.browser.test_static import PAGE, file_server, wait_until_loaded
from tests.serving.test_published import jobs
from tests.support.live import MASTERS, LiveServer
from tests.support.servers import S3Server

pytestmark = pytest.mark.browser


def test_a_session_of_openseadragon_reads_no_master(
    page: Page, problems: list[str], seaweed_s3: S3Server, serve: Callable[..., LiveServer], tmp_path: Path
) -> None:
    masters, thumbs, name = seaweed_s3.bucket(), seaweed_s3.bucket(), "map.jp2"
    seaweed_s3.client().upload_file(str(MASTERS / name), masters, name)
    command = [sys.executable, "-m", "special", "derive", f"s3://{masters}", "--thumbs", f"s3://{thumbs}"]
    environ = os.environ | seaweed_s3.environ
    subprocess.run([*command, "--sizes", "600,200", "--pyramids"], env=environ, check=True)
    server = serve(
        f"s3://{masters}", "--thumbs", f"s3://{thumbs}", settings=seaweed_s3.environ | {"SPECIAL_ASSET_TTL_S": "3600"}
    )
    since = len(seaweed_s3.logged(masters))
    (tmp_path / viewer.LIBRARY).write_bytes(Path(viewer.__file__).with_name(viewer.LIBRARY).read_bytes())
    (tmp_path / "favicon.ico").write_bytes(b"")
    described = f"{server.url}/iiif/3/{name}/info.json"
    (tmp_path / "index.html").write_text(PAGE.format(script=viewer.LIBRARY, info=described))
    with file_server(tmp_path) as url:
        page.goto(f"{url}/index.html")
        wait_until_loaded(page)
        for x, y in ((0.2, 0.3), (0.5, 0.6), (0.9, 1.2)):
            page.evaluate(f"v.viewport.panTo(new OpenSeadragon.Point({x}, {y}), true)")
            page.evaluate("v.viewport.zoomTo(v.viewport.imageToViewportZoom(1), null, true)")
            page.wait_for_function("v.world.getItemAt(0).lastDrawn.some(it => it.tile.level === v.source.maxLevel)")
            wait_until_loaded(page)
        asked = page.evaluate("performance.getEntriesByType('resource').map(it => it.name)")
    tiles = [address for address in asked if address.endswith("default.jpg")]
    assert f"{server.url}/iiif/3/{name}/full/300,400/0/default.jpg" in tiles, "the smallest level"
    assert sum("/512,512/0/" in address for address in tiles) >= 6
    assert problems == []
    assert jobs(server) == 0
    reads = [it for it in seaweed_s3.logged(masters)[since:] if it.operation == "REST.GET.OBJECT" and it.key == name]
    assert reads == []
