"""Pages of a master over HTTP: each has its own description, pixels, tiles, stored sizes and places in every cache."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import pyvips
from PIL import Image

from fixtures.tiff_pages import put_together, take_apart
from special.catalogue import NOTHING, PUBLIC, Caller, Entry, Hooks, Verdict
from special.settings import load
from special.web.app import App
from tests.support import pdfs

pytestmark = pytest.mark.service

Pixels = npt.NDArray[np.uint8]
ALL = "full/max/0/default.png"
REGION = "40,20,200,100/max/0/default.png"


def picture(seed: int, width: int, height: int) -> Pixels:
    """Noise, (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


PAGES = [picture(n, 640 - 20 * n, 480 - 10 * n) for n in range(4)]


def write(path: Path, pages: list[Pixels]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(it) for it in pages]
    first.save(path, "tiff", save_all=True, append_images=others, compression="tiff_deflate")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "masters" / "book.tif", PAGES)
    return tmp_path


@asynccontextmanager
async def site(root: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen: dict[str, Any] = {"source": str(root / "masters"), "decoders": 1, "volume": root / "volume"} | settings
    app = App(load(thumbs=str(root / "thumbs"), home=root / "home", **chosen))
    async with app.running():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://example.org", timeout=60) as client:
            yield client


async def shown(client: httpx.AsyncClient, path: str) -> Pixels:
    """The picture at an address, (height, width, 3)."""
    answer = await client.get(f"/iiif/3/{path}")
    assert answer.status_code == 200, f"{path}: {answer.text}"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


async def test_each_page_is_an_image(root: Path) -> None:
    async with site(root) as client:
        for number, pixels in enumerate(PAGES, 1):
            name = "book.tif" if number == 1 else f"book.tif;{number}"
            info = (await client.get(f"/iiif/3/{name}/info.json")).json()
            assert info["id"] == f"http://example.org/iiif/3/{name}"
            assert (info["width"], info["height"]) == (pixels.shape[1], pixels.shape[0])
            assert np.array_equal(await shown(client, f"{name}/{ALL}"), pixels)
            assert np.array_equal(await shown(client, f"{name}/{REGION}"), pixels[20:120, 40:240])
            assert np.array_equal(await shown(client, f"book.tif%3B{number}/{REGION}"), pixels[20:120, 40:240])
            small = await shown(client, f"{name}/full/!100,100/0/default.png")
            assert max(small.shape) == 100


async def test_pages_share_no_entity_tag(root: Path) -> None:
    same = picture(9, 400, 300)
    write(root / "masters" / "same.tif", [same, same, same])
    async with site(root) as client:
        for request in (ALL, REGION, "info.json"):
            tags = [(await client.get(f"/iiif/3/same.tif{it}/{request}")).headers["etag"] for it in ("", ";2", ";3")]
            assert len(set(tags)) == 3
            again = await client.get(f"/iiif/3/same.tif;2/{request}", headers={"If-None-Match": tags[1]})
            assert again.status_code == 304


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("book.tif;5/info.json", 404, "there is no page 5: it has 4 pages"),
        (f"book.tif;5/{ALL}", 404, "there is no page 5: it has 4 pages"),
        ("book.tif;0/info.json", 400, "A page is a number from 1"),
        (f"book.tif;03/{ALL}", 400, "A page is a number from 1"),
        ("book.tif;100000/info.json", 400, "A page is a number from 1"),
        ("book.tif;x/info.json", 404, "There is no image with this identifier"),
        ("book.tif;3;2/info.json", 404, "There is no image with this identifier"),
        ("none.tif;2/info.json", 404, "There is no image with this identifier"),
        ("..;2/info.json", 404, "No image has this identifier"),
        ("a%2F..;2/info.json", 404, "No image has this identifier"),
        ("book.tif/info.json?page=3", 400, "behind the identifier"),
        (f"book.tif/{ALL}?page=3", 400, "behind the identifier"),
        (f"book.tif/{ALL}?x=1&p%61ge=", 400, "behind the identifier"),
    ],
)
async def test_what_is_no_page_is_refused_with_a_sentence(root: Path, path: str, status: int, words: str) -> None:
    async with site(root) as client:
        for _ in range(2):  # the second time from what is remembered
            answer = await client.get(f"/iiif/3/{path}")
            assert (answer.status_code, words in answer.text) == (status, True), answer.text


async def test_pages_of_a_pdf_are_drawn(root: Path) -> None:
    red = pdfs.Rectangle(0, 0, 50, 72, (1, 0, 0))
    pages = [pdfs.Page(entries="/MediaBox [0 0 1440 720]"), pdfs.Page([red], entries="/MediaBox [0 0 144 72]")]
    (root / "masters" / "atlas").write_bytes(pdfs.written(pdfs.document(pages), "objects"))
    async with site(root, pdf_dpi=144) as client:
        info = (await client.get("/iiif/3/atlas/info.json")).json()
        assert (info["width"], info["height"]) == (2880, 1440)
        info = (await client.get("/iiif/3/atlas;2/info.json")).json()
        assert (info["width"], info["height"]) == (288, 144)
        picture = await shown(client, f"atlas;2/{ALL}")
        assert (picture[:, :100] == [255, 0, 0]).all()
        assert (picture[:, 100:] == 255).all()
        assert np.array_equal(await shown(client, "atlas;2/pct:25,0,25,100/max/0/default.png"), picture[:, 72:144])
        assert (await client.get("/iiif/3/atlas;3/info.json")).status_code == 404
    async with site(root, pdf_dpi=72, keep_profile=True) as client:  # the volume remembers another setting's
        small = (await client.get("/iiif/3/atlas;2/full/72,/0/default.jpg")).content
        assert Image.open(io.BytesIO(small)).info["dpi"] == (36, 36)
        info = (await client.get("/iiif/3/atlas;2/info.json")).json()
        assert (info["width"], info["height"]) == (144, 72)


async def test_a_page_has_the_tag_of_its_image(root: Path) -> None:
    async with site(root, cache_tag_header="Cache-Tag") as client:
        for path in ("book.tif/info.json", "book.tif;2/info.json", f"book.tif;3/{REGION}"):
            assert (await client.get(f"/iiif/3/{path}")).headers["cache-tag"] == "book.tif"


async def test_the_first_page_is_the_image_itself(root: Path) -> None:
    async with site(root) as client:
        one, first = [await client.get(f"/iiif/3/book.tif{it}/{ALL}") for it in ("", ";1")]
        assert (one.content, one.headers["etag"]) == (first.content, first.headers["etag"])


async def test_a_key_that_looks_like_a_page_is_reached(root: Path) -> None:
    odd = picture(7, 90, 70)
    write(root / "masters" / "book.tif;3", [odd, PAGES[0]])
    async with site(root) as client:
        assert np.array_equal(await shown(client, f"book.tif;3/{ALL}"), PAGES[2])
        assert np.array_equal(await shown(client, f"book.tif;3;1/{ALL}"), odd)
        assert np.array_equal(await shown(client, f"book.tif;3;2/{ALL}"), PAGES[0])
    async with site(root, pages=False) as client:
        assert np.array_equal(await shown(client, f"book.tif;3/{ALL}"), odd)
        assert (await client.get("/iiif/3/book.tif;2/info.json")).status_code == 404
        assert (await client.get("/iiif/3/book.tif;0/info.json")).status_code == 404


async def jobs(client: httpx.AsyncClient) -> list[str]:
    """What this process counted of its decoders' jobs."""
    return [line for line in (await client.get("/metrics")).text.splitlines() if "decoder_jobs_total" in line]


async def test_tiles_come_from_the_pyramid_of_their_own_page(root: Path) -> None:
    colours = [(250, 20, 20), (20, 20, 250), (20, 250, 20)]
    flat = [np.full((1500, 1600, 3), colour, np.uint8) for colour in colours]
    write(root / "masters" / "flat.tif", flat)

    async def tiles(client: httpx.AsyncClient) -> list[list[int]]:
        """The mean colour of a tile of each page."""
        path = "512,512,512,512/512,/0/default.jpg"
        found = [await shown(client, f"flat.tif{it}/{path}") for it in ("", ";2", ";3")]
        return [it.mean(axis=(0, 1)).round().astype(int).tolist() for it in found]

    def pyramids() -> int:
        return len([it for it in (root / "volume").rglob("pyramid-*") if it.suffix == ""])

    async with site(root, promote_after=1) as client:
        while pyramids() < 3:
            assert np.allclose(await tiles(client), colours, atol=4)
            await asyncio.sleep(0.05)
        assert np.allclose(await tiles(client), colours, atol=4)
    async with site(root, promote_after=1) as client:  # what is in the volume is found again
        before = await jobs(client)
        assert np.allclose(await tiles(client), colours, atol=4)
        assert pyramids() == 3
        assert await jobs(client) == before


async def test_a_page_has_stored_sizes_of_its_own(root: Path) -> None:
    async with site(root, store_on_miss=True, sizes="200") as client:
        assert (await client.get("/thumbs/book.tif;2/full/200,/0/default.jpg")).status_code == 404
        width, height = PAGES[1].shape[1], PAGES[1].shape[0]
        size = f"200,{round(200 * height / width)}"
        made = await client.get(f"/iiif/3/book.tif;2/full/{size}/0/default.jpg")
        assert made.headers["x-special-route"] == "stream"
        while not (root / "thumbs" / "book.tif;2" / "special.json").exists():  # noqa: ASYNC110 - a file makes it true
            await asyncio.sleep(0.05)
    sidecar = json.loads((root / "thumbs" / "book.tif;2" / "special.json").read_text())
    assert sidecar["master"]["key"] == "book.tif"
    assert sidecar["master"]["page"] == 2
    async with site(root) as client:
        stored = await client.get(f"/thumbs/book.tif;2/full/{size}/0/default.jpg")
        assert stored.content == made.content
        assert (await client.get("/thumbs/book.tif/info.json")).status_code == 404
        assert (await client.get("/thumbs/book.tif;3/info.json")).status_code == 404
        copied = await client.get(f"/iiif/3/book.tif;2/full/{size}/0/default.jpg")
        assert copied.headers["x-special-route"] == "thumb"
        assert np.array_equal(await shown(client, f"book.tif;2/{REGION}"), PAGES[1][20:120, 40:240])


async def test_a_catalogue_says_which_page_an_image_is(root: Path) -> None:
    with closing(sqlite3.connect(root / "images.sqlite")) as db, db:
        db.execute("CREATE TABLE images (identifier TEXT PRIMARY KEY, url TEXT, page INTEGER)")
        rows = [("whole", "book.tif", None), ("third", "book.tif", 3), ("fourth", "book.tif", 4)]
        db.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
    catalogue = [{"kind": "sqlite", "file": root / "images.sqlite"}]
    async with site(root, catalogue=catalogue, catalogue_ttl_s=0, asset_ttl_s=3600) as client:
        assert np.array_equal(await shown(client, f"third/{ALL}"), PAGES[2])
        assert np.array_equal(await shown(client, f"fourth/{REGION}"), PAGES[3][20:120, 40:240])
        assert np.array_equal(await shown(client, f"whole;3/{ALL}"), PAGES[2])
        assert np.array_equal(await shown(client, f"whole/{ALL}"), PAGES[0])
        tag = (await client.get(f"/iiif/3/third/{ALL}")).headers["etag"]
        for name in ("third;2", "third;4", "fourth;2"):
            assert (await client.get(f"/iiif/3/{name}/info.json")).status_code == 404
        with closing(sqlite3.connect(root / "images.sqlite")) as db, db:
            db.execute("UPDATE images SET page = 2 WHERE identifier = 'third'")
        # The same object, and another picture of it.
        answer = await client.get(f"/iiif/3/third/{ALL}", headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert np.array_equal(await shown(client, f"third/{ALL}"), PAGES[1])


class Librarian(Hooks):
    """Code that knows images by name, and closes what it does not know of."""

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        return PUBLIC if (caller.identifier, caller.page) in {("book.tif", 1), ("book.tif", 2)} else NOTHING

    async def describe(self, identifier: str, image: Entry, document: Any) -> dict[str, Any]:
        return {"label": f"of {identifier}"}


async def test_hooks_are_asked_about_the_image_and_told_the_page(root: Path) -> None:
    async with site(root, hooks=f"{__name__}:Librarian") as client:
        assert np.array_equal(await shown(client, f"book.tif;2/{ALL}"), PAGES[1])
        assert (await client.get("/iiif/3/book.tif;2/info.json")).json()["label"] == "of book.tif"
        assert (await client.get(f"/iiif/3/book.tif;3/{ALL}")).status_code == 401


async def test_a_purge_of_the_image_is_one_of_its_pages(root: Path) -> None:
    (root / "token").write_text("a token of administrators")
    header = {"Authorization": "Bearer a token of administrators"}
    replaced = [picture(20 + n, 300, 200) for n in range(4)]
    names = ("book.tif", "book.tif;2", "book.tif;4")
    async with site(root, asset_ttl_s=3600, admin_token_file=root / "token") as client:
        for name in names:
            await shown(client, f"{name}/{REGION}")
        write(root / "masters" / "new.tif", replaced)
        for purged in ("book.tif", "book.tif;2"):
            (root / "masters" / "new.tif").replace(root / "masters" / "book.tif")
            assert (await client.delete(f"/admin/images/{purged}", headers=header)).status_code == 204
            for name, pixels in zip(names, (replaced[0], replaced[1], replaced[3]), strict=True):
                assert np.array_equal(await shown(client, f"{name}/{ALL}"), pixels)
            replaced.reverse()
            write(root / "masters" / "new.tif", replaced)


async def test_a_page_with_levels_is_read_by_them(root: Path) -> None:
    """A pyramid on every page, as `tiffcp` makes of two pyramids: the small size needs the small level alone."""
    parts = []
    for number, pixels in enumerate((picture(30, 2048, 1536), picture(31, 2048, 1536))):
        path = root / f"{number}.tif"
        image = pyvips.Image.new_from_array(pixels)
        image.tiffsave(str(path), tile=True, pyramid=True, compression="deflate", bigtiff=True)
        parts += take_apart(path.read_bytes())
    (root / "masters" / "pyramids.tif").write_bytes(put_together(parts, big=True, place="between"))
    async with site(root) as client:
        for name, number in (("pyramids.tif", 0), ("pyramids.tif;2", 1)):
            info = (await client.get(f"/iiif/3/{name}/info.json")).json()
            assert info["tiles"][0]["scaleFactors"][:4] == [1, 2, 4, 8]
            expected = pyvips.Image.new_from_file(str(root / f"{number}.tif")).numpy()[256:768, 128:640]
            assert np.array_equal(await shown(client, f"{name}/128,256,512,512/max/0/default.png"), expected)
            level = pyvips.Image.new_from_file(str(root / f"{number}.tif"), page=3).numpy()
            small = await shown(client, f"{name}/full/{level.shape[1]},/0/default.png")
            assert np.array_equal(small, level)
        assert (await client.get("/iiif/3/pyramids.tif;3/info.json")).status_code == 404
