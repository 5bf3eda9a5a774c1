"""What the gallery's pages cost, and what they show."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from special.errors import Busy
from special.iiif import IdentifierForm
from special.images import KeyTemplates
from special.serving import gallery
from special.serving.gallery import Gallery, Page
from special.storage import Blob, Folder, Source, open_source
from tests.support.memory import MemorySource

pytestmark = pytest.mark.unit


ANY = KeyTemplates()


class Slow(MemorySource):
    """Lists when it is told to, and records after what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[str] = []
        self.go, self.was_asked = asyncio.Event(), asyncio.Event()

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        self.after.append(after)
        self.was_asked.set()
        await self.go.wait()
        async for blob in super().list(prefix, after=after):
            yield blob


@pytest.fixture
def slow() -> Slow:
    source = Slow()
    source.objects |= dict.fromkeys("abcdef", b"")
    return source


async def test_equal_pages_are_looked_up_once(slow: Slow) -> None:
    shown = Gallery(slow, ANY)
    asked = [asyncio.create_task(shown.page(after="b", count=3)) for _ in range(100)]
    await asyncio.sleep(0)
    slow.go.set()
    assert await asyncio.gather(*asked) == [Page(images=("c", "d", "e"), keys=("c", "d", "e"), next="e")] * 100
    assert (await shown.page(after="b", count=3)).images == ("c", "d", "e")
    assert slow.after == ["b"]


async def test_only_a_few_pages_are_looked_up_at_a_time(slow: Slow) -> None:
    shown = Gallery(slow, ANY)
    asked = [asyncio.create_task(shown.page(after=f"{n}", count=3)) for n in range(100)]
    await asyncio.wait(asked[gallery.MAX_RUNNING :])
    slow.go.set()
    pages = await asyncio.gather(*asked, return_exceptions=True)
    assert (
        pages[: gallery.MAX_RUNNING]
        == [Page(images=("a", "b", "c"), keys=("a", "b", "c"), next="c")] * gallery.MAX_RUNNING
    )
    assert {type(it) for it in pages[gallery.MAX_RUNNING :]} == {Busy}
    assert len(slow.after) == gallery.MAX_RUNNING
    assert (await shown.page(after="99", count=3)).images == ("a", "b", "c")


async def test_closing_ends_what_is_looked_up(slow: Slow) -> None:
    shown = Gallery(slow, ANY)
    asked = asyncio.create_task(shown.page(after="", count=3))
    await slow.was_asked.wait()
    await shown.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


KEYS = ("a.jpg", "a/x.jpg", "a-b.jpg", "b/c/d.jpg", "b/c.jpg", "b/é/1.tif", "c.jpg", "b.d/1.tif", "b0.png")
NO_IMAGES = (".DS_Store", "Thumbs.db", "b/notes.txt", "b/.hidden.jpg", "b/c.xml", "c.md5", "d.tar.gz")


@pytest.fixture(params=["folder", "bucket"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """The same objects in a folder and in a bucket, with a bucket's own ways."""
    keys = (*KEYS, *NO_IMAGES)
    if request.param == "bucket":
        return MemorySource(dict.fromkeys([*keys, "b/", "empty/"], b""))
    for name in keys:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return open_source(str(tmp_path))


async def whole(shown: Gallery, folder: str, count: int) -> list[Page]:
    pages = [await shown.page(folder=folder, count=count)]
    while pages[-1].next is not None:
        pages.append(await shown.page(folder=folder, after=pages[-1].next, count=count))
    return pages


@pytest.mark.parametrize("count", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("folder", "folders", "images"),
    [
        pytest.param("", ["a/", "b.d/", "b/", "empty/"], ["a-b.jpg", "a.jpg", "b0.png", "c.jpg"], id="all"),
        pytest.param("b/", ["b/c/", "b/é/"], ["b/c.jpg"], id="a folder"),
        pytest.param("b/c/", [], ["b/c/d.jpg"], id="a folder in it"),
        pytest.param("empty/", [], [], id="an empty one"),
        pytest.param("none/", [], [], id="none of that name"),
        pytest.param("../", [], [], id="nothing above"),
    ],
)
async def test_a_page_has_what_is_right_below_a_folder(
    source: Source, folder: str, folders: list[str], images: list[str], count: int
) -> None:
    pages = await whole(Gallery(source, ANY), folder, count)
    assert [it for page in pages for it in page.folders] == folders
    assert [it for page in pages for it in page.images] == images
    assert all(len(page.folders) + len(page.images) <= count for page in pages)


async def test_a_large_folder_of_a_bucket_costs_one_listing() -> None:
    bucket = MemorySource(dict.fromkeys([f"a/{n:05}.jpg" for n in range(5000)] + ["b.jpg"], b""))
    page = await Gallery(bucket, ANY).page(count=10)
    assert page == Page(folders=("a/",), images=("b.jpg",), keys=("b.jpg",), next=None)
    assert bucket.verbs("list") == ["", ""]


async def test_identifiers_are_what_the_key_templates_say(source: Source) -> None:
    page = await Gallery(source, KeyTemplates(("{id}.jpg",))).page(count=100)
    assert page.images == ("a-b", "a", "c")
    page = await Gallery(source, KeyTemplates(id_segments=2)).page(folder="b/", count=100)
    assert page.images == ("b/c.jpg",)


async def test_folders_without_a_name_are_shown_where_odd_keys_are_served() -> None:
    bucket = MemorySource(dict.fromkeys(["a//b.jpg", "a/c.jpg"], b""))
    assert (await Gallery(bucket, ANY).page(folder="a/", count=9)).folders == ()
    odd = Gallery(bucket, KeyTemplates(form=IdentifierForm.ODD))
    assert (await odd.page(folder="a/", count=9)).folders == ("a//",)
    assert (await odd.page(folder="a//", count=9)).images == ("a//b.jpg",)


async def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside" / "x").mkdir(parents=True)
    (tmp_path / "outside" / "1.jpg").touch()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "source" / "1.jpg").symlink_to(tmp_path / "outside" / "1.jpg")
    shown = Gallery(open_source(str(tmp_path / "source")), ANY)
    assert await shown.page(count=9) == Page()
    assert await shown.page(folder="link/", count=9) == Page()


async def test_a_page_looks_at_a_bounded_number_of_entries(tmp_path: Path) -> None:
    for n in range(3000):
        (tmp_path / f"{n:04}.jpg").touch()
    folder = open_source(str(tmp_path))
    assert isinstance(folder, Folder)
    keys = [blob.key async for blob in folder.list()]
    assert keys == [f"{n:04}.jpg" for n in range(3000)]
    seen = os.listdir(tmp_path)

    async def first(count: int, after: str, max_entries: int) -> list[str]:
        found = await folder.first_entries(count, folder="", after=after, max_entries=max_entries, wanted=bool)
        return list(found)

    assert await first(5000, "", 2500) == sorted(seen[:2500])
    assert await first(2, keys[1000], 3000) == keys[1001:1003]


async def listed(folder: Folder) -> list[str]:
    return list(await folder.first_entries(1, folder="", after="", max_entries=10, wanted=bool))


async def test_reads_do_not_wait_for_listings(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    folder, held, free = open_source(str(tmp_path)), threading.Event(), threading.Event()
    assert isinstance(folder, Folder)

    def hold() -> None:
        held.set()
        free.wait()

    holding = asyncio.create_task(folder._listed(hold))
    await asyncio.to_thread(held.wait)
    listings = [asyncio.create_task(listed(folder)) for _ in range(50)]
    assert (await folder.stat("a")).size == 7
    assert not any(listing.done() for listing in listings)
    free.set()
    await holding
    assert await asyncio.gather(*listings) == [["a"]] * 50
