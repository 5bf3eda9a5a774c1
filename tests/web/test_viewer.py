from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from special.errors import ConfigurationError, Denied
from special.web import viewer
from special.web.viewer import Listing

pytestmark = pytest.mark.service


class Folders:
    """Lists two images a page, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, request: Request, folder: str, after: str) -> Listing:
        self.asked.append(f"{folder}|{after}")
        first = Listing(("a b.tif", "box/1.jp2"), "box/1.jp2", True, folders=("maps/",))
        return Listing((), None, True) if after else first


def client(
    list_images: Callable[[Request, str, str], Awaitable[Listing]], assets: Path | None = None, id_segments: int = 1
):
    app = Starlette(routes=viewer.routes(list_images, assets=assets, id_segments=id_segments))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://images.example")


@pytest.fixture
async def page() -> AsyncIterator[httpx.AsyncClient]:
    async with client(Folders()) as opened:
        yield opened


async def test_the_library_is_in_the_package_with_its_licence(page: httpx.AsyncClient):
    answer = await page.get(f"/viewer/{viewer.LIBRARY}")
    assert answer.text.startswith(f"//! openseadragon {viewer.LIBRARY_VERSION}\n")
    assert "//! License: http://openseadragon.github.io/license/" in answer.text[:300]
    again = await page.get(f"/viewer/{viewer.LIBRARY}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    licence = Path(viewer.__file__).with_name("openseadragon.LICENSE.txt").read_text()
    assert "Redistributions in binary form must reproduce the above copyright" in licence


async def test_nothing_comes_from_elsewhere_and_every_address_is_relative(page: httpx.AsyncClient):
    answer = await page.get("/")
    assert "http" not in answer.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert [it for it in named if it.startswith(("/", "http"))] == []
    assert "http" not in (await page.get("/viewer/page.js")).text.replace("https://iiif.io", "")


async def test_everything_that_the_page_names_is_there(page: httpx.AsyncClient):
    html = (await page.get("/")).text
    named = re.findall(r'(?:src|href)="(viewer/[^"]+)"', html)
    assert sorted(named) == ["viewer/page.js", "viewer/style.css"]
    script = (await page.get("/viewer/page.js")).text
    named += [f"viewer/{name}" for name in re.findall(r'from "./([^"]+)"', script)]
    named += re.findall(r'src: "([^"]+)"', script)
    media = {name: (await page.get(f"/{name}")).headers["content-type"] for name in named}
    assert media == {
        "viewer/page.js": "text/javascript; charset=utf-8",
        "viewer/login.js": "text/javascript; charset=utf-8",
        "viewer/share.js": "text/javascript; charset=utf-8",
        f"viewer/{viewer.LIBRARY}": "text/javascript; charset=utf-8",
        "viewer/style.css": "text/css; charset=utf-8",
    }


async def test_the_policy_forbids_inline_script_and_the_page_has_none(page: httpx.AsyncClient):
    answer = await page.get("/")
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert "'unsafe-inline'" not in policy["script-src"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:", answer.text) == []


@pytest.mark.parametrize("name", ["__init__.py", "index.html", "openseadragon.LICENSE.txt", "..%2F..%2Fpyproject.toml"])
async def test_no_other_file_is_given_away(page: httpx.AsyncClient, name: str):
    assert (await page.get(f"/viewer/{name}")).status_code == 404


async def test_the_listing_gives_identifiers_with_their_paths_and_goes_on_where_it_ended():
    folders = Folders()
    async with client(folders) as page:
        first = (await page.get("/viewer/images.json", params={"folder": "box/"})).json()
        second = (await page.get("/viewer/images.json", params={"after": first["next"]})).json()
    assert first == {
        "images": [
            {"id": "a b.tif", "path": "iiif/3/a%20b.tif"},
            {"id": "box/1.jp2", "path": "iiif/3/box%2F1.jp2"},
        ],
        "folders": ["maps/"],
        "thumbnail": "!240,240",
        "next": "box/1.jp2",
        "listing": True,
    }
    assert second == {"images": [], "folders": [], "thumbnail": "!240,240", "next": None, "listing": True}
    assert folders.asked == ["box/|", "|box/1.jp2"]


@pytest.mark.parametrize(
    ("sizes", "thumbnail"),
    [
        pytest.param("1024,400,200,100", "!400,400", id="the default"),
        pytest.param(" 200,100 ", "!200,200", id="none is large enough"),
        pytest.param("300", "!300,300", id="one"),
        pytest.param("!1024,1024 400, ,300", "!100000,300", id="IIIF sizes"),
        pytest.param("!1024,768 !150,250", "!150,250", id="two sides"),
        pytest.param("400,", "!400,100000", id="a width"),
        pytest.param("nonsense", "!240,240", id="what derive refuses"),
    ],
)
def test_the_gallery_shows_a_size_that_derive_makes(sizes: str, thumbnail: str):
    assert viewer.thumbnail_size(sizes) == thumbnail


@pytest.mark.parametrize(
    ("segments", "path"),
    [
        pytest.param(1, "iiif/3/1%2F2%2Ffoo", id="one segment"),
        pytest.param(3, "iiif/v3/1/2/foo", id="three segments"),
    ],
)
async def test_an_identifier_finds_its_path_without_a_listing(segments: int, path: str):
    folders = Folders()
    async with client(folders, id_segments=segments) as page:
        answer = await page.get("/viewer/images.json", params={"id": "1/2/foo"})
    assert answer.json()["images"] == [{"id": "1/2/foo", "path": path}]
    assert folders.asked == []


async def test_a_store_that_refuses_is_reported_in_one_public_sentence():
    async def refuse(request: Request, folder: str, after: str) -> Listing:
        raise Denied("s3://secret-bucket refused us")

    async with client(refuse) as page:
        answer = await page.get("/viewer/images.json")
    assert (answer.status_code, answer.text) == (502, f"{Denied.sentence}\n")


async def test_another_library_can_come_from_a_folder(tmp_path: Path):
    (tmp_path / viewer.LIBRARY).write_bytes(b"var OpenSeadragon;")
    (tmp_path / "other.js").write_bytes(b"secret")
    async with client(Folders(), tmp_path) as page:
        assert (await page.get(f"/viewer/{viewer.LIBRARY}")).content == b"var OpenSeadragon;"
        assert (await page.get("/viewer/other.js")).status_code == 404


def test_a_folder_without_the_library_is_refused_at_start(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=rf"{re.escape(str(tmp_path))} has no readable openseadragon\.min\.js"):
        viewer.routes(Folders(), assets=tmp_path)
