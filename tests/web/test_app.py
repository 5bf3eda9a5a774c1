"""The HTTP face, in this process: what each answer says beside its pixels."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from fixtures import make_jp2
from special.codecs import openjpeg
from special.settings import load
from special.web.app import App

pytestmark = pytest.mark.asyncio(loop_scope="module")

JP2 = Path(make_jp2.__file__).parent / "jp2"
WIDTH, HEIGHT = 640, 480
CONTEXT_2 = "http://iiif.io/api/image/2/context.json"


def picture(width: int, height: int) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masters, and renditions as a DLCS lays them out."""
    root = tmp_path_factory.mktemp("library")
    masters, thumbs = root / "masters", root / "thumbs"
    (masters / "sub").mkdir(parents=True)
    picture(WIDTH, HEIGHT).save(masters / "plain.png")
    picture(WIDTH, HEIGHT).save(masters / "stored.jpg", quality=95)
    picture(WIDTH, HEIGHT).save(masters / "secret.jpg", quality=95)
    picture(40, 30).save(masters / "sub" / "a b?#%é.png")
    for name in ("ark:1,2.png", "[2].png"):
        picture(30, 20).save(masters / "sub" / name)
    (masters / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is not a picture")
    (masters / "letter.txt").write_bytes(b"Dear reader, this is not a picture at all.")
    picture(WIDTH, HEIGHT).save(masters / "spoilt.jpg")
    (thumbs / "spoilt.jpg" / "open").mkdir(parents=True)
    (thumbs / "spoilt.jpg" / "s.json").write_text('{"o": [[320, 240], [160, 120]], "a": []}')
    (thumbs / "spoilt.jpg" / "open" / "320.jpg").write_text("<html>Sign in</html>")
    whole = io.BytesIO()
    picture(160, 120).save(whole, "JPEG")
    (thumbs / "spoilt.jpg" / "open" / "160.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) * 3 // 4])
    for name, access, largest in (("stored.jpg", "open", 320), ("secret.jpg", "auth", 320)):
        folder = thumbs / name
        for side, where in ((largest, access), (160, "open")):
            (folder / where).mkdir(parents=True, exist_ok=True)
            picture(side, side * 3 // 4).save(folder / where / f"{side}.jpg")
        sizes = {"o": [[160, 120]], "a": [[320, 240]]} if access == "auth" else {"o": [[320, 240], [160, 120]]}
        (folder / "s.json").write_text(json.dumps(sizes))
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(library: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = load(
        source=str(library / "masters"),
        thumbs=str(library / "thumbs"),
        volume=library / "volume",
        volume_size="64MiB",
        decoders=1,
        upscaling=True,
    )
    app = App(settings)
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://example.org") as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def size_of(response: httpx.Response) -> tuple[int, int]:
    assert response.status_code in (200, 206), response.text
    return Image.open(io.BytesIO(response.content)).size


async def test_a_stored_file_that_is_broken_is_not_said_to_be_the_master(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    broken = await get(client, "/iiif/spoilt.jpg/full/200,/0/default.jpg")
    assert (broken.status_code, broken.text) == (500, "What is stored of this image cannot be read.\n")
    assert "spoilt.jpg/open/320.jpg is no picture: " in caplog.records[-1].__dict__["fields"]["error"]
    cut = await get(client, "/iiif/spoilt.jpg/full/80,/0/default.jpg")
    assert size_of(cut) == (80, 60)
    assert cut.headers["warning"] == '199 - "the JPEG has no end (EOI)"'
    assert "warning" not in (await get(client, "/iiif/stored.jpg/full/80,/0/default.jpg")).headers


@pytest.mark.parametrize(
    ("path", "route", "size"),
    [
        pytest.param("/iiif/stored.jpg/full/!320,320/0/default.jpg", "thumb", (320, 240), id="thumb"),
        pytest.param("/iiif/stored.jpg/full/200,/0/default.jpg", "derivative", (200, 150), id="derivative"),
        pytest.param("/iiif/stored.jpg/full/320,/0/gray.png", "derivative", (320, 240), id="derivative in grey"),
        pytest.param("/iiif/stored.jpg/full/400,/0/default.jpg", "stream", (400, 300), id="stream"),
        pytest.param("/iiif/plain.png/full/100,/0/default.jpg", "stream", (100, 75), id="nothing stored"),
        pytest.param("/iiif/stored.jpg/0,0,200,100/50,/0/default.jpg", "tile", (50, 25), id="tile"),
        pytest.param("/iiif/stored.jpg/0,0,640,480/160,/0/default.jpg", "thumb", (160, 120), id="full by numbers"),
        pytest.param("/thumbs/stored.jpg/full/320,240/0/default.jpg", "thumb", (320, 240), id="thumbs"),
        pytest.param("/thumbs/stored.jpg/full/max/0/default.jpg", "thumb", (320, 240), id="thumbs max"),
        pytest.param("/thumbs/stored.jpg/full/161,121/0/color.jpg", "thumb", (160, 120), id="thumbs, a pixel more"),
        pytest.param("/thumbs/stored.jpg/full/!100,100/0/default.jpg", "derivative", (100, 75), id="thumbs shrunk"),
        pytest.param("/iiif/plain.png/full/^1000,/45/bitonal.tif", "stream", (1237, 1237), id="enlarged and turned"),
    ],
)
async def test_every_answer_names_its_route(
    client: httpx.AsyncClient, path: str, route: str, size: tuple[int, int]
) -> None:
    response = await get(client, path)
    assert size_of(response) == size
    assert response.headers["x-special-route"] == route
    timing = response.headers["server-timing"]
    assert timing.startswith(f'route;desc="{route}", source;dur=')
    assert "gets=" in timing
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["cache-control"] == "public, max-age=86400"
    assert response.headers["etag"]


@pytest.mark.parametrize(
    ("path", "link"),
    [
        pytest.param(
            "/iiif/plain.png/0,0,640,480/320,/0/color.jpg",
            '<http://example.org/iiif/plain.png/full/320,240/0/default.jpg>;rel="canonical",'
            '<http://iiif.io/api/image/3/level2.json>;rel="profile"',
            id="3",
        ),
        pytest.param(
            "/iiif/2/plain.png/full/320,/0/color.jpg",
            '<http://example.org/iiif/2/plain.png/full/320,/0/default.jpg>;rel="canonical",'
            '<http://iiif.io/api/image/2/level2.json>;rel="profile"',
            id="2",
        ),
        pytest.param(
            "/thumbs/v2/stored.jpg/full/160,/0/color.jpg",
            '<http://example.org/thumbs/v2/stored.jpg/full/160,/0/default.jpg>;rel="canonical",'
            '<http://iiif.io/api/image/2/level0.json>;rel="profile"',
            id="thumbs",
        ),
    ],
)
async def test_links(client: httpx.AsyncClient, path: str, link: str) -> None:
    assert (await get(client, path)).headers["link"] == link


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/iiif/nothing/info.json", 404, id="unknown identifier"),
        pytest.param("/iiif/sub/x.png/info.json", 404, id="unescaped slash"),
        pytest.param("/iiif/plain.png/full/max/0/default", 400, id="syntax"),
        pytest.param("/iiif/plain.png/640,0,1,1/max/0/default.jpg", 400, id="outside"),
        pytest.param("/iiif/plain.png/full/641,/0/default.jpg", 400, id="larger than the region"),
        pytest.param("/iiif/plain.png/full/^99999,99999/0/default.jpg", 400, id="larger than the limits"),
        pytest.param("/iiif/..%2F..%2Fetc%2Fpasswd/info.json", 404, id="traversal"),
        pytest.param("/iiif/%2Fetc%2Fpasswd/info.json", 404, id="absolute"),
        pytest.param("/iiif/a%00b/info.json", 400, id="NUL"),
        pytest.param("/iiif/letter.txt/info.json", 422, id="not a picture"),
        pytest.param("/iiif/broken.jpg/info.json", 422, id="broken"),
        pytest.param("/thumbs/plain.png/full/100,/0/default.jpg", 404, id="nothing stored"),
        pytest.param("/thumbs/stored.jpg/full/400,300/0/default.jpg", 404, id="nothing that large is stored"),
        pytest.param("/thumbs/stored.jpg/0,0,9,9/max/0/default.jpg", 400, id="thumbs have one region"),
        pytest.param("/thumbs/stored.jpg/full/max/90/default.jpg", 400, id="thumbs are not turned"),
        pytest.param("/thumbs/stored.jpg/full/max/0/gray.jpg", 400, id="thumbs have one quality"),
        pytest.param("/thumbs/stored.jpg/full/max/0/default.png", 400, id="thumbs have one format"),
        pytest.param("/iiif/secret.jpg/full/320,/0/default.jpg", 401, id="restricted"),
        pytest.param("/iiif/secret.jpg/0,0,10,10/max/0/default.jpg", 401, id="a crop of a restricted image"),
        pytest.param("/thumbs/secret.jpg/full/320,240/0/default.jpg", 401, id="restricted thumb"),
    ],
)
async def test_errors_are_one_plain_sentence(client: httpx.AsyncClient, library: Path, path: str, status: int) -> None:
    response = await get(client, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.text.count("\n") == 1
    assert str(library) not in response.text
    assert "Traceback" not in response.text


async def test_a_master_that_lies_about_its_packets_is_read_whole(
    client: httpx.AsyncClient, library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = JP2 / "plt-lies.jp2"
    (library / "masters" / wrong.name).write_bytes(wrong.read_bytes())
    expected = openjpeg.decode(wrong.read_bytes()).pixels[90:106, 100:116]
    for _ in range(2):
        answer = await get(client, f"/iiif/{wrong.name}/100,90,16,16/max/0/default.png")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)
    assert [record.message for record in caplog.records if "read whole from now on" in record.message][1:] == []
    assert "read whole from now on" in caplog.text


async def test_what_told_what_a_master_is_is_not_read_again(client: httpx.AsyncClient, library: Path) -> None:
    name = "fresh.png"
    picture(50, 40).save(library / "masters" / name)
    cold = await get(client, f"/iiif/{name}/full/max/0/default.png")
    size = (library / "masters" / name).stat().st_size
    assert f"gets=1 bytes={size}" in cold.headers["server-timing"]


async def test_a_broken_master_harms_nobody_else(client: httpx.AsyncClient) -> None:
    assert (await get(client, "/iiif/broken.jpg/full/max/0/default.jpg")).status_code == 422
    assert size_of(await get(client, "/iiif/plain.png/full/50,/0/default.jpg")) == (50, 38)


@pytest.mark.parametrize(
    ("path", "accept", "media", "identifier"),
    [
        pytest.param(
            "plain.png", "*/*", f'application/ld+json;profile="{CONTEXT_2.replace("/2/", "/3/")}"', "id", id="3"
        ),
        pytest.param(
            "plain.png", f'application/ld+json;profile="{CONTEXT_2}"', "application/ld+json", "@id", id="2 by Accept"
        ),
        pytest.param("2/plain.png", "*/*", "application/json", "@id", id="2 by its address"),
        pytest.param("2/plain.png", "application/ld+json", "application/ld+json", "@id", id="2 as JSON-LD"),
        pytest.param("3/plain.png", "application/json", "application/json", "id", id="3 as plain JSON"),
    ],
)
async def test_info_is_negotiated(
    client: httpx.AsyncClient, path: str, accept: str, media: str, identifier: str
) -> None:
    response = await get(client, f"/iiif/{path}/info.json", accept=accept)
    assert response.headers["content-type"] == media
    assert response.headers["vary"] == "Accept"
    document: dict[str, Any] = response.json()
    assert document[identifier] == f"http://example.org/iiif/{path}"
    assert (document["width"], document["height"]) == (WIDTH, HEIGHT)


async def test_the_base_redirects(client: httpx.AsyncClient) -> None:
    for path in ("/iiif/plain.png", "/iiif/2/plain.png/", "/thumbs/stored.jpg"):
        response = await get(client, path)
        assert response.status_code == 303
        assert response.headers["location"] == f"http://example.org{path.rstrip('/')}/info.json"
        assert response.headers["access-control-allow-origin"] == "*"


async def test_identifiers_are_quoted_where_they_come_back(client: httpx.AsyncClient) -> None:
    path = "/iiif/sub%2Fa%20b%3F%23%25%C3%A9.png"
    document = (await get(client, f"{path}/info.json")).json()
    assert document["id"] == f"http://example.org{path}"
    assert size_of(await get(client, f"{path}/full/max/0/default.png")) == (40, 30)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        pytest.param("sub%2Fark:1,2.png", "sub%2Fark:1,2.png", id="what need not be encoded"),
        pytest.param("sub%2fark%3a1%2C2.png", "sub%2fark%3a1%2C2.png", id="encoded all the same, in lower case"),
        pytest.param("v3/sub%2Fark:1,2.png", "v3/sub%2Fark:1,2.png", id="with a version"),
        pytest.param("sub%2F[2].png", "sub%2F%5B2%5D.png", id="what no URI may contain"),
    ],
)
async def test_identifiers_come_back_as_they_were_asked_for(client: httpx.AsyncClient, path: str, shown: str) -> None:
    document = (await get(client, f"/iiif/{path}/info.json")).json()
    assert document["id"] == f"http://example.org/iiif/{shown}"
    image = await get(client, f"/iiif/{path}/full/max/0/default.jpg")
    assert f"<http://example.org/iiif/{shown}/full/max/0/default.jpg>" in image.headers["link"]
    assert (await get(client, f"/iiif/{path}")).headers["location"] == f"{document['id']}/info.json"
    assert size_of(await get(client, f"/iiif/{shown}/full/max/0/default.jpg")) == (30, 20)


@pytest.mark.parametrize("accept", ["*/*", CONTEXT_2, f'application/ld+json;profile="{CONTEXT_2}"'])
@pytest.mark.parametrize("size", ["full", "max", "100,", "!100,100"])
async def test_pixels_do_not_vary_with_accept(client: httpx.AsyncClient, size: str, accept: str) -> None:
    response = await get(client, f"/iiif/plain.png/full/{size}/0/default.jpg", accept=accept)
    assert size_of(response) == ((WIDTH, HEIGHT) if size in ("full", "max") else (100, 75))
    assert "vary" not in response.headers


async def test_a_page_may_send_any_header(client: httpx.AsyncClient) -> None:
    asked = "accept,cache-control,traceparent,x-requested-with, x-my!own"
    headers = {"Origin": "https://a.example", "Access-Control-Request-Headers": asked}
    options = await client.options("/iiif/plain.png/info.json", headers=headers)
    assert options.status_code == 204
    assert options.headers["access-control-allow-headers"] == asked
    assert options.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in options.headers


async def test_thumbs_info_is_level_0(client: httpx.AsyncClient) -> None:
    document = (await get(client, "/thumbs/stored.jpg/info.json")).json()
    assert document["profile"] == "level0"
    for size in document["sizes"]:
        response = await get(client, f"/thumbs/stored.jpg/full/{size['width']},{size['height']}/0/default.jpg")
        assert size_of(response) == (size["width"], size["height"])
        assert response.headers["x-thumb-match"] == "1"
    shrunk = await get(client, "/thumbs/stored.jpg/full/50,/0/default.jpg")
    assert shrunk.headers["x-thumb-resized"] == "1"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/iiif/stored.jpg/full/320,/0/default.jpg", id="thumb"),
        pytest.param("/iiif/stored.jpg/full/100,/0/default.jpg", id="derivative"),
        pytest.param("/iiif/plain.png/full/100,/0/default.jpg", id="stream"),
        pytest.param("/iiif/plain.png/0,0,100,100/50,/0/default.jpg", id="tile"),
    ],
)
async def test_what_the_client_has_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    first = await get(client, path)
    for condition in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = await get(client, path, if_none_match=condition)
        assert again.status_code == 304
        assert not again.content
        assert again.headers["access-control-allow-origin"] == "*"
        assert "decode;dur=0.0" in again.headers["server-timing"]
    assert (await get(client, path, if_none_match='"other"')).status_code == 200


async def test_head_of_a_stored_rendition_reads_no_body(client: httpx.AsyncClient) -> None:
    path = "/thumbs/stored.jpg/full/320,240/0/default.jpg"
    got, head = await get(client, path), await client.head(path)
    assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["last-modified"] == got.headers["last-modified"]
    assert "gets=0 bytes=0" in head.headers["server-timing"]
    assert (await client.head(path, headers={"if-none-match": got.headers["etag"]})).status_code == 304


async def test_if_modified_since(client: httpx.AsyncClient) -> None:
    path = "/thumbs/stored.jpg/full/320,240/0/default.jpg"
    date = (await get(client, path)).headers["last-modified"]
    assert (await get(client, path, if_modified_since=date)).status_code == 304
    assert (await get(client, path, if_modified_since="Thu, 01 Jan 1970 00:00:01 GMT")).status_code == 200
    assert (await get(client, path, if_modified_since="yesterday")).status_code == 200


async def test_single_ranges_of_stored_renditions(client: httpx.AsyncClient) -> None:
    path = "/thumbs/stored.jpg/full/320,240/0/default.jpg"
    whole = await get(client, path)
    assert whole.headers["accept-ranges"] == "bytes"
    part = await get(client, path, range="bytes=10-19")
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    rest = await get(client, path, range="bytes=10-")
    assert rest.content == whole.content[10:]
    assert (await get(client, path, range="bytes=0-0,5-9")).status_code == 200
    assert (await get(client, path, range="bytes=99999999-")).status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "/iiif/plain.png/info.json",
        "/iiif/plain.png",
        "/iiif/plain.png/full/100,/0/default.jpg",
        "/iiif/stored.jpg/full/320,/0/default.jpg",
        "/iiif/nothing/info.json",
    ],
)
async def test_head_and_options_work_wherever_get_does(client: httpx.AsyncClient, path: str) -> None:
    got, head, options = await get(client, path), await client.head(path), await client.options(path)
    assert head.status_code == got.status_code
    assert not head.content
    assert head.headers.get("content-type") == got.headers.get("content-type")
    assert head.headers.get("etag") == got.headers.get("etag")
    assert options.status_code == 204
    assert options.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert (await client.post(path)).status_code == 405


@pytest.mark.parametrize("host", ["evil.example/x?", "a b", "x\tSet-Cookie", "[::1", ""])
async def test_a_host_that_is_none_is_refused(client: httpx.AsyncClient, host: str) -> None:
    assert (await get(client, "/iiif/plain.png/info.json", host=host)).status_code == 400


@pytest.mark.parametrize(
    ("size", "caching"),
    [
        pytest.param("160,", "public, max-age=86400", id="open to all"),
        pytest.param("max", "private, no-store", id="as much as the client may see"),
    ],
)
async def test_answers_that_depend_on_the_client_are_private(
    client: httpx.AsyncClient, size: str, caching: str
) -> None:
    response = await get(client, f"/iiif/secret.jpg/full/{size}/0/default.jpg")
    assert size_of(response) == (160, 120)
    assert response.headers["cache-control"] == caching


@pytest.mark.parametrize("path", ["full/max/0/default.jpg", "full/100,/0/default.jpg", "info.json"])
async def test_what_came_by_a_forwarded_host_is_not_for_shared_caches(client: httpx.AsyncClient, path: str) -> None:
    for forwarded, scope in (({}, "public"), ({"x_forwarded_host": "a.example"}, "private"), ({}, "public")):
        response = await get(client, f"/iiif/stored.jpg/{path}", **forwarded)
        assert response.headers["cache-control"].startswith(f"{scope}, max-age=")


async def test_info_of_a_restricted_image_says_what_may_be_seen(client: httpx.AsyncClient) -> None:
    document = (await get(client, "/iiif/secret.jpg/info.json")).json()
    assert document["maxWidth"] == 160
    assert "tiles" not in document


async def test_info_json_is_not_sent_twice(client: httpx.AsyncClient) -> None:
    first = await get(client, "/iiif/plain.png/info.json")
    again = await client.get("/iiif/plain.png/info.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await client.get("/iiif/plain.png/info.json", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


@pytest.mark.parametrize("path", ["/", "/livez", "/iiif/plain.png/info.json", "/iiif/none/info.json"])
async def test_no_answer_is_to_be_guessed_at(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    assert (await get(client, "/livez")).status_code == 200
    assert (await get(client, "/readyz")).status_code == 200
    await get(client, "/iiif/plain.png/full/10,/0/default.jpg")
    metrics = (await get(client, "/metrics")).text
    assert 'special_answers_total{route="stream",status="200"}' in metrics
    assert "special_source_gets_total" in metrics
