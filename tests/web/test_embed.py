"""The application below a path of another one, as the documentation shows it."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount

import special
from special import Settings, create_app
from tests.support.live import MASTERS

DOCS = Path(special.__file__).parent / "docs"
EXAMPLE = (DOCS / "examples" / "fastapi_app.py").read_text("utf-8")

pytestmark = pytest.mark.service


def test_the_page_shows_the_example_as_it_is() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "embed.md").read_text("utf-8"), re.DOTALL)
    assert block == EXAMPLE


async def test_the_example_serves_images_below_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    masters = tmp_path / "masters"
    (masters / "private").mkdir(parents=True)
    shutil.copy(MASTERS / "map.jp2", masters)
    shutil.copy(MASTERS / "moon.jpg", masters / "private")
    for name, value in {"MASTERS": str(masters), "SPECIAL_HOME": str(tmp_path), "SPECIAL_DECODERS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(DOCS / "examples")
    app = importlib.import_module("fastapi_app").app
    assert isinstance(app, FastAPI)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://example.org") as client,
    ):
        info = (await client.get("/images/iiif/3/map.jp2/info.json")).json()
        with Image.open(MASTERS / "map.jp2") as master:
            assert (info["width"], info["height"]) == master.size
        assert info["id"] == "http://example.org/images/iiif/3/map.jp2"
        assert (await client.get("/size/map.jp2")).json() == {name: info[name] for name in ("width", "height")}
        absent = await client.get("/size/none.jp2")
        assert (absent.status_code, absent.json()) == (404, {"detail": "There is no image with this identifier."})
        picture = await client.get(f"{info['id']}/full/100,/0/default.jpg")
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
        private = "/images/iiif/3/private%2Fmoon.jpg/full/!500,500/0/default.jpg"
        readers = ({}, {"X-Remote-User": "ada"})
        assert [(await client.get(private, headers=headers)).status_code for headers in readers] == [401, 200]
        assert (await client.get("/images/readyz")).status_code == 200
        moved = await client.get("/images/iiif/3/map.jp2")
        assert (moved.status_code, moved.headers["location"]) == (303, f"{info['id']}/info.json")
        assert [(await client.get(path)).status_code for path in ("/iiif/3/map.jp2/info.json", "/images/none")] == [
            404
        ] * 2


async def test_it_is_mounted_in_starlette_too(tmp_path: Path) -> None:
    images = create_app(Settings(source=str(MASTERS), home=tmp_path, workers=1, decoders=1))
    app = Starlette(routes=[Mount("/a/b", images)], lifespan=lambda _: images.running())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://example.org") as client,
    ):
        proxied = {"X-Forwarded-Prefix": "/c"}
        for headers, base in (({}, "https://example.org/a/b"), (proxied, "https://example.org/c/a/b")):
            info = (await client.get("/a/b/iiif/3/moon.jpg/info.json", headers=headers)).json()
            assert info["id"] == f"{base}/iiif/3/moon.jpg"
        engine = images.engine
        assert isinstance(engine, special.Engine)


def test_the_package_offers_no_more_than_it_says() -> None:
    assert {name for name in special.__all__ if getattr(special, name)} == set(special.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = special.nothing
