"""Released viewers in Chromium: what is on the screen is the picture, whole and zoomed, and no request is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image
from playwright.sync_api import Page, Response

from tests.browser.viewers import VIEWERS, Viewer
from tests.conftest import Serve
from tests.support import npm
from tests.support.live import LiveServer
from tests.support.nginx import BELOW_A_PATH, certify, needs_nginx, nginx
from tests.support.seen import Seen, draw
from tests.support.servers import POLL_S, READY_WITHIN_S
from tests.support.sites import site
from tests.support.varnish import VARNISH, varnish

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(npm.NPM is None, reason="npm, which fetches the viewers, is not installed"),
]
WIDTH, HEIGHT = 2400, 1600
WITHIN_S = 90.0
"""A busy machine is slow, not wrong."""
BY_NAME = {viewer.name: viewer for viewer in VIEWERS}
EVERY_VIEWER = pytest.mark.parametrize("viewer", VIEWERS, ids=BY_NAME)


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same picture as JPEG and as tiled TIFF."""
    folder = tmp_path_factory.mktemp("masters") / "some pictures"
    folder.mkdir()
    draw(folder / "1.jpg", WIDTH, HEIGHT)
    with Image.open(folder / "1.jpg") as picture:
        tifffile.imwrite(folder / "2.tif", np.asarray(picture), tile=(256, 256), photometric="rgb")
    return folder.parent


@pytest.fixture(scope="module")
def derived(serve: Serve, masters: Path, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """A server of them behind proxies, with as many stored sizes as levels of tiles: what `derive` makes by itself."""
    thumbs = tmp_path_factory.mktemp("thumbs")
    command = [sys.executable, "-m", "special", "derive", str(masters), "--thumbs", str(thumbs)]
    subprocess.run(command, check=True, capture_output=True)
    return serve(masters, "--thumbs", str(thumbs), settings={"SPECIAL_TRUSTED_PROXIES": "127.0.0.1"})


@pytest.fixture
def answers(page: Page) -> list[Response]:
    """Everything that came back from an image server."""
    found: list[Response] = []
    page.set_viewport_size({"width": 1000, "height": 900})
    page.on("response", lambda it: found.append(it) if "/iiif/" in it.url or "/thumbs/" in it.url else None)
    return found


@pytest.fixture
def show(page: Page) -> Iterator[Callable[[Viewer, str], None]]:
    """Opens a manifest or an info.json in a viewer on another site."""
    content: dict[str, str | Path] = {}
    with site(content) as at:

        def show(viewer: Viewer, of: str) -> None:
            content.update(viewer.content())
            page.goto(f"{at}/{viewer.name}?of={quote(of, safe='')}")

        yield show


def seen(
    page: Page, wanted: Callable[[Seen], bool], *, size: tuple[int, int] = (WIDTH, HEIGHT), canvas: str = "body"
) -> Seen | None:
    """What an element of the page shows, as soon as it is what is wanted."""
    element = page.locator(canvas)
    element.wait_for(timeout=WITHIN_S * 1000)
    until = monotonic() + WITHIN_S
    while True:
        page.wait_for_timeout(250)
        shown = Seen.of(page.screenshot(clip=element.bounding_box()), *size)
        if (shown is not None and shown.is_right and wanted(shown)) or monotonic() > until:
            return shown


def zoom(page: Page, viewer: Viewer) -> None:
    box = page.locator(viewer.canvas).bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    for _ in range(8):
        if viewer.zooms_by == "wheel":
            page.mouse.wheel(0, -300)
        else:
            page.mouse.click(*middle)
        page.wait_for_timeout(250)


def check(page: Page, answers: list[Response], viewer: Viewer) -> None:
    """The picture is whole and right, and after zooming in right and sharp; nothing was refused on the way."""
    home = seen(page, lambda it: it.is_whole, canvas=viewer.canvas)
    assert home is not None, "there is no picture"
    assert (home.is_right, home.is_whole) == (True, True), home
    zoom(page, viewer)
    near = seen(page, lambda it: it.scale > 0.9 and it.contrast > 0.6, canvas=viewer.canvas)
    assert near is not None, "the picture is gone"
    assert near.is_right, near
    assert near.scale > 0.9, near
    assert near.contrast > 0.6, near
    assert [(it.status, it.url) for it in answers if it.status >= 400] == []
    assert any(not it.url.endswith(".json") and "/full/" not in it.url for it in answers), "no tile was asked for"


def address(server: str, viewer: Viewer, *, version: int = 3) -> str:
    """What a viewer opens: the manifest of the folder, or the info.json of its first image."""
    if viewer.opens == "manifest":
        return f"{server}/iiif/manifest/some%20pictures/"
    return f"{server}/iiif/{version}/some%20pictures%2F1.jpg/info.json"


@EVERY_VIEWER
def test_the_picture_is_right_whole_and_zoomed(
    viewer: Viewer, derived: LiveServer, page: Page, show: Callable[[Viewer, str], None], answers: list[Response]
) -> None:
    show(viewer, address(derived.url, viewer))
    check(page, answers, viewer)


@pytest.mark.long
@pytest.mark.parametrize("name", ["1.jpg", "2.tif"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("stored", [True, False], ids=["derived", "nothing stored"])
@pytest.mark.parametrize("viewer", [it for it in VIEWERS if it.opens == "info"], ids=lambda it: it.name)
def test_image_services_of_both_versions(
    viewer: Viewer,
    version: int,
    name: str,
    stored: bool,
    derived: LiveServer,
    serve: Serve,
    masters: Path,
    page: Page,
    show: Callable[[Viewer, str], None],
    answers: list[Response],
) -> None:
    server = derived if stored else serve(masters)
    show(viewer, f"{server.url}/iiif/{version}/some%20pictures%2F{name}/info.json")
    check(page, answers, viewer)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["openseadragon-5.0.1", "openseadragon-6.1.1"])
def test_stored_sizes_alone_are_shown(
    name: str,
    version: int,
    derived: LiveServer,
    page: Page,
    show: Callable[[Viewer, str], None],
    answers: list[Response],
) -> None:
    """`/thumbs/` is at level 0: the largest size is as sharp as it gets."""
    show(BY_NAME[name], f"{derived.url}/thumbs/v{version}/some%20pictures%2F1.jpg/info.json")
    size = 1024, 683
    home = seen(page, lambda it: it.is_whole, size=size)
    assert home is not None, "there is no picture"
    assert (home.is_right, home.is_whole) == (True, True), home
    assert [(it.status, it.url) for it in answers if it.status >= 400] == []
    assert all(it.url.endswith(".json") or "/full/" in it.url for it in answers)


@pytest.mark.long
@pytest.mark.parametrize("viewer", [it for it in VIEWERS if it.package != "leaflet-iiif"], ids=lambda it: it.name)
def test_a_restricted_picture_is_shown_as_large_as_allowed(
    viewer: Viewer,
    serve: Serve,
    masters: Path,
    tmp_path: Path,
    page: Page,
    show: Callable[[Viewer, str], None],
    answers: list[Response],
) -> None:
    """At level 0, which Leaflet-IIIF does not know: it asks for tiles, all of which are refused."""
    (tmp_path / "special.toml").write_text('[[rules]]\nidentifiers = "*"\nmax_unauthorised = 800\nroles = ["reader"]\n')
    show(viewer, address(serve(masters, "--config", str(tmp_path / "special.toml")).url, viewer))
    home = seen(page, lambda it: it.is_whole, canvas=viewer.canvas)
    assert home is not None, "there is no picture"
    assert (home.is_right, home.is_whole) == (True, True), home
    assert [(it.status, it.url) for it in answers if it.status >= 400] == []


# Behind proxies


@pytest.fixture(scope="module")
def proxied(derived: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server by HTTPS, below a path."""
    folder = tmp_path_factory.mktemp("nginx")
    certify(folder)
    with nginx(BELOW_A_PATH, folder, [urlsplit(derived.url).netloc]) as at:
        yield f"{at}/images"


@needs_nginx
@pytest.mark.parametrize("name", ["openseadragon-5.0.1", "mirador-4.0.0"])
def test_behind_nginx_with_tls_and_http_2_below_a_path(
    name: str, proxied: str, page: Page, show: Callable[[Viewer, str], None], answers: list[Response]
) -> None:
    show(BY_NAME[name], address(proxied, BY_NAME[name]))
    check(page, answers, BY_NAME[name])
    assert all(it.url.startswith(f"{proxied}/iiif/") for it in answers)
    fetched = page.evaluate("performance.getEntriesByType('resource').map((it) => [it.name, it.nextHopProtocol])")
    assert {protocol for url, protocol in fetched if url.startswith(proxied)} - {""} == {"h2"}


@needs_nginx
def test_the_page_works_below_a_path(proxied: str, page: Page, problems: list[str]) -> None:
    page.goto(f"{proxied}/")
    page.get_by_text("some pictures/", exact=True).click()
    page.get_by_text("1.jpg", exact=True).click()
    home = seen(page, lambda it: it.is_whole)
    assert home is not None, "there is no picture"
    assert home.is_right, home
    address = page.locator("#share li", has=page.get_by_text("Manifest", exact=True)).locator("textarea").input_value()
    assert address == f"{proxied}/iiif/manifest/some%20pictures%2F1.jpg"
    assert page.request.get(address).json()["id"] == address
    assert problems == []


ACCEPT = {
    "Chrome": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Firefox": "image/avif,image/jxl,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    "Safari": "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,*/*;q=0.5",
    "Edge": "image/avif,image/webp,image/*,*/*;q=0.8",
}
"""What browsers send for an <img>."""


@pytest.mark.skipif(VARNISH is None, reason="needs varnishd: apt-get install varnish")
def test_behind_varnish_one_miss_is_enough_for_four_browsers(derived: LiveServer, tmp_path: Path) -> None:
    paths = [
        f"/iiif/{address}"
        for address in (
            "some%20pictures%2F1.jpg/full/400,267/0/default.jpg",
            "3/some%20pictures%2F1.jpg/full/400,267/0/default.jpg",
            "3/some%20pictures%2F1.jpg/512,512,512,512/512,512/0/default.jpg",
            "2/some%20pictures%2F1.jpg/512,512,512,512/512,/0/default.jpg",
            "3/some%20pictures%2F1.jpg/info.json",
            "manifest/some%20pictures/",
        )
    ]
    port = urlsplit(derived.url).port
    assert port is not None
    with varnish(port, tmp_path) as at, httpx.Client(timeout=60) as client:
        until = monotonic() + READY_WITHIN_S
        while True:
            try:
                client.get(f"{at}/livez")
                break
            except httpx.TransportError:
                assert monotonic() < until, "Varnish did not start"
                sleep(POLL_S)
        for path in paths:
            said = []
            for browser, accept in ACCEPT.items():
                headers = {"User-Agent": browser, "Accept-Language": browser, "Origin": f"https://{browser}.example"}
                headers["Accept"] = "*/*" if "default" not in path else accept
                answer = client.get(f"{at}{path}", headers=headers)
                assert answer.status_code == 200
                said.append(answer.headers["x-cache"])
            assert said == ["MISS", "HIT", "HIT", "HIT"], path
