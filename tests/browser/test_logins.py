"""Logging in by the IIIF Authentication API 1.0, in the viewers that speak it, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, TimeoutError, expect  # noqa: A004

from tests.conftest import Serve
from tests.support import npm
from tests.support.live import MASTERS
from tests.support.logins import SECRET, login_page, token
from tests.support.sites import site

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not npm.NPM, reason="npm, which fetches the viewers, is not installed"),
]
WITHIN_S = 60.0
MIRADOR = """<!DOCTYPE html><meta charset=utf-8>
<style>html,body,#m{margin:0;width:100%;height:100%}</style><div id=m></div>
<script src="package/dist/mirador.min.js"></script><script>
const manifestId = new URL("manifest.json", location).href;
Mirador.viewer({id: "m", windows: [{manifestId}], workspaceControlPanel: {enabled: false}});
</script>"""
UNIVERSAL_VIEWER = """<!DOCTYPE html><meta charset=utf-8><link rel=stylesheet href="package/dist/uv.css">
<style>html,body{margin:0;height:100%}#uv{width:1200px;height:760px}</style><div class=uv id=uv></div>
<script src="package/dist/umd/UV.js"></script><script>
const data = {manifest: new URL("manifest.json", location).href, embedded: false};
addEventListener("DOMContentLoaded", () => {
  uv = UV.init("uv", data);
});
</script>"""
RESTRICT = Path(__file__).parents[2] / "special/docs/restrict.md"
PAGES = {"mirador": MIRADOR, "universalviewer": UNIVERSAL_VIEWER}


def manifest(address: str, images: list[str], version: int) -> dict[str, Any]:
    """By Presentation API 2 or 3, with image services of the same version."""
    make = {2: _canvas_2, 3: _canvas_3}[version]
    canvases = [make(f"{address}/{number}", image) for number, image in enumerate(images)]
    context = f"http://iiif.io/api/presentation/{version}/context.json"
    if version == 3:
        return {"@context": context, "id": address, "type": "Manifest", "label": {"none": ["Two"]}, "items": canvases}
    sequence = {"@type": "sc:Sequence", "canvases": canvases}
    return {"@context": context, "@id": address, "@type": "sc:Manifest", "label": "Two", "sequences": [sequence]}


SIZE = {"width": 1600, "height": 1200}


def _canvas_3(name: str, image: str) -> dict[str, Any]:
    service = {"id": image, "type": "ImageService3", "profile": "level2"}
    picture = {"id": f"{image}/full/max/0/default.jpg", "type": "Image", "format": "image/jpeg", "service": [service]}
    painting = {"id": f"{name}/a", "type": "Annotation", "motivation": "painting", "target": name}
    page = {"id": f"{name}/p", "type": "AnnotationPage", "items": [painting | {"body": picture | SIZE}]}
    return {"id": name, "type": "Canvas", "label": {"none": ["1"]}, "items": [page], **SIZE}


def _canvas_2(name: str, image: str) -> dict[str, Any]:
    service = {"@context": "http://iiif.io/api/image/2/context.json", "@id": image}
    service["profile"] = "http://iiif.io/api/image/2/level2.json"
    picture = {"@id": f"{image}/full/full/0/default.jpg", "@type": "dctypes:Image", "service": service, **SIZE}
    painting = {"@id": f"{name}/a", "@type": "oa:Annotation", "motivation": "sc:painting", "on": name}
    return {"@id": name, "@type": "sc:Canvas", "label": "1", "images": [painting | {"resource": picture}], **SIZE}


RULES = """
[[rules]]
identifiers = "map*"
max_unauthorised = 200
roles = ["reader"]

[[rules]]
identifiers = "moon*"
roles = ["reader"]
"""
PARTLY_OPEN, CLOSED = "map.jp2", "moon.jpg"


@pytest.fixture(scope="module")
def images(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Address of the image server by the pattern of its login; one for each pattern."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "key").write_bytes(SECRET)
    (folder / "special.toml").write_text(RULES)
    with login_page() as login:

        @cache
        def started(profile: str) -> str:
            settings = {
                "SPECIAL_JWT_KEY": str(folder / "key"),
                "SPECIAL_JWT_ALGORITHMS": "HS256",
                "SPECIAL_JWT_COOKIE": "login",
                "SPECIAL_AUTH_PROFILE": profile,
                "SPECIAL_AUTH_LOGIN_URL": login if profile == "active" else f"{login}in",
                "SPECIAL_AUTH_VERSIONS": "1,2",
            }
            return serve(MASTERS, "--config", str(folder / "special.toml"), settings=settings).url

        yield started


@dataclass(slots=True)
class Opened:
    """A viewer that shows a manifest, and what it was answered."""

    page: Page
    pictures: list[tuple[str, int]] = field(default_factory=list)
    """Path and status of each picture."""
    errors: list[str] = field(default_factory=list)

    def wait_for_tiles(self, image: str, within_s: float = WITHIN_S) -> None:
        """Until a part of the image was answered: those who are not logged in get none."""
        tile = re.compile(rf"/iiif/[23]/{image}/\d+,\d+,\d+,\d+/")
        deadline = monotonic() + within_s
        while not any(tile.match(path) and status == 200 for path, status in self.pictures):
            assert monotonic() < deadline, f"no tile of {image} among {self.pictures}"
            self.page.wait_for_timeout(100)


@pytest.fixture
def show(images: Callable[[str], str], browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a viewer (name and version of an npm package) with a manifest of images."""
    with ExitStack() as stack:

        def opened(
            viewer: str,
            release: str,
            *names: str,
            version: int = 3,
            profile: str = "active",
            cookie: bool = False,
            same_origin: bool = False,
            page: str | None = None,
        ) -> Opened:
            server, content = images(profile), {"package": npm.package(viewer, release), "": page or PAGES[viewer]}
            # Another origin, and the same site: without that no browser sends the cookie from a frame.
            where = stack.enter_context(site(content)).replace("localhost", "127.0.0.1")
            addresses = [f"{server}/iiif/{version}/{name}" for name in names]
            browsing = browser.new_context(viewport={"width": 1200, "height": 800})
            stack.callback(browsing.close)
            if same_origin:
                where = f"{server}/viewer"
                browsing.route(f"{where}/**", partial(fulfil, content, "/viewer/"))
            content["manifest.json"] = json.dumps(manifest(f"{where}/manifest.json", addresses, version))
            if cookie:
                browsing.add_cookies([{"name": "login", "value": token("reader"), "url": server}])
            page = browsing.new_page()
            page.set_default_timeout(1000 * WITHIN_S)
            seen = Opened(page)
            page.on("pageerror", lambda error: seen.errors.append(str(error)))
            page.on(
                "response",
                lambda it: (
                    it.request.resource_type == "image"
                    and seen.pictures.append((it.url.removeprefix(server), it.status))
                ),
            )
            page.goto(f"{where}/")
            return seen

        yield opened


def fulfil(content: Mapping[str, str | Path], below: str, route: Route) -> None:
    """As a proxy does that has a viewer and the image server behind one host name."""
    name = urlsplit(route.request.url).path.removeprefix(below)
    page, folder = content.get(name), content["package"]
    assert isinstance(folder, Path)
    if isinstance(page, str):
        route.fulfill(body=page, content_type="application/json" if name else "text/html")
    else:
        route.fulfill(path=folder / name.removeprefix("package/"))


def log_in(seen: Opened, *buttons: str) -> None:
    """Press these, of which the last one opens the login page; log in there."""
    *before, last = buttons
    for text in before:
        seen.page.get_by_text(text, exact=True).last.click()
    window = pressed(seen.page, last)
    with window.expect_event("close"):
        window.get_by_role("button", name="I am a reader").click()


def pressed(page: Page, text: str) -> Page:
    """The window that a button opens. A viewer that is still drawing loses a click, which is then done again."""
    for _ in range(3):
        with suppress(TimeoutError):
            with page.expect_popup(timeout=20_000) as opened:
                page.get_by_text(text, exact=True).last.click()
            return opened.value
    raise AssertionError(f"'{text}' opens no window")


def turn(seen: Opened, item: str, back: str, image: str) -> None:
    """Turn to an image by a button, and again by way of the one before where the viewer lost that."""
    button, other = (seen.page.get_by_role("button", name=name) for name in (item, back))
    for _ in range(3):
        if not button.is_enabled():
            other.click()
        button.click()
        with suppress(AssertionError):
            seen.wait_for_tiles(image, WITHIN_S / 3)
            return
    raise AssertionError(f"no tile of {image} among {seen.pictures}")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", [PARTLY_OPEN, CLOSED])
def test_mirador_3(show: Callable[..., Opened], name: str, version: int) -> None:
    seen = show("mirador", "3.4.3", name, version=version)
    log_in(seen, "Continue", "Log in")
    seen.wait_for_tiles(name)
    assert seen.errors == []


@pytest.mark.parametrize("names", [(PARTLY_OPEN, CLOSED), (CLOSED, PARTLY_OPEN)])
def test_mirador_4(show: Callable[..., Opened], names: tuple[str, str]) -> None:
    """Version 4.0.0 leaves the canvas as it is after the login, and shows those that are turned to from then on."""
    seen = show("mirador", "4.0.0", *names)
    log_in(seen, "Continue", "Log in")
    expect(seen.page.get_by_text("Continue", exact=True)).to_have_count(0)
    turn(seen, "Next item", "Previous item", names[1])
    turn(seen, "Previous item", "Next item", names[0])
    assert seen.errors == []


def test_mirador_finds_a_login_from_elsewhere_by_itself(show: Callable[..., Opened]) -> None:
    """The pattern `external`: nothing is pressed."""
    seen = show("mirador", "3.4.3", CLOSED, profile="external", cookie=True)
    seen.wait_for_tiles(CLOSED)


def test_a_stranger_sees_the_lower_tier(show: Callable[..., Opened]) -> None:
    seen = show("mirador", "3.4.3", PARTLY_OPEN)
    expect(seen.page.get_by_text("Continue", exact=True)).to_be_visible()
    seen.page.wait_for_timeout(500)
    assert seen.pictures
    assert {(path.startswith("/auth/open/iiif/3/map.jp2/full/"), status) for path, status in seen.pictures} == {
        (True, 200)
    }


def test_universal_viewer_of_the_same_origin(show: Callable[..., Opened]) -> None:
    seen = show("universalviewer", "4.4.0", PARTLY_OPEN, version=2, same_origin=True)
    log_in(seen, "Log in")
    seen.wait_for_tiles(PARTLY_OPEN)


@pytest.mark.parametrize(("name", "version"), [(PARTLY_OPEN, 2), (PARTLY_OPEN, 3), (CLOSED, 3)])
def test_universal_viewer_of_another_origin_whose_page_lets_it_send_cookies(
    show: Callable[..., Opened], name: str, version: int
) -> None:
    (told,) = re.findall(r"```js\n(.*?)```", RESTRICT.read_text("utf-8"), re.DOTALL)
    page = UNIVERSAL_VIEWER.replace('  uv = UV.init("uv", data);\n', told)
    assert page != UNIVERSAL_VIEWER
    seen = show("universalviewer", "4.4.0", name, version=version, page=page)
    log_in(seen, "Log in")
    seen.wait_for_tiles(name)
