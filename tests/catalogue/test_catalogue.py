"""Kinds are asked in order, each image once, and a kind that fails opens nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from special.catalogue.catalogue import Catalogue
from special.catalogue.entry import Entry
from special.errors import CatalogueError, ConfigurationError, Missing, Outside, SpecialError
from special.storage import Sources, open_source


@dataclass
class FakeKind:
    """Knows what is in a dictionary, or fails, and writes down what it was asked."""

    images: dict[str, Entry] = field(default_factory=dict)
    name: str = "fake"
    error: SpecialError | None = None
    asked: list[tuple[str, Entry | None]] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        self.asked.append((identifier, previous))
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        return self.images.get(identifier)

    def identifiers(self, after: str = "") -> AsyncIterator[str] | None:
        async def listed() -> AsyncIterator[str]:
            for identifier in sorted(self.images):
                if identifier > after:
                    yield identifier

        return listed() if self.images else None

    async def identifiers_of(self, place: str) -> Sequence[str] | None:
        return [name for name, entry in self.images.items() if place in entry.places] if self.images else None

    async def close(self) -> None:
        pass


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return Sources([open_source(str(tmp_path / "a")), open_source(str(tmp_path / "b"))])


async def test_the_first_that_knows_wins(sources: Sources, tmp_path: Path) -> None:
    first = FakeKind({"one": Entry(("x.tif",))}, "first")
    second = FakeKind({"one": Entry(("y.tif",)), "two": Entry((str(tmp_path / "b" / "z.tif"),))}, "second")
    catalogue = Catalogue([first, second], sources, ttl_s=60)

    assert await catalogue.places("one") == (f"{(tmp_path / 'a').as_uri()}/x.tif",)
    assert await catalogue.places("two") == (f"{(tmp_path / 'b').as_uri()}/z.tif",)
    assert (await catalogue.locate("two")).origin == "second"
    assert [name for name, _ in second.asked] == ["two"]
    assert [it async for it in catalogue.identifiers()] == ["one", "one", "two"]
    assert await catalogue.page("", 5) == ["one"]


async def test_however_many_ask_each_image_is_looked_up_once(sources: Sources) -> None:
    kind = FakeKind({"one": Entry(("x",))}, hold=asyncio.Event())
    catalogue = Catalogue([kind], sources, ttl_s=60)
    asked = [asyncio.create_task(catalogue.locate("one")) for _ in range(50)]
    unknown = [asyncio.create_task(catalogue.locate("none")) for _ in range(50)]
    await asyncio.sleep(0)
    assert kind.hold is not None
    kind.hold.set()
    assert len({id(await it) for it in asked}) == 1
    for it in unknown:
        with pytest.raises(Missing):
            await it
    with pytest.raises(Missing):
        await catalogue.locate("none")
    assert [name for name, _ in kind.asked] == ["one", "none"]


async def test_an_entry_that_is_still_so_stays_the_same_object(sources: Sources) -> None:
    kind = FakeKind({"one": Entry(("x",), max_unauthorised=400)})
    catalogue = Catalogue([kind], sources, ttl_s=0)

    first = await catalogue.locate("one")
    assert await catalogue.locate("one") is first
    kind.images["one"] = Entry(("x",), max_unauthorised=200)
    changed = await catalogue.locate("one")

    assert changed.max_unauthorised == 200
    assert [previous for _, previous in kind.asked] == [None, first, first]


async def test_another_kind_is_not_told_what_this_one_said(sources: Sources) -> None:
    first, second = FakeKind(name="first"), FakeKind({"one": Entry(("x",))}, "second")
    catalogue = Catalogue([first, second], sources, ttl_s=0)
    await catalogue.locate("one")
    await catalogue.locate("one")
    assert [previous for _, previous in first.asked] == [None, None]


@pytest.mark.parametrize("known_before", [False, True])
async def test_a_kind_that_fails_is_a_503_and_never_one_that_knows_nothing(
    sources: Sources, known_before: bool
) -> None:
    strict = FakeKind({"one": Entry(("x",), max_unauthorised=0)}, "strict")
    free = FakeKind({"one": Entry(("x",))}, "free")
    catalogue = Catalogue([strict, free], sources, ttl_s=0)
    if known_before:
        await catalogue.locate("one")
    strict.error = CatalogueError("down")
    for _ in range(2):
        with pytest.raises(CatalogueError) as caught:
            await catalogue.locate("one")
        assert caught.value.status == 503
    assert free.asked == []
    strict.error = None
    assert (await catalogue.locate("one")).max_unauthorised == 0


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "../x",
        "s3://other/x",
        "https://evil.example/x",
        "{a}/../b/x",
        "{a}x",
        "{a}",
    ],
)
async def test_a_place_outside_the_sources_is_refused_and_that_is_remembered(
    sources: Sources, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind = FakeKind({"one": Entry((place.replace("{a}", str(tmp_path / "a")),))})
    catalogue = Catalogue([kind], sources, ttl_s=60)
    for _ in range(2):
        with pytest.raises(Outside):
            await catalogue.locate("one")
    assert len(kind.asked) == 1
    assert "'one' is refused" in caplog.text


async def test_kinds_know_images_and_not_their_pages(sources: Sources) -> None:
    kind = FakeKind({"one": Entry(("x.tif",), max_unauthorised=0), "one;2": Entry(("y.tif",))})
    catalogue = Catalogue([kind], sources, ttl_s=60)
    first = await catalogue.locate("one")
    assert await catalogue.locate("one;3") is first
    assert catalogue.peek("one;7") is first
    assert [await catalogue.page_of(it) for it in ("one", "one;3")] == [1, 3]
    assert [asked for asked, _ in kind.asked] == ["one"]
    catalogue.forget("one;3")
    assert catalogue.peek("one") is None
    own = await catalogue.locate("one;2;1")  # an image whose own name looks like that of a page
    assert own.places[0].endswith("y.tif")
    assert await catalogue.page("", 5) == [it async for it in catalogue.identifiers()] == ["one", "one;2;1"]
    assert await catalogue.page("one", 5) == ["one;2;1"]
    assert await catalogue.identifiers_of("y.tif") == ("one;2;1",)


async def test_an_image_that_is_a_page_has_no_pages(sources: Sources) -> None:
    kind = FakeKind({"two": Entry(("x.tif",), page=2), "first": Entry(("x.tif",), page=1)})
    catalogue = Catalogue([kind], sources, ttl_s=60)
    assert await catalogue.page_of("two") == 2
    for identifier in ("two;2", "two;3", "first;2"):
        with pytest.raises(Missing, match="has no pages"):
            await catalogue.locate(identifier)


def test_one_place_is_a_tuple_too() -> None:
    with pytest.raises(TypeError, match="tuple"):
        Entry("x.tif")  # type: ignore[arg-type]


async def test_what_rules_may_call_an_image(sources: Sources, tmp_path: Path) -> None:
    catalogue = Catalogue([FakeKind({"one": Entry((str(tmp_path / "b" / "m" / "x.tif"),))})], sources, ttl_s=60)
    entry = await catalogue.locate("one")
    assert catalogue.names(entry) == ("m/x.tif", f"{(tmp_path / 'b').as_uri()}/m/x.tif")
    assert await catalogue.identifiers_of(entry.places[0]) == ()


async def test_kinds_that_cannot_list_say_so(sources: Sources) -> None:
    catalogue = Catalogue([FakeKind()], sources, ttl_s=60)
    with pytest.raises(CatalogueError, match="cannot list"):
        [it async for it in catalogue.identifiers()]
    assert await catalogue.page("", 5) == []


async def test_images_of_an_object_are_found_by_its_key_in_the_default_source_too(
    sources: Sources, tmp_path: Path
) -> None:
    first, second = (it.root for it in sources.members)
    kind = FakeKind({"key": Entry(("x.tif",)), "whole": Entry((f"{first}x.tif",)), "far": Entry((f"{second}x.tif",))})
    catalogue = Catalogue([FakeKind({}), kind], sources, ttl_s=60)
    assert set(await catalogue.identifiers_of(f"{first}x.tif")) == {"key", "whole"}
    assert await catalogue.identifiers_of(f"{second}x.tif") == ("far",)
    assert await catalogue.identifiers_of("s3://elsewhere/x.tif") == ()


async def test_where_no_kind_can_tell_the_images_of_an_object_that_is_said(sources: Sources) -> None:
    catalogue = Catalogue([FakeKind({}, "web")], sources, ttl_s=60)
    assert not catalogue.lists_images
    with pytest.raises(ConfigurationError, match=r"web cannot tell which images the object s3://b/x\.tif"):
        await catalogue.identifiers_of("s3://b/x.tif")
    assert Catalogue([FakeKind({}), FakeKind({"one": Entry(("x.tif",))})], sources, ttl_s=60).lists_images
