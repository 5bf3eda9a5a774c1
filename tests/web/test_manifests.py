"""Manifests over HTTP: whatever they name is there, at the size that they say, and hidden images are in none."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from special.settings import load
from special.web.app import App
from tests.support.logins import SECRET, token

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]

BASE = "http://example.org"
OF_2, OF_3 = (f"http://iiif.io/api/presentation/{version}/context.json" for version in (2, 3))
FOLDERS = {"maps": 3, "maps/old": 1, "many": 230}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    root = tmp_path_factory.mktemp("manifests")
    masters = root / "masters"
    for folder, count in FOLDERS.items():
        (masters / folder).mkdir(parents=True)
        for n in range(1, count + 1):
            Image.new("RGB", (400 + n, 300), "teal").save(masters / folder / f"page {n}.png", compress_level=1)
    (masters / "some").mkdir()
    for name in ("page 10.png", "page 9.png", "small.png", "closed.png", "ark:1.png"):
        Image.new("RGB", (640, 480), "teal").save(masters / "some" / name)
    (masters / "some" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (masters / "some" / "notes.txt").write_text("no picture")
    (root / "key").write_bytes(SECRET)
    settings = load(
        source=str(masters),
        home=root,
        decoders=1,
        rules=(
            {"identifiers": "*closed*", "roles": ("reader",)},
            {"identifiers": "*small*", "max_unauthorised": 300, "roles": ("reader",)},
        ),
        jwt_key=root / "key",
        jwt_algorithms="HS256",
        jwt_cookie="login",
        auth_profile="active",
        auth_login_url="https://login.example.org/in",
        auth_origins="https://viewer.example",
    )
    app = App(settings)
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def get(client: httpx.AsyncClient, address: str, **headers: str) -> Any:
    answer = await client.get(address, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bodies(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for canvas in manifest["items"]:
        yield canvas["items"][0]["items"][0]["body"]


def names(document: dict[str, Any]) -> list[str]:
    return [it["label"]["none"][0] for it in document["items"]]


async def test_a_folder_is_a_manifest_in_the_order_of_names(client: httpx.AsyncClient) -> None:
    answer = await client.get("/iiif/manifest/some/")
    assert answer.headers["content-type"] == f'application/ld+json;profile="{OF_3}"'
    assert answer.headers["access-control-allow-origin"] == "*"
    document = answer.json()
    assert (document["@context"], document["type"], document["label"]) == (OF_3, "Manifest", {"none": ["some"]})
    assert document["id"] == f"{BASE}/iiif/manifest/some/"
    assert names(document) == ["ark:1.png", "page 9.png", "page 10.png", "small.png"]


async def check_image(client: httpx.AsyncClient, shown: dict[str, Any]) -> None:
    picture = await client.get(shown.get("id") or shown["@id"])
    assert picture.status_code == 200
    assert Image.open(io.BytesIO(picture.content)).size == (shown["width"], shown["height"])


async def test_everything_that_a_manifest_names_is_there(client: httpx.AsyncClient) -> None:
    document = await get(client, "/iiif/manifest/some/")
    for canvas, body in zip(document["items"], bodies(document), strict=True):
        assert canvas["items"][0]["items"][0]["target"] == canvas["id"]
        await check_image(client, body)
        await check_image(client, canvas["thumbnail"][0])
        (service,) = body["service"]
        info = await get(client, f"{service['id']}/info.json")
        assert (info["id"], info["type"], info["profile"]) == (service["id"], service["type"], service["profile"])
        assert (info["width"], info["height"]) == (service["width"], service["height"])
        assert (info["width"], info["height"]) == (canvas["width"], canvas["height"])
        alone = await get(client, canvas["id"].removesuffix("/canvas"))
        assert alone["items"] == [canvas]
    ids = [canvas["id"] for canvas in document["items"]]
    assert len(set(ids)) == len(ids)


async def test_version_2_says_the_same(client: httpx.AsyncClient) -> None:
    answer = await client.get("/iiif/manifest/some/", headers={"Accept": f'application/ld+json;profile="{OF_2}"'})
    assert answer.headers["content-type"] == f'application/ld+json;profile="{OF_2}"'
    assert "Accept" in answer.headers["vary"].split(", ") or "no-store" in answer.headers["cache-control"]
    document, other = answer.json(), await get(client, "/iiif/manifest/some/")
    assert (document["@context"], document["@type"], document["@id"]) == (OF_2, "sc:Manifest", other["id"])
    canvases = document["sequences"][0]["canvases"]
    assert [(it["@id"], it["label"]) for it in canvases] == [
        (it["id"], it["label"]["none"][0]) for it in other["items"]
    ]
    for canvas in canvases:
        resource = canvas["images"][0]["resource"]
        await check_image(client, resource)
        await check_image(client, canvas["thumbnail"])
        info = await get(client, f"{resource['service']['@id']}/info.json")
        assert info["@context"] == resource["service"]["@context"] == "http://iiif.io/api/image/2/context.json"
        assert info["profile"][0] == resource["service"]["profile"]


@pytest.mark.parametrize("accept", ["application/json", f'application/ld+json;profile="{OF_3}"', "*/*"])
async def test_one_image(client: httpx.AsyncClient, accept: str) -> None:
    answer = await client.get("/iiif/manifest/maps%2Fold%2Fpage%201.png", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept.partition(";")[0].replace("*/*", "application/ld+json"))
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert set(answer.headers["vary"].split(", ")) == {"Accept", "Origin"}
    document = answer.json()
    assert (document["type"], document["label"]) == ("Manifest", {"none": ["maps/old/page 1.png"]})
    assert names(document) == ["page 1.png"]
    again = await client.get(document["id"], headers={"Accept": accept, "If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def all_images(client: httpx.AsyncClient, address: str) -> list[str]:
    """The images of a collection and of all that it names."""
    document = await get(client, address)
    assert document["id"] == address
    if document["type"] == "Manifest":
        return [it["id"].removeprefix(f"{BASE}/iiif/manifest/").removesuffix("/canvas") for it in document["items"]]
    found: list[str] = []
    for part in document["items"]:
        assert (await get(client, part["id"]))["type"] == part["type"]
        found += await all_images(client, part["id"])
    return found


async def test_a_large_folder_is_a_collection_of_manifests(client: httpx.AsyncClient) -> None:
    address = f"{BASE}/iiif/manifest/many/"
    document = await get(client, address)
    assert document["type"] == "Collection"
    parts = [await get(client, it["id"]) for it in document["items"]]
    assert [len(it["items"]) for it in parts] == [100, 100, 30]
    found = await all_images(client, address)
    assert sorted(found) == sorted(f"many%2Fpage%20{n}.png" for n in range(1, 231))


async def test_a_folder_of_folders_is_a_collection(client: httpx.AsyncClient) -> None:
    document = await get(client, "/iiif/manifest/")
    assert (document["type"], document["label"]) == ("Collection", {"none": ["Images"]})
    assert [(it["type"], it["label"]["none"]) for it in document["items"]] == [
        ("Collection", [name]) for name in ("many", "maps", "some")
    ]
    found = await all_images(client, f"{BASE}/iiif/manifest/")
    assert len(found) == len(set(found)) == sum(FOLDERS.values()) + 4
    maps = await get(client, "/iiif/manifest/maps/")
    assert [(it["type"], it["label"]["none"]) for it in maps["items"]] == [
        ("Manifest", ["page 1.png – page 3.png"]),
        ("Collection", ["old"]),
    ]
    old = await get(client, "/iiif/manifest/", accept=f'application/ld+json;profile="{OF_2}"')
    assert old["@type"] == "sc:Collection"
    assert [it["@id"] for it in old["collections"]] == [it["id"] for it in document["items"]]


async def test_what_may_not_be_seen_is_not_listed_and_its_size_not_told(client: httpx.AsyncClient) -> None:
    """`closed.png` is seen by readers alone, and `small.png` by others with sides of up to 300 pixels."""
    answer = await client.get("/iiif/manifest/some/")
    assert "closed" not in answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    *_, small = bodies(answer.json())
    assert (small["width"], small["height"]) == (300, 225)
    assert small["service"][0]["profile"] == "level0"
    assert small["service"][0]["service"][0]["type"] == "AuthProbeService2"
    reader = {"Authorization": f"Bearer {token('reader')}"}
    document = await get(client, "/iiif/manifest/some/", **reader)
    assert "closed.png" in names(document)
    assert [it["service"][0]["profile"] for it in bodies(document)] == ["level2"] * 5
    refused = await client.get("/iiif/manifest/some%2Fclosed.png")
    assert (refused.status_code, "640" in refused.text) == (401, False)
    assert (await client.get("/iiif/manifest/some%2Fclosed.png", headers=reader)).status_code == 200


async def test_a_named_viewer_may_ask_as_its_user(client: httpx.AsyncClient) -> None:
    answer = await client.get("/iiif/manifest/some/", headers={"Origin": "https://viewer.example"})
    assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("none.png", 404, id="no such image"),
        pytest.param("none/", 404, id="no such folder"),
        pytest.param("some%2Fbroken.jpg", 422, id="a broken master"),
        pytest.param("..%2F", 404, id="above"),
        pytest.param("some/?images=%ff", 400, id="a bad query"),
    ],
)
async def test_what_has_no_manifest(client: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await client.get(f"/iiif/manifest/{path}")).status_code == status


async def test_a_source_that_is_not_listed_has_manifests_of_images_alone(tmp_path: Path) -> None:
    (tmp_path / "masters").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "masters" / "a.png")
    app = App(load(source=str(tmp_path / "masters"), home=tmp_path, decoders=1, gallery=False))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        assert (await client.get("/iiif/manifest/")).status_code == 404
        document = await get(client, "/iiif/manifest/a.png")
        assert document["items"][0]["thumbnail"][0]["id"] == f"{BASE}/iiif/3/a.png/full/40,30/0/default.jpg"


@pytest.mark.parametrize("path", ["/viewer/images.json", "/iiif/manifest/"])
async def test_who_lists_without_end_is_slowed_down_and_nobody_else(tmp_path: Path, path: str) -> None:
    (tmp_path / "masters").mkdir()
    app = App(load(source=str(tmp_path / "masters"), home=tmp_path, decoders=1))

    def client(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url=BASE)

    async with app.running(), client("192.0.2.1") as greedy, client("192.0.2.2") as other:
        crowd = [asyncio.create_task(greedy.get(path)) for _ in range(200)]
        refused = [answer for each in crowd[-100:] if (answer := await each).status_code == 503]
        assert {int(answer.headers["retry-after"]) for answer in refused} == {6}
        assert (await other.get(path)).status_code in (200, 404)  # there is nothing in it
        for each in crowd:
            each.cancel()  # some wait for their turns still
        await asyncio.gather(*crowd, return_exceptions=True)
