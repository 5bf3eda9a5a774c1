"""Overlays and redactions reach every kind of answer, and one caller's are never another's."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from special.catalogue import Caller, Entry, Hooks, Mark
from special.settings import load
from special.web.app import App

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.service]

MASTERS = Path(__file__).parents[2] / "fixtures" / "masters"
WIDTH, HEIGHT = 1200, 1200
SECRET = Mark(25, 25, 25, 25)
"""Pixels 300 to 600 of both sides."""


def stamp() -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (10, 10), (255, 0, 0, 255)).save(data, "PNG")
    return data.getvalue()


class Censor(Hooks):
    """Hides a part of the picture from all but the editor, and stamps the visitors' copies."""

    async def redact(self, caller: Caller, image: Entry) -> Sequence[Mark]:
        if caller.headers.get("x-who") == "broken":
            raise KeyError("boxes")
        return () if caller.headers.get("x-who") == "editor" else (SECRET,)

    async def overlay(self, caller: Caller, image: Entry) -> Sequence[Mark]:
        return (Mark(75, 75, 25, 25, stamp()),) if caller.headers.get("x-who") == "visitor" else ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    root = tmp_path_factory.mktemp("marks")
    (root / "masters").mkdir()
    (root / "masters" / "tiles.tif").write_bytes((MASTERS / "tiles.tif").read_bytes())
    grey = Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200))
    grey.save(root / "masters" / "grey.png")
    for name in ("tiles.tif", "grey.png"):
        folder = root / "thumbs" / name / "open"
        folder.mkdir(parents=True)
        grey.resize((400, 400)).save(folder / "400.jpg")
        (root / "thumbs" / name / "s.json").write_text(json.dumps({"o": [[400, 400]], "a": []}))
    (root / "special.toml").write_text(f'hooks = "{__name__}:Censor"\ndecoders = 1\nstore_on_miss = true\n')
    places = {"source": str(root / "masters"), "thumbs": str(root / "thumbs"), "volume": root / "volume"}
    app = App(load(root / "special.toml", home=root / "home", **places))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://x.org") as client:
        yield client


def pixels(answer: httpx.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


PATHS = {
    "thumb": "/iiif/3/grey.png/full/400,/0/default.jpg",
    "level 0": "/thumbs/grey.png/full/400,400/0/default.jpg",
    "level 0, shrunk": "/thumbs/grey.png/full/200,/0/default.jpg",
    "derivative": "/iiif/3/grey.png/full/133,/0/default.png",
    "stream": "/iiif/3/grey.png/full/800,/0/default.png",
    "max": "/iiif/2/grey.png/full/full/0/default.jpg",
    "tile": "/iiif/3/grey.png/0,0,1200,1000/400,/0/default.jpg",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_every_route_shows_each_caller_their_own(client: httpx.AsyncClient, path: str) -> None:
    seen: dict[str, tuple[str, bytes]] = {}
    for who in ("editor", "visitor", "nobody", "editor", "visitor", "nobody"):  # the second time from every cache
        answer = await client.get(path, headers={"X-Who": who})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "private, no-store"
        found = pixels(answer)
        side = found.shape[1]
        inner = found[side * 26 // 100 : side * 49 // 100, side * 26 // 100 : side * 49 // 100]
        corner = found[side * 77 // 100 : side * 80 // 100, side * 80 // 100 : side * 98 // 100]
        edge = found[: side * 20 // 100]
        assert np.abs(inner - (200 if who == "editor" else 0)).max() < 12
        assert np.abs(corner - ((254, 0, 0) if who == "visitor" else (200, 200, 200))).max() < 12
        assert np.abs(edge - 200).max() < 12
        again = (answer.headers["etag"], answer.content)
        assert seen.setdefault(who, again) == again
        same = await client.get(path, headers={"X-Who": who, "If-None-Match": answer.headers["etag"]})
        assert same.status_code == 304
    etags = {etag for etag, _ in seen.values()}
    assert len(etags) == 3
    for who, (etag, _) in seen.items():
        for other in {"editor", "visitor", "nobody"} - {who}:
            answer = await client.get(path, headers={"X-Who": other, "If-None-Match": etag})
            assert answer.status_code == 200, "what one caller has is not what another would get"


async def test_stored_tiles_pass_through_where_no_mark_is(client: httpx.AsyncClient) -> None:
    info = (await client.get("/iiif/3/tiles.tif/info.json", headers={"X-Who": "nobody"})).json()
    side = info["tiles"][0]["width"]
    for x in range(0, WIDTH - side, side):
        for y in range(0, HEIGHT - side, side):
            path = f"/iiif/3/tiles.tif/{x},{y},{side},{side}/{side},/0/default.jpg"
            plain = await client.get(path, headers={"X-Who": "editor"})
            marked = await client.get(path, headers={"X-Who": "nobody"})
            is_hidden = x < 600 and y < 600 and x + side > 300 and y + side > 300
            assert (plain.content != marked.content) == is_hidden
            assert (plain.headers["etag"] != marked.headers["etag"]) == is_hidden
            if is_hidden:
                # JPEG spreads what is beside the black into it, within its blocks.
                hidden = pixels(marked)[max(0, 316 - y) : 584 - y, max(0, 316 - x) : 584 - x]
                assert not hidden.size or hidden.max() < 6


async def test_turned_and_cut_the_same_place_is_hidden(client: httpx.AsyncClient) -> None:
    for request, inner in [
        ("full/800,/90/default.png", (slice(210, 390), slice(410, 590))),
        ("full/800,/!0/default.png", (slice(210, 390), slice(410, 590))),
        ("350,350,200,200/max/0/default.png", (slice(0, 200), slice(0, 200))),
        ("350,350,200,200/7,/0/bitonal.png", (slice(0, 7), slice(0, 7))),
    ]:
        answer = await client.get(f"/iiif/3/grey.png/{request}", headers={"X-Who": "nobody"})
        assert pixels(answer)[inner].max() == 0, request


async def test_code_that_cannot_tell_what_to_hide_shows_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATHS["thumb"], headers={"X-Who": "broken"})
    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")


async def test_nothing_with_marks_is_stored(
    client: httpx.AsyncClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = next(it for it in tmp_path_factory.getbasetemp().iterdir() if it.name.startswith("marks"))
    assert sorted(it.name for it in (root / "thumbs" / "grey.png").rglob("*.jpg")) == ["400.jpg"]
