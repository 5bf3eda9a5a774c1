"""What the gallery's pages cost, and what they show."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from special.errors import Busy
from special.serving import gallery
from special.serving.gallery import Gallery
from special.storage import Blob, Folder, open_source
from tests.support.memory import MemorySource

pytestmark = pytest.mark.unit


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
    shown = Gallery(slow)
    asked = [asyncio.create_task(shown.page(after="b", count=3)) for _ in range(100)]
    await asyncio.sleep(0)
    slow.go.set()
    assert await asyncio.gather(*asked) == [("c", "d", "e")] * 100
    assert await shown.page(after="b", count=3) == ("c", "d", "e")
    assert slow.after == ["b"]


async def test_only_a_few_pages_are_looked_up_at_a_time(slow: Slow) -> None:
    shown = Gallery(slow)
    asked = [asyncio.create_task(shown.page(after=f"{n}", count=3)) for n in range(100)]
    await asyncio.wait(asked[gallery.MAX_RUNNING :])
    slow.go.set()
    pages = await asyncio.gather(*asked, return_exceptions=True)
    assert pages[: gallery.MAX_RUNNING] == [("a", "b", "c")] * gallery.MAX_RUNNING
    assert {type(it) for it in pages[gallery.MAX_RUNNING :]} == {Busy}
    assert len(slow.after) == gallery.MAX_RUNNING
    assert await shown.page(after="99", count=3) == ("a", "b", "c")


async def test_closing_ends_what_is_looked_up(slow: Slow) -> None:
    shown = Gallery(slow)
    asked = asyncio.create_task(shown.page(after="", count=3))
    await slow.was_asked.wait()
    await shown.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_a_folder_is_listed_by_pages_in_the_order_of_keys(tmp_path: Path) -> None:
    for name in ("a.jpg", "a/x.jpg", "a-b.jpg", "b/c/d.jpg", "b/c.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shown, pages = Gallery(open_source(str(tmp_path))), [()]
    while page := await shown.page(after=pages[-1][-1] if pages[-1] else "", count=2):
        pages.append(page)
    assert pages[1:] == [("a-b.jpg", "a.jpg"), ("a/x.jpg", "b/c.jpg"), ("b/c/d.jpg", "c.jpg")]


async def test_a_page_looks_at_a_bounded_number_of_entries(tmp_path: Path) -> None:
    for n in range(3000):
        (tmp_path / f"{n:04}.jpg").touch()
    folder = open_source(str(tmp_path))
    assert isinstance(folder, Folder)
    keys = [blob.key async for blob in folder.list()]
    assert keys == [f"{n:04}.jpg" for n in range(3000)]
    seen = os.listdir(tmp_path)
    assert await folder.first_keys(5000, after="", max_entries=2500) == sorted(seen[:2500])
    assert await folder.first_keys(2, after=keys[1000], max_entries=3000) == keys[1001:1003]


async def test_reads_do_not_wait_for_listings(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    folder, held, free = open_source(str(tmp_path)), threading.Event(), threading.Event()
    assert isinstance(folder, Folder)

    def hold() -> None:
        held.set()
        free.wait()

    holding = asyncio.create_task(folder._listed(hold))
    await asyncio.to_thread(held.wait)
    listings = [asyncio.create_task(folder.first_keys(1, after="", max_entries=10)) for _ in range(50)]
    assert (await folder.stat("a")).size == 7
    assert not any(listing.done() for listing in listings)
    free.set()
    await holding
    assert await asyncio.gather(*listings) == [["a"]] * 50
