"""A static tile set: OpenSeadragon opens it from a plain file server, to full resolution, without a failed request."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page

from special.web import viewer
from tests.support.live import MASTERS

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><script src="{script}"></script><div id="v" style="width:900px;height:700px"></div><script>
const v = OpenSeadragon({{element: document.getElementById("v"), tileSources: "{info}", showNavigationControl: false,
  drawer: "canvas"}});
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    """Python's own file server."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def wait_until_loaded(page: Page) -> None:
    """Until every tile of the view is there."""
    page.wait_for_function("v.world.getItemCount() === 1 && v.world.getItemAt(0).getFullyLoaded()", timeout=30_000)


@pytest.mark.parametrize(("name", "middle"), [("map.jp2", "1024,1536"), ("seafloor.png", "512,0")])
def test_openseadragon_opens_a_static_set(
    page: Page, problems: list[str], tmp_path: Path, name: str, middle: str
) -> None:
    library = Path(viewer.__file__).with_name(viewer.LIBRARY)
    with file_server(tmp_path) as url:
        command = [sys.executable, "-m", "special", "derive", str(MASTERS), name, "--thumbs", str(tmp_path / "thumbs")]
        environ = os.environ | {"SPECIAL_BASE_URL": url}
        subprocess.run([*command, "--sizes", "200", "--static", str(tmp_path)], env=environ, check=True)
        (tmp_path / viewer.LIBRARY).write_bytes(library.read_bytes())
        (tmp_path / "favicon.ico").write_bytes(b"")
        (tmp_path / "index.html").write_text(PAGE.format(script=viewer.LIBRARY, info=f"{url}/{name}/info.json"))
        page.goto(f"{url}/index.html")
        wait_until_loaded(page)
        page.evaluate("v.viewport.zoomTo(v.viewport.imageToViewportZoom(1), null, true)")
        full = f"{url}/{name}/{middle},512,512/512,512/0/default.jpg"
        page.wait_for_function(f"performance.getEntriesByName('{full}').length > 0", timeout=30_000)
        wait_until_loaded(page)
    assert problems == []
