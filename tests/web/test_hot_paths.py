"""What is remembered of a request never outlives the right to be answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from special.settings import load
from special.web.app import App
from tests.support.logins import SECRET, token

pytestmark = pytest.mark.service

ROUTES = [
    pytest.param("/iiif/3/a.png/full/320,/0/default.jpg", id="thumb"),
    pytest.param("/iiif/3/a.png/full/300,/0/default.jpg", id="derivative"),
    pytest.param("/iiif/3/a.png/full/500,/0/default.jpg", id="stream"),
    pytest.param("/iiif/3/a.png/0,0,100,100/max/0/default.jpg", id="tile"),
    pytest.param("/thumbs/a.png/full/320,240/0/default.jpg", id="thumbs"),
]
OPEN = {"o": [[320, 240], [160, 120]]}
CLOSED = {"o": [[160, 120]], "a": [[320, 240]]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "masters").mkdir()
    picture = Image.new("RGB", (640, 480), "teal")
    picture.save(tmp_path / "masters" / "a.png")
    for folder, side in (("open", 160), ("open", 320), ("auth", 320)):
        (tmp_path / "thumbs" / "a.png" / folder).mkdir(parents=True, exist_ok=True)
        picture.resize((side, side * 3 // 4)).save(tmp_path / "thumbs" / "a.png" / folder / f"{side}.jpg")
    (tmp_path / "key").write_bytes(SECRET)
    restrict(tmp_path, OPEN)
    return tmp_path


def restrict(root: Path, sizes: dict[str, list[list[int]]]) -> None:
    (root / "thumbs" / "a.png" / "s.json").write_text(json.dumps(sizes))


@pytest.fixture
async def client(root: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = App(
        load(
            source=str(root / "masters"),
            thumbs=str(root / "thumbs"),
            home=root,
            decoders=1,
            asset_ttl_s=0,
            jwt_key=root / "key",
            jwt_algorithms="HS256",
            jwt_cookie="login",
        )
    )
    async with app.running(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        yield client


@pytest.mark.parametrize("path", ROUTES)
async def test_an_image_that_becomes_restricted_is_refused_though_its_plan_was_remembered(
    client: httpx.AsyncClient, root: Path, path: str
) -> None:
    first = [await client.get(path) for _ in range(3)]
    assert [it.status_code for it in first] == [200] * 3
    restrict(root, CLOSED)
    for headers in ({}, {"If-None-Match": first[0].headers["etag"]}, {"Range": "bytes=0-9"}):
        refused = await client.get(path, headers=headers)
        assert (refused.status_code, refused.headers["cache-control"]) == (401, "no-store")
        assert (await client.head(path, headers=headers)).status_code == 401
    known = await client.get(path, headers={"Cookie": f"login={token('reader')}"})
    assert (known.status_code, known.headers["cache-control"]) == (200, "private, no-store")
    restrict(root, OPEN)
    again = await client.get(path)
    assert (again.status_code, again.headers["cache-control"]) == (200, "public, max-age=86400")


async def test_a_token_that_expires_opens_nothing_more(client: httpx.AsyncClient, root: Path) -> None:
    restrict(root, CLOSED)
    paths = [str(route.values[0]) for route in ROUTES]
    headers = {"Cookie": f"login={token('reader', lasts_s=-1)}"}  # good for the leeway of ten seconds
    etags = {}
    for path in paths:
        first = await client.get(path, headers=headers)
        assert first.status_code == 200
        etags[path] = first.headers["etag"]
        assert (await client.get(path)).status_code == 401, "what a reader's plan was is nobody else's"
    async with asyncio.timeout(60):
        while (await client.get(paths[0], headers=headers)).status_code == 200:  # noqa: ASYNC110  it is time itself
            await asyncio.sleep(0.2)
    for path in paths:
        assert (await client.get(path, headers=headers)).status_code == 401
        assert (await client.get(path, headers=headers | {"If-None-Match": etags[path]})).status_code == 401
