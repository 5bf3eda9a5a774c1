"""The page at `/` in a real browser, on a real server of the sample masters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from special.errors import MasterError, Missing
from special.web import viewer
from tests.conftest import Serve
from tests.support import npm
from tests.support.live import MASTERS, LiveServer
from tests.support.logins import SECRET, token

pytestmark = pytest.mark.browser
SAMPLES = sorted(path.name for path in MASTERS.iterdir())


@pytest.fixture
def page(page: Page) -> Page:
    """A page whose reader has switched the costs on."""
    page.add_init_script("localStorage.costs ??= 'on'")
    return page


def wait_until_loaded(page: Page) -> None:
    """Until every tile of the view is there."""
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")


@pytest.mark.skipif(npm.NPM is None, reason="npm is not installed")
def test_the_library_is_that_of_the_npm_package():
    package = npm.package("openseadragon", viewer.LIBRARY_VERSION)
    served = Path(viewer.__file__).with_name(viewer.LIBRARY)
    assert served.read_bytes() == (package / "build" / "openseadragon" / viewer.LIBRARY).read_bytes()


def test_the_gallery_shows_every_sample_and_the_route_it_took(live_server: LiveServer, page: Page, problems: list[str]):
    page.goto(live_server.url)
    expect(page.locator("#cards li")).to_have_count(len(SAMPLES))
    assert sorted(page.locator("#cards span").all_inner_texts()) == SAMPLES
    for card in page.locator("#cards a").all():
        card.scroll_into_view_if_needed()
        expect(card).to_have_attribute("data-route", "stream")  # nothing is derived yet
    widths = page.locator("#cards img").evaluate_all(
        "all => all.map((it) => Math.max(it.naturalWidth, it.naturalHeight))"
    )
    assert set(widths) == {400}
    expect(page.locator("#legend [data-route=stream] b")).to_have_text(str(len(SAMPLES)))
    assert problems == []


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_zooms_to_full_resolution_without_a_failed_request(
    live_server: LiveServer, page: Page, problems: list[str], name: str
):
    page.goto(f"{live_server.url}/#{name}")
    wait_until_loaded(page)
    page.get_by_role("button", name="1:1").click()
    expect(page.locator("#zoom")).to_have_text("100 %")
    wait_until_loaded(page)
    asked = [row.split(" → ") for row in page.locator("#log td:nth-child(2)").all_inner_texts()]
    unscaled = [size for region, size in asked if size == "max" or region.split(",")[2:] == size.split(",")]
    assert unscaled, f"no tile at full resolution among {asked}"
    assert problems == []


def test_the_panel_adds_up_what_was_loaded(serve: Serve, page: Page):
    cold = serve(MASTERS)
    page.goto(f"{cold.url}/#map.jp2")
    wait_until_loaded(page)
    page.get_by_role("button", name="1:1").click()
    expect(page.locator("#totals [data-route=tile]")).to_be_visible()
    wait_until_loaded(page)
    routes = page.locator("#log td.route").all_inner_texts()
    totals = dict(row.split()[:2] for row in page.locator("#totals tbody tr").all_inner_texts())
    assert totals == {route: str(routes.count(route)) for route in set(routes)}
    assert set(totals) <= {"thumb", "derivative", "stream", "tile"}
    assert int(page.locator("#totals [data-route=tile] td:nth-child(3)").inner_text()) > 0  # GETs


def test_escape_leads_back_to_the_card_that_was_opened(live_server: LiveServer, page: Page):
    page.goto(live_server.url)
    page.locator("#cards").get_by_text("map.jp2", exact=True).click()
    expect(page.locator("#title")).to_have_text("map.jp2")
    assert page.url.endswith("/#map.jp2")
    page.keyboard.press("Escape")
    expect(page.locator("#gallery")).to_be_visible()
    assert page.evaluate("document.activeElement.textContent") == "map.jp2"


def test_the_filter_narrows_the_gallery_and_enter_opens_what_is_left(live_server: LiveServer, page: Page):
    page.goto(live_server.url)
    page.get_by_role("searchbox").fill("MAP")
    expect(page.locator("#cards li:visible")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("map.jp2")


def test_an_unknown_identifier_is_answered_in_the_servers_words(live_server: LiveServer, page: Page):
    page.goto(f"{live_server.url}/#no-such-image")
    expect(page.get_by_role("alert")).to_have_text(Missing.sentence)
    expect(page.locator("#cards li")).to_have_count(len(SAMPLES))


def test_a_broken_image_says_so_on_its_card_and_when_it_is_opened(serve: Serve, tmp_path: Path, page: Page):
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    page.goto(serve(tmp_path).url)
    card = page.locator("#cards a")
    expect(card.locator("p")).to_have_text(MasterError.sentence)
    expect(card).to_have_attribute("data-route", "failed")
    card.click()
    expect(page.get_by_role("alert")).to_have_text(MasterError.sentence)


def test_a_source_that_is_not_listed_opens_images_by_identifier(serve: Serve, page: Page):
    server = serve(MASTERS, settings={"SPECIAL_GALLERY": "false"})
    page.goto(server.url)
    expect(page.locator("#note")).to_contain_text("This source is not listed.")
    page.get_by_role("searchbox").fill("map.jp2")
    page.keyboard.press("Enter")
    wait_until_loaded(page)


def test_without_the_library_the_image_is_shown_whole(live_server: LiveServer, page: Page):
    page.route(f"**/{viewer.LIBRARY}", lambda route: route.abort())
    page.goto(f"{live_server.url}/#map.jp2")
    expect(page.get_by_role("alert")).to_contain_text("OpenSeadragon could not be loaded")
    expect(page.locator("#canvas img")).to_have_js_property("complete", True)
    assert page.locator("#canvas img").evaluate("(it) => Math.max(it.naturalWidth, it.naturalHeight)") == 1600


class LoginPage(BaseHTTPRequestHandler):
    """Somebody else's login page: whoever presses its button is a reader."""

    def do_GET(self) -> None:
        entered = self.path.startswith("/in")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        if entered:  # cookies know no ports: it is sent to the image server too
            self.send_header("Set-Cookie", f"login={token('reader')}; Path=/; HttpOnly; SameSite=Lax")
        self.end_headers()
        self.wfile.write(b"<script>close()</script>" if entered else b"<form action=in><button>I am a reader</button>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def login_page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), LoginPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def restricted(serve: Serve, folder: Path, login: str) -> LiveServer:
    """A server of the samples where only readers see `map.jp2` with sides of more than 200 pixels."""
    (folder / "key").write_bytes(SECRET)
    rule = '[[rules]]\nidentifiers = "map*"\nmax_unauthorised = 200\nroles = ["reader"]\n'
    (folder / "special.toml").write_text(rule)
    settings = {
        "SPECIAL_JWT_KEY": str(folder / "key"),
        "SPECIAL_JWT_ALGORITHMS": "HS256",
        "SPECIAL_JWT_COOKIE": "login",
        "SPECIAL_AUTH_PROFILE": "active",
        "SPECIAL_AUTH_LOGIN_URL": login,
    }
    return serve(MASTERS, "--config", str(folder / "special.toml"), settings=settings)


def test_a_restricted_image_is_shown_small_and_in_full_after_login(
    serve: Serve, tmp_path: Path, page: Page, problems: list[str]
):
    with login_page() as login:
        server = restricted(serve, tmp_path, login)
        page.goto(f"{server.url}/#map.jp2")
        expect(page.locator("#access")).to_contain_text("This image is restricted")
        wait_until_loaded(page)
        page.get_by_role("button", name="1:1").click()
        wait_until_loaded(page)
        asked = [row.split(" → ") for row in page.locator("#log td:nth-child(2)").all_inner_texts()]
        assert asked
        assert all(region == "full" and max(map(int, size.split(","))) <= 200 for region, size in asked)
        with page.expect_popup() as opened:
            page.get_by_role("button", name="Log in").click()
        with opened.value.expect_event("close"):
            opened.value.get_by_role("button", name="I am a reader").click()
        expect(page.locator("#shape")).to_contain_text("tiles of")
        expect(page.locator("#access")).to_be_hidden()
        wait_until_loaded(page)
        page.get_by_role("button", name="1:1").click()
        expect(page.locator("#zoom")).to_have_text("100 %")
        wait_until_loaded(page)
        asked = [row.split(" → ") for row in page.locator("#log td:nth-child(2)").all_inner_texts()]
        assert [size for region, size in asked if region.split(",")[2:] == size.split(",")], asked
    assert problems == []


def test_a_login_that_is_left_says_why_there_is_no_more_to_see(serve: Serve, tmp_path: Path, page: Page):
    with login_page() as login:
        server = restricted(serve, tmp_path, login)
        page.goto(f"{server.url}/#map.jp2")
        with page.expect_popup() as opened:
            page.get_by_role("button", name="Log in").click()
        opened.value.close()
        expect(page.get_by_role("alert")).to_have_text("No access. You are not logged in.")
