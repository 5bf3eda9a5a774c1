"""The page at `/status` in a real browser, on a real server that has answered by every route."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from special.geometry import Size, to_fit
from tests.conftest import Serve
from tests.support.live import MASTERS, LiveServer

pytestmark = pytest.mark.browser
REQUESTS = (
    ("stars.tif", "full/!200,200/0/default.jpg", "thumb"),
    ("stars.tif", "full/!90,90/0/default.jpg", "derivative"),
    ("map.jp2", "full/!300,300/0/default.jpg", "stream"),
    ("herbarium.tif", "0,0,300,300/200,/0/default.jpg", "tile"),
    ("herbarium.tif", "300,300,300,300/200,/0/default.jpg", "tile"),
)


@pytest.fixture(scope="module")
def busy(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """A server that has something to tell."""
    thumbs = tmp_path_factory.mktemp("thumbs")
    stored = io.BytesIO()
    with Image.open(MASTERS / "stars.tif") as master:
        size = to_fit(Size(*master.size), Size(200, 200))
    Image.new("RGB", (size.width, size.height)).save(stored, "JPEG")
    (thumbs / "stars.tif" / "open").mkdir(parents=True)
    (thumbs / "stars.tif" / "open" / "200.jpg").write_bytes(stored.getvalue())
    (thumbs / "stars.tif" / "s.json").write_text(json.dumps({"o": [[size.width, size.height]], "a": []}))
    server = serve(MASTERS, "--thumbs", str(thumbs), settings={"SPECIAL_STATUS": "true"})
    for name, request, route in REQUESTS:
        answer = httpx.get(f"{server.url}/iiif/3/{name}/{request}", timeout=60)
        assert (answer.status_code, answer.headers["x-special-route"]) == (200, route)
    return server


def test_the_page_draws_every_figure_without_a_complaint(busy: LiveServer, browser: Browser) -> None:
    problems: list[str] = []
    page: Page = browser.new_page(viewport={"width": 1360, "height": 1000})
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"{request.url}: {request.failure}"))
    page.goto(f"{busy.url}/status")
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    ways = page.locator("#routes article").all()
    assert {way.get_attribute("data-route"): way.locator("p").first.inner_text() for way in ways} == {
        "thumb": "1 answers",
        "derivative": "1 answers",
        "stream": "1 answers",
        "tile": "2 answers",
    }
    assert page.locator("#routes [data-route=tile] rect").count() > 10
    rows = page.locator("#slowest tr").all()
    assert sorted(row.locator("td.route").inner_text() for row in rows) == sorted(route for *_, route in REQUESTS)
    assert {row.locator("td.path").inner_text() for row in rows} == {f"/iiif/3/{name}/{it}" for name, it, _ in REQUESTS}
    expect(page.locator("#good")).to_have_text("100 %")
    expect(page.locator("#about")).to_contain_text(str(MASTERS))
    # Two answers later there is a rate to draw.
    expect(page.locator("#flow path[d^=M]").first).to_be_attached()
    httpx.get(f"{busy.url}/iiif/3/map.jp2/full/!301,301/0/default.jpg", timeout=60)
    expect(page.locator("#routes [data-route=stream]")).to_contain_text("2 answers")
    assert problems == []
    page.close()


def test_a_server_that_is_gone_is_said_to_be(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    server = serve(MASTERS, settings={"SPECIAL_STATUS": "true"})
    page = browser.new_page()
    page.goto(f"{server.url}/status")
    expect(page.locator("#pulse")).to_contain_text("as of")
    server.process.terminate()
    expect(page.locator("#pulse")).to_contain_text("no figures")
    page.close()
