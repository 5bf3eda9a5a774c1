"""The page at `/` in a real browser, on a real server of the sample masters."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from special.errors import Missing
from special.web import viewer
from tests.conftest import Serve
from tests.support import npm
from tests.support.live import MASTERS, LiveServer
from tests.support.logins import SECRET, login_page
from tests.support.sites import site

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
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


def write(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (900, 600), (40 * number, 99, 99)).save(folder / name)


@pytest.fixture(scope="module")
def derived(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """Folders of images of which `derive` has made its sizes, with files that are none."""
    masters = tmp_path_factory.mktemp("derived")
    write(masters, "a.jpg", "b.jpg", "maps/map 1.jpg", "maps/old/oldest.jpg")
    for name in (".DS_Store", "Thumbs.db", "notes.xml", "maps/.DS_Store"):
        (masters / name).write_bytes(b"no picture")
    thumbs = tmp_path_factory.mktemp("thumbs")
    command = [sys.executable, "-m", "special", "derive", str(masters), "--thumbs", str(thumbs)]
    subprocess.run(command, check=True, capture_output=True)
    return serve(masters, "--thumbs", str(thumbs))


def test_the_gallery_shows_folders_and_what_derive_made_and_no_other_files(
    derived: LiveServer, page: Page, problems: list[str]
):
    page.goto(derived.url)
    expect(page.locator("#cards span")).to_have_text(["maps/", "a.jpg", "b.jpg"])
    expect(page.locator("#cards [data-route=thumb]")).to_have_count(2)
    expect(page.locator("#progress")).to_be_hidden()
    page.get_by_text("maps/", exact=True).click()
    expect(page.locator("#cards span")).to_have_text(["old/", "map 1.jpg"])
    page.get_by_text("old/", exact=True).click()
    page.get_by_text("oldest.jpg", exact=True).click()
    expect(page.locator("#title")).to_have_text("maps/old/oldest.jpg")
    page.keyboard.press("Escape")
    expect(page.locator("#cards span")).to_have_text(["oldest.jpg"])
    page.locator("#place").get_by_text("maps", exact=True).click()
    expect(page.locator("#cards span")).to_have_text(["old/", "map 1.jpg"])
    manifest = page.request.get(page.get_by_text("IIIF manifest").evaluate("(it) => it.href"))
    assert manifest.json()["label"] == {"none": ["maps"]}
    assert problems == []


def test_costs_are_shown_to_those_who_want_to_see_them(derived: LiveServer, page: Page):
    page.goto(f"{derived.url}/#a.jpg")
    switch = page.get_by_role("switch", name="Costs")
    expect(page.locator("#legend")).to_contain_text("thumb: stored, sent as it is")
    switch.uncheck()
    for selector in ("#legend", "#totals", "#log"):
        expect(page.locator(selector)).to_be_hidden()
    page.reload()
    expect(switch).not_to_be_checked()
    expect(page.locator("#legend")).to_be_hidden()


def test_a_phone_has_two_columns(derived: LiveServer, page: Page):
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(derived.url)
    expect(page.locator("#cards li")).to_have_count(3)
    boxes = [card.bounding_box() for card in page.locator("#cards li").all()]
    assert [(box["x"] > 100, box["y"] > boxes[0]["y"]) for box in boxes] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_pictures_on_their_way_have_a_place_and_a_progress(derived: LiveServer, page: Page):
    held: list[Route] = []
    page.route("**/b.jpg/full/**", lambda route: held.append(route))
    page.goto(derived.url)
    expect(page.locator("#cards [aria-busy=true]")).to_have_count(1)
    progress = page.locator("#progress")
    expect(progress).to_have_js_property("max", 2)
    expect(progress).to_have_js_property("value", 1)
    held[0].continue_()
    expect(progress).to_be_hidden()


def test_a_master_that_is_being_prepared_says_so(derived: LiveServer, page: Page):
    tiles: list[Route] = []

    def answer(route: Route) -> None:
        """The second tile as the server gives it while it builds a pyramid; the third waits."""
        tiles.append(route)
        if len(tiles) == 2:
            given = route.fetch()
            timing = f"{given.headers['server-timing']}, pyramid;desc=building"
            route.fulfill(response=given, headers={**given.headers, "server-timing": timing})
        elif len(tiles) != 3:
            route.continue_()

    page.route("**/iiif/3/a.jpg/*,*/*/0/*.jpg", answer)
    page.goto(f"{derived.url}/#a.jpg")
    page.get_by_role("button", name="1:1").click()
    expect(page.locator("#preparing")).to_be_visible()
    tiles[2].continue_()
    wait_until_loaded(page)
    expect(page.locator("#preparing")).to_be_hidden()


def shared(page: Page, name: str) -> str:
    return page.locator("#share li", has=page.get_by_text(name, exact=True)).locator("textarea").input_value()


def test_what_is_shared_works_in_a_page_of_another_site(derived: LiveServer, page: Page, problems: list[str]):
    page.goto(f"{derived.url}/#maps%2Fmap%201.jpg")
    expect(page.locator("#share textarea")).to_have_count(5)
    texts = {
        name: shared(page, name)
        for name in ("IIIF address", "info.json", "Manifest", "In a page", "In a page, to zoom")
    }
    assert page.request.get(texts["info.json"]).json()["id"] == texts["IIIF address"]
    assert page.request.get(texts["Manifest"]).json()["id"] == texts["Manifest"]
    mirador = page.get_by_role("link", name="Open in Mirador").get_attribute("href")
    assert mirador == f"https://projectmirador.org/embed/?iiif-content={quote(texts['Manifest'], safe='')}"
    page.wait_for_load_state("networkidle")  # a page that is left ends its requests
    with site({"shown": texts["In a page"], "zoomed": texts["In a page, to zoom"]}) as elsewhere:
        page.set_viewport_size({"width": 500, "height": 700})
        page.goto(f"{elsewhere}/shown")
        picture = page.locator("img")
        page.wait_for_function("document.images[0].complete")
        source, wide, shown = picture.evaluate("(it) => [it.currentSrc, it.naturalWidth, it.clientWidth]")
        assert source.startswith(f"{texts['IIIF address']}/full/")
        assert wide >= shown > 400
        page.wait_for_load_state("networkidle")
        page.goto(f"{elsewhere}/zoomed")
        page.wait_for_function("OpenSeadragon.getViewer('picture').world.getItemAt(0)?.getFullyLoaded()")
    assert problems == []


@pytest.mark.skipif(npm.NPM is None, reason="npm, which fetches OpenSeadragon, is not installed")
def test_the_page_that_the_readme_shows_works(live_server: LiveServer, page: Page, problems: list[str]):
    (shown,) = re.findall(r"```html\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    library = f"openseadragon@{viewer.LIBRARY_VERSION}"
    shown = shown.replace("http://127.0.0.1:8000", live_server.url).replace("https://cdn.jsdelivr.net/npm/", "")
    content = {"page": f"<!doctype html>{shown}", library: npm.package("openseadragon", viewer.LIBRARY_VERSION)}
    with site(content) as elsewhere:
        page.goto(f"{elsewhere}/page")
        page.wait_for_function("OpenSeadragon.getViewer('viewer')?.world.getItemAt(0)?.getFullyLoaded()")
    assert problems == []


@pytest.mark.skipif(npm.NPM is None, reason="npm, which fetches Mermaid, is not installed")
def test_the_diagram_of_the_readme_is_drawn(page: Page, problems: list[str]):
    (shown,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    document = '<!doctype html><script src="mermaid/dist/mermaid.tiny.js"></script>'
    with site({"page": document, "mermaid": npm.package("@mermaid-js/tiny", "12.0.0")}) as elsewhere:
        page.goto(f"{elsewhere}/page")
        drawn = page.evaluate("async (text) => (await mermaid.render('drawn', text)).svg", shown)
        page.set_content(drawn)
        said = page.locator("svg").text_content() or ""
    for label in re.findall(r'"([^"]+)"', shown):
        assert label.replace(" ", "") in re.sub(r"\s", "", said)
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
    sentence = "This image cannot be shown: the master starts with b'no picture a': not a TIFF"
    expect(card.locator("p")).to_contain_text(sentence)
    expect(card).to_have_attribute("data-route", "failed")
    card.click()
    expect(page.get_by_role("alert")).to_contain_text(sentence)


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
