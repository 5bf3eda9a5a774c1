"""Images of several sources, found by several catalogues, as a viewer gets them."""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from special.catalogue import NOTHING, PUBLIC, Caller, Entry, Hooks, Verdict
from special.geometry import Size
from special.images import Asset
from special.settings import load
from special.web.app import App
from special.web.images import cache_tag, disposition
from tests.support.catalogue_server import catalogue_server

pytestmark = pytest.mark.service


class Library(Hooks):
    """Code as an operator may write it: images by name, people by address and by a header."""

    asked: list[tuple[str, str]]

    def __init__(self) -> None:
        self.asked = []

    async def locate(self, identifier: str) -> Entry | None:
        if identifier == "broken":
            raise RuntimeError("a bug of the operator's")
        return Entry(("red.png",), label="Red") if identifier == "hooked" else None

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        self.asked.append((caller.identifier, caller.headers.get("x-card", "")))
        if caller.identifier == "blue.png":
            return PUBLIC
        match caller.headers.get("x-card"):
            case "gold":
                return Verdict()
            case "silver":
                return Verdict(50)
            case "bug":
                return {}["no such card"]
        return NOTHING

    async def describe(self, identifier: str, image: Entry, document: Any) -> dict[str, Any]:
        return {"label": image.label or identifier, "width": 1}


class NoHooks:
    """Not a subclass of `Hooks`."""


def png(path: Path, colour: str, size: tuple[int, int] = (200, 100)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@asynccontextmanager
async def site(root: Path, config: str, **flags: Any) -> AsyncIterator[httpx.AsyncClient]:
    (root / "special.toml").write_text(config)
    app = App(load(root / "special.toml", home=root / "home", source=str(root / "a"), decoders=1, **flags))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://x.org") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    png(tmp_path / "a" / "red.png", "red")
    png(tmp_path / "a" / "ab" / "blue.png", "blue")
    png(tmp_path / "b" / "lime.png", "lime")
    png(tmp_path / "c" / "secret.png", "black")
    return tmp_path


def table(root: Path, *rows: tuple[Any, ...]) -> None:
    new = root / "new.sqlite"
    with closing(sqlite3.connect(new)) as connection, connection:
        connection.execute("CREATE TABLE images (identifier PRIMARY KEY, url, max_unauthorised, roles)")
        connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
    new.replace(root / "catalogue.sqlite")


async def colour(client: httpx.AsyncClient, identifier: str, **headers: str) -> tuple[int, ...] | int:
    """The colour of an image, or the status where it is not shown."""
    answer = await client.get(f"/iiif/3/{identifier}/full/10,/0/default.png", headers=headers)
    if answer.status_code != 200:
        return answer.status_code
    found = Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((5, 2))
    assert isinstance(found, tuple)
    return found


RED, BLUE, LIME = (255, 0, 0), (0, 0, 255), (0, 255, 0)


async def test_keys_below_any_source_by_templates_alone(root: Path) -> None:
    config = f'keys = ["{{id}}", "{{id[0:2]}}/{{parts[1]}}.png"]\n[[sources]]\nurl = "{root / "b"}"\n'
    async with site(root, config) as client:
        assert await colour(client, "red.png") == RED
        assert await colour(client, "lime.png") == LIME
        assert await colour(client, "ab%2Fblue") == BLUE
        assert await colour(client, "secret.png") == 404


async def test_a_table_and_what_it_changes_to(root: Path) -> None:
    config = f"""
catalogue_ttl_s = 0
[[sources]]
url = "{root / "b"}"
[[catalogue]]
kind = "sqlite"
file = "{root / "catalogue.sqlite"}"
"""
    table(root, ("one", "red.png", None, None), ("out", str(root / "c" / "secret.png"), None, None))
    async with site(root, config) as client:
        assert await colour(client, "one") == RED
        assert await colour(client, "red.png") == 404
        assert await colour(client, "out") == 404
        table(root, ("one", str(root / "b" / "lime.png"), None, None))
        assert await colour(client, "one") == LIME
        table(root, ("one", str(root / "b" / "lime.png"), 5, None))
        assert await colour(client, "one") == 401
        (root / "catalogue.sqlite").unlink()
        assert await colour(client, "one") == 503


async def test_a_catalogue_that_fails_is_a_503_for_thumbs_and_info_too(root: Path) -> None:
    with catalogue_server(root, {"one": {"url": "red.png", "max_unauthorised": 50}}) as server:
        config = f"""
catalogue_ttl_s = 0
[[catalogue]]
kind = "http"
url = "{server.url}"
token_file = "{server.token_file}"
[[catalogue]]
kind = "templates"
"""
        async with site(root, config) as client:
            assert await colour(client, "one") == RED
            assert await colour(client, "red.png") == RED
            server.say({"__status__": 500})
            for path in ("iiif/3/one/info.json", "thumbs/one/info.json", "iiif/3/red.png/full/max/0/default.jpg"):
                answer = await client.get(f"/{path}")
                assert (answer.status_code, answer.headers["cache-control"]) == (503, "no-store")
                assert "127.0.0.1" not in answer.text


async def test_one_look_up_serves_all_requests_of_an_image(root: Path) -> None:
    with catalogue_server(root, {"one": {"url": "red.png"}}) as server:
        config = f'[[catalogue]]\nkind = "http"\nurl = "{server.url}"\ntoken_file = "{server.token_file}"\n'
        async with site(root, config) as client:
            for _ in range(3):
                assert await colour(client, "one") == RED
                assert (await client.get("/iiif/3/one/info.json")).status_code == 200
                assert await colour(client, "none") == 404
        assert sorted(server.asked()) == ["200 one", "404 none"]


async def test_the_gallery_lists_what_a_catalogue_can_list(root: Path) -> None:
    rows = ("one", "red.png"), ("two", "ab/blue.png"), ("without a master", "none.png"), ("in no source", "/none.png")
    table(root, *((*it, None, None) for it in rows))
    config = f'gallery = true\n[[catalogue]]\nkind = "sqlite"\nfile = "{root / "catalogue.sqlite"}"\n'
    async with site(root, config) as client:
        listed = (await client.get("/viewer/images.json")).json()
        assert ([it["id"] for it in listed["images"]], listed["listing"]) == (sorted(it for it, _ in rows), True)
        canvases = (await client.get("/iiif/manifest/")).json()["items"]
        assert [it["label"]["none"] for it in canvases] == [["one"], ["two"]]  # what can be shown
    config = 'gallery = true\n[[catalogue]]\nkind = "http"\nurl = "http://127.0.0.1:9/{id}"\n'
    async with site(root, config) as client:
        listed = (await client.get("/viewer/images.json")).json()
        assert (listed["images"], listed["listing"]) == ([], False)
        assert (await client.get("/iiif/manifest/")).status_code == 404


async def test_addresses_of_buckets_are_identifiers_only_where_that_is_chosen(root: Path) -> None:
    async with site(root, '[[catalogue]]\nkind = "s3"\n') as client:
        for identifier in ("s3:%2F%2Felsewhere%2Fred.png", "s3:%2Felsewhere%2Fred.png", "red.png"):
            assert await colour(client, identifier) == 404


# Hooks


HOOKED = f'hooks = "{__name__}:Library"\n[[rules]]\nidentifiers = "ruled.png"\nmax_unauthorised = 20\n'


async def test_hooks_locate_and_describe(root: Path) -> None:
    async with site(root, HOOKED) as client:
        gold = {"X-Card": "gold"}
        assert await colour(client, "hooked", **gold) == RED
        described = (await client.get("/iiif/3/hooked/info.json", headers=gold)).json()
        assert (described["label"], described["width"]) == ("Red", 200)
        assert await colour(client, "none", **gold) == 404


async def test_hooks_that_fail_are_a_500_of_that_request(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with site(root, HOOKED) as client:
        assert await colour(client, "broken", **{"X-Card": "gold"}) == 500
        assert "a bug of the operator's" in caplog.text
        assert await colour(client, "red.png", **{"X-Card": "bug"}) == 500
        assert "no such card" in caplog.text
        assert await colour(client, "red.png", **{"X-Card": "gold"}) == RED


async def test_what_hooks_allow_is_each_callers_own(root: Path) -> None:
    png(root / "a" / "ruled.png", "red")
    url = "/iiif/3/{}/full/{},/0/default.png"
    async with site(root, HOOKED) as client:
        for _ in range(2):  # the second time from every cache
            for name, side, card, status in [
                ("red.png", 200, "gold", 200),
                ("red.png", 51, "silver", 401),
                ("red.png", 50, "silver", 200),
                ("red.png", 10, "none", 401),
                ("ruled.png", 20, "gold", 200),
                ("ruled.png", 21, "gold", 401),
                ("ruled.png", 20, "silver", 200),
                ("ruled.png", 21, "silver", 401),
            ]:
                answer = await client.get(url.format(name, side), headers={"X-Card": card})
                assert answer.status_code == status, (name, side, card)
                assert answer.headers["cache-control"] == ("private, no-store" if status == 200 else "no-store")
        png(root / "a" / "blue.png", "blue")
        answer = await client.get(url.format("blue.png", 10))
        assert answer.headers["cache-control"].startswith("public")
        for card, level in (("gold", "level2"), ("silver", "level0")):
            info = await client.get("/iiif/3/red.png/info.json", headers={"X-Card": card})
            assert (info.json()["profile"], info.headers["cache-control"]) == (level, "private, no-store")


async def test_what_one_caller_may_see_is_not_stored_for_all(root: Path) -> None:
    async with site(root, HOOKED, store_on_miss=True) as client:
        png(root / "a" / "blue.png", "blue")
        for name in ("red.png", "blue.png"):
            answer = await client.get(f"/iiif/3/{name}/full/100,/0/default.jpg", headers={"X-Card": "gold"})
            assert answer.status_code == 200
    assert [it.name for it in (root / "home" / "thumbs").iterdir()] == ["blue.png"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param('hooks = "no.such:Thing"', "cannot be imported", id="no module"),
        pytest.param(f'hooks = "{__name__}:NoHooks"', "no subclass", id="no hooks"),
        pytest.param('hooks = "nothing"', "hooks", id="no class"),
        pytest.param('[[catalogue]]\nkind = "ldap"', "catalogue", id="no kind"),
        pytest.param('[[catalogue]]\nkind = "http"\nurl = "x"\ntimeout = 1', "did you mean timeout_s", id="a slip"),
        pytest.param('[[catalogue]]\nkind = "s3"\n[[catalogue]]\nkind = "templates"', "use it alone", id="s3 beside"),
        pytest.param('[[sources]]\nurl = "/no/such/folder"', "is not there", id="no source"),
        pytest.param('keys = "{idd}"', "{idd}", id="a template"),
    ],
)
def test_a_start_that_cannot_work(root: Path, config: str, message: str) -> None:
    from special import composition
    from special.errors import ConfigurationError

    (root / "special.toml").write_text(config)
    with pytest.raises(ConfigurationError) as caught:
        composition.engine(load(root / "special.toml", home=root / "home", source=str(root / "a")))
    assert message in str(caught.value)


# What goes out


AGENT = {"id": "https://library.example/", "type": "Agent", "label": {"en": ["A library"]}}
GENERAL = """
cache_tag_header = "Surrogate-Key"
[description]
rights = "http://rightsstatements.org/vocab/InC/1.0/"
attribution = "A library"
[[description.provider]]
id = "https://library.example/"
type = "Agent"
label = { en = ["A library"] }
"""


async def test_what_is_said_of_images(root: Path) -> None:
    search, manifest = {"id": "https://x/s", "type": "SearchService2"}, {"id": "https://x/m", "type": "Manifest"}
    images = {
        "one": {"url": "red.png", "rights": "http://creativecommons.org/licenses/by/4.0/"},
        "two": {"url": "red.png", "service": search, "partOf": [manifest], "seeAlso": [{"id": "https://x/d"}]},
    }
    with catalogue_server(root, images) as server:
        more = f'[[catalogue]]\nkind = "http"\nurl = "{server.url}"\ntoken_file = "{server.token_file}"\n'
        async with site(root, GENERAL + more) as client:
            one = (await client.get("/iiif/3/one/info.json")).json()
            assert (one["rights"], one["provider"]) == ("http://creativecommons.org/licenses/by/4.0/", [AGENT])
            assert {"attribution", "license", "service", "partOf", "seeAlso"} & set(one) == set()
            two = (await client.get("/iiif/3/two/info.json")).json()
            assert two["rights"] == "http://rightsstatements.org/vocab/InC/1.0/"
            assert (two["service"], two["partOf"], two["seeAlso"]) == ([search], [manifest], [{"id": "https://x/d"}])
            old = (await client.get("/iiif/2/two/info.json")).json()
            assert (old["license"], old["attribution"]) == ("http://rightsstatements.org/vocab/InC/1.0/", "A library")
            assert old["service"] == [search]
            assert {"rights", "provider", "partOf", "seeAlso"} & set(old) == set()


PHYSICAL = {
    "@context": "http://iiif.io/api/annex/services/physdim/1/context.json",
    "profile": "http://iiif.io/api/annex/services/physdim",
    "physicalScale": pytest.approx(1 / 400, rel=0.001),
    "physicalUnits": "in",
}


@pytest.mark.parametrize("tells", [True, False])
async def test_physical_dimensions_are_told_where_a_master_tells_its_resolution(root: Path, tells: bool) -> None:
    Image.new("RGB", (200, 100)).save(root / "a" / "scan.png", dpi=(400, 400))
    png(root / "a" / "screen.png", "red")
    own = {**PHYSICAL, "physicalScale": 2, "physicalUnits": "mm"}
    other = {"@context": "http://example.org/", "profile": "http://example.org/"}
    images = {
        "scan": {"url": "scan.png", "service": other},
        "known": {"url": "scan.png", "service": own},
        "screen": {"url": "screen.png"},
    }
    expected = [[other, PHYSICAL] if tells else [other], [own], None]
    with catalogue_server(root, images) as server:
        config = f'physical_dimensions = {str(tells).lower()}\n[[catalogue]]\nkind = "http"\nurl = "{server.url}"\n'
        async with site(root, f'{config}token_file = "{server.token_file}"\n') as client:
            for version in (2, 3):
                infos = [(await client.get(f"/iiif/{version}/{name}/info.json")).json() for name in images]
                assert [info.get("service") for info in infos] == expected


async def test_names_of_what_is_saved_and_tags_for_cdns(root: Path) -> None:
    with catalogue_server(root, {"one": {"url": "red.png", "filename": "leaf 3"}}) as server:
        more = f'[[catalogue]]\nkind = "http"\nurl = "{server.url}"\ntoken_file = "{server.token_file}"\n'
        async with site(root, 'cache_tag_header = "Cache-Tag"\n' + more) as client:
            path = "/iiif/3/one/full/10,/0/default.png"
            for query, kind in (("", "inline"), ("?x=1&response-content-disposition=attachment", "attachment")):
                for _ in range(2):  # the second time by the plan in memory
                    answer = await client.get(path + query)
                    assert answer.headers["cache-tag"] == "one"
                    assert answer.headers["content-disposition"] == f'{kind}; filename="leaf 3.png"'
            assert (await client.get("/iiif/3/one/info.json")).headers["cache-tag"] == "one"


@pytest.mark.parametrize(
    ("identifier", "filename", "expected"),
    [
        ("1/2/one.tif", None, 'attachment; filename="one.png"'),
        (".hidden", None, 'attachment; filename="image.png"'),
        ("one", "leaf.3", 'attachment; filename="leaf.3.png"'),
        (
            "one",
            'H\u00fctte "\r\n/x',
            "attachment; filename=\"H_tte ____x.png\"; filename*=UTF-8''H%C3%BCtte%20%22___x.png",
        ),
    ],
)
def test_names_for_any_client(identifier: str, filename: str | None, expected: str) -> None:
    asset = Asset(identifier, Size(1, 1), None, filename=filename)
    assert disposition("attachment", asset, "png") == (b"content-disposition", expected.encode())


@pytest.mark.parametrize("identifier", ["x y,\u00fc.png", "x" * 500, "a/b"])
def test_tags_are_words_that_cdns_take(identifier: str) -> None:
    assert re.fullmatch(r"[!-+\--~]{1,200}", cache_tag(identifier))


async def test_manifests_say_what_the_catalogue_says_and_show_each_caller_their_own(root: Path) -> None:
    async with site(root, f'hooks = "{__name__}:Library"\n{GENERAL}') as client:
        path = "/iiif/manifest/hooked"
        manifest = await client.get(path, headers={"X-Card": "gold"})
        assert manifest.headers["cache-control"] == "private, no-store"
        canvas = manifest.json()["items"][0]
        assert (manifest.json()["label"], canvas["provider"]) == ({"none": ["Red"]}, [AGENT])
        assert canvas["rights"] == "http://rightsstatements.org/vocab/InC/1.0/"
        assert (await client.get(path)).status_code == 401
        assert (await client.get("/iiif/manifest/", headers={"X-Card": "gold"})).status_code == 404
    table(root, ("one", "red.png", None, None), ("two", "red.png", 0, None))
    config = f'gallery = true\n[[catalogue]]\nkind = "sqlite"\nfile = "{root / "catalogue.sqlite"}"\n'
    async with site(root, config) as client:
        assert [it["id"] for it in (await client.get("/viewer/images.json")).json()["images"]] == ["one", "two"]


P3 = bytes(pyvips.Image.profile_load("p3"))


@pytest.mark.parametrize("keeps", [False, True])
async def test_profiles_are_kept_by_every_route_where_that_is_asked(tmp_path: Path, keeps: bool) -> None:
    (tmp_path / "a").mkdir()
    wide = Image.new("RGB", (200, 100), (200, 40, 90))
    wide.save(tmp_path / "a" / "wide.tif", icc_profile=P3)
    if not keeps:
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(P3)), ImageCms.createProfile("sRGB")
        wide = ImageCms.profileToProfile(wide, *profiles, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC)
    config = f"keep_profile = {str(keeps).lower()}\nstore_on_miss = true\n"
    for paths in (["full/100,"], ["full/100,", "full/90,", "0,0,50,50/max"]):  # what is made is stored at the end
        routes = []
        async with site(tmp_path, config) as client:
            for path in paths:
                answer = await client.get(f"/iiif/3/wide.tif/{path}/0/default.jpg")
                image = Image.open(io.BytesIO(answer.content))
                assert image.info.get("icc_profile") == (P3 if keeps else None), path
                found = np.asarray(image.convert("RGB"))[5, 5].astype(int)
                assert np.abs(found - wide.getpixel((5, 5))).max() <= 4, path
                routes.append(answer.headers["x-special-route"])
    assert routes == ["thumb", "derivative", "tile"]
