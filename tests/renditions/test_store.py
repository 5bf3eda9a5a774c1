"""The keys and files of the store, as a DLCS lays them out and as we do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from special.concurrency import StoreSilence
from special.errors import Denied, Malformed, Missing, Unreachable
from special.geometry import Size
from special.images.asset import Access, Rendition
from special.images.rule import Rule
from special.renditions import RenditionStore, Sidecar, SizesFile, rendition_key
from special.storage.blob import Blob, NotModified, Span, Unless
from special.storage.source import Opened, body
from tests.support.memory import MemorySource

ID = "2/5/leaf"
SIZES = SizesFile(open=(Size(400, 267), Size(200, 133)), auth=(Size(1024, 683),))
SIDECAR = Sidecar(
    key="2/5/leaf.jp2",
    etag='"abc"',
    size_bytes=1234,
    media="image/jp2",
    modified=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    shape=Size(6000, 4000),
    layout=b"\x00layout",
    sizes=SIZES,
    max_unauthorised=500,
    encoding="jpg 85",
    settled=True,
)


def source(files: dict[str, bytes]) -> MemorySource:
    """Files of the image, by what comes after its identifier."""
    return MemorySource({f"{ID}/{name}": data for name, data in files.items()})


def described(renditions: tuple[Rendition, ...]) -> list[tuple[str, str, str]]:
    return [(str(it.size), it.access, it.key) for it in renditions]


@pytest.mark.parametrize(
    ("text", "expected", "limit"),
    [
        pytest.param(
            '{"o":[[400,267],[200,133]]}',
            [("400,267", "open", f"{ID}/open/400.jpg"), ("200,133", "open", f"{ID}/open/200.jpg")],
            None,
            id="all open, no list of restricted ones",
        ),
        pytest.param(
            '{"o":[[200,133],[400,267]],"a":[]}',
            [("400,267", "open", f"{ID}/open/400.jpg"), ("200,133", "open", f"{ID}/open/200.jpg")],
            None,
            id="not in order",
        ),
        pytest.param(
            '{"o":[[267,400]],"a":[[683,1024]]}',
            [("683,1024", "auth", f"{ID}/auth/1024.jpg"), ("267,400", "open", f"{ID}/open/400.jpg")],
            400,
            id="open up to 400, portrait",
        ),
        pytest.param(
            '{"o":[],"a":[[1024,683]]}',
            [("1024,683", "auth", f"{ID}/auth/1024.jpg")],
            0,
            id="all restricted: an empty open list",
        ),
        pytest.param('{"a":[[1,1]]}', [("1,1", "auth", f"{ID}/auth/1.jpg")], 0, id="no open list at all"),
        pytest.param('{"o":[],"a":[]}', [], None, id="nothing stored"),
        pytest.param("{}", [], None, id="nothing said"),
        pytest.param(
            '{"o":[[400,267]],"a":[[400,267]]}',
            [("400,267", "auth", f"{ID}/auth/400.jpg")],
            400,
            id="in both lists: restricted",
        ),
    ],
)
@pytest.mark.parametrize("name", ["s.json", "sizes.json"])
async def test_sizes_file_of_a_dlcs(
    name: str, text: str, expected: list[tuple[str, str, str]], limit: int | None
) -> None:
    kept = await RenditionStore(MemorySource({f"{ID}/{name}": text.encode()})).find(ID)

    assert kept is not None
    assert described(kept.renditions) == expected
    assert kept.rule == Rule(limit)
    assert kept.sidecar is None


async def test_nothing_stored_is_none_and_remembered() -> None:
    bucket = MemorySource()
    store = RenditionStore(bucket)

    assert await store.find(ID) is None
    assert await store.find(ID) is None
    assert sorted(bucket.verbs("open")) == [f"{ID}/s.json", f"{ID}/sizes.json", f"{ID}/special.json"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty object"),
        pytest.param("{", id="no JSON"),
        pytest.param("\xff\xfe", id="no UTF-8 of JSON"),
        pytest.param("[]", id="no object"),
        pytest.param('{"o":{}}', id="no list"),
        pytest.param('{"o":[400]}', id="no pair"),
        pytest.param('{"o":[[400]]}', id="half a pair"),
        pytest.param('{"o":[[400,0]]}', id="no height"),
        pytest.param('{"o":[[400.5,300]]}', id="broken pixels"),
        pytest.param('{"o":[["400","300"]]}', id="text"),
        pytest.param('{"o":[],"formats":[]}', id="no format"),
        pytest.param('{"o":[],"formats":["gif"]}', id="a format that is never stored"),
        pytest.param('{"o":[],"formats":"webp"}', id="no list of formats"),
        pytest.param('{"o":[[true,true]]}', id="truth values"),
    ],
)
@pytest.mark.parametrize("name", ["s.json", "special.json"])
async def test_unreadable_file_is_named(name: str, text: str) -> None:
    store = RenditionStore(MemorySource({f"{ID}/{name}": text.encode()}))

    with pytest.raises(Malformed, match=f"{ID}/{name} cannot be read"):
        await store.find(ID)


def test_sizes_file_golden() -> None:
    assert SIZES.dump() == b'{"o":[[400,267],[200,133]],"a":[[1024,683]]}'
    assert SizesFile.load(json.loads(SIZES.dump())) == SIZES


def test_sizes_file_of_other_formats_golden() -> None:
    both = replace(SIZES, formats=("jpg", "webp"))

    assert both.dump() == b'{"o":[[400,267],[200,133]],"a":[[1024,683]],"formats":["jpg","webp"]}'
    assert SizesFile.load(json.loads(both.dump())) == both
    assert [it.key.removeprefix(f"{ID}/") for it in both.renditions(ID)] == [
        f"{name}.{form}" for name in ("auth/1024", "open/400", "open/200") for form in ("jpg", "webp")
    ]
    assert SizesFile.of(both.renditions(ID)) == both


def test_sidecar_golden() -> None:
    assert SIDECAR.dump() == (
        b'{"version":1,"master":{"key":"2/5/leaf.jp2","etag":"\\"abc\\"","bytes":1234,"media":"image/jp2",'
        b'"modified":"2026-01-02T03:04:05+00:00","width":6000,"height":4000,"layout":"AGxheW91dA=="},'
        b'"sizes":{"o":[[400,267],[200,133]],"a":[[1024,683]]},"max_unauthorised":500,'
        b'"encoding":"jpg 85","settled":true}'
    )
    assert Sidecar.load(json.loads(SIDECAR.dump())) == SIDECAR
    bare = replace(SIDECAR, media=None, modified=None, layout=None, max_unauthorised=None, settled=False)
    assert Sidecar.load(json.loads(bare.dump())) == bare


def test_sidecar_of_a_page_golden() -> None:
    page = replace(SIDECAR, page=3)
    assert page.dump() == SIDECAR.dump().replace(b'"layout":"AGxheW91dA=="}', b'"layout":"AGxheW91dA==","page":3}')
    assert Sidecar.load(json.loads(page.dump())) == page
    assert page.blob("s3://b/") == replace(SIDECAR.blob("s3://b/"), page=3)


def test_sidecar_names_the_masters_version() -> None:
    modified = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert SIDECAR.blob("s3://b/") == Blob("s3://b/", "2/5/leaf.jp2", '"abc"', 1234, "image/jp2", modified)


async def test_sidecar_of_another_version_is_refused() -> None:
    later = SIDECAR.dump().replace(b'"version":1', b'"version":2')

    with pytest.raises(Malformed, match="its version is 2"):
        await RenditionStore(source({"special.json": later})).find(ID)


@pytest.mark.parametrize(
    ("stored", "ours", "expected"),
    [
        pytest.param(SIZES, 500, 500, id="they agree: ours is exact"),
        pytest.param(SIZES, None, None, id="they agree: ours opens"),
        pytest.param(SizesFile(SIZES.open), 300, 300, id="between our two writes, tightening: the new rule"),
        pytest.param(SizesFile(auth=SIZES.auth), None, 0, id="between our two writes, opening: the old rule"),
        pytest.param(SizesFile((Size(200, 133),), SIZES.auth), 500, 200, id="another tool tightened"),
        pytest.param(None, 300, 300, id="side-car alone"),
    ],
)
async def test_stricter_rule_holds_where_files_differ(
    stored: SizesFile | None, ours: int | None, expected: int | None
) -> None:
    files = {"special.json": replace(SIDECAR, max_unauthorised=ours).dump()}
    if stored:
        files["s.json"] = stored.dump()

    kept = await RenditionStore(source(files)).find(ID)

    assert kept is not None
    assert kept.rule == Rule(expected)


async def test_sidecar_of_other_sizes_than_the_file_is_not_believed() -> None:
    """Its shape and version are another image's by then."""
    kept = await RenditionStore(source({"special.json": SIDECAR.dump(), "s.json": SizesFile(SIZES.open).dump()})).find(
        ID
    )

    assert kept is not None
    assert kept.sidecar is None
    assert [it.size for it in kept.renditions] == list(SIZES.open)


async def test_known_image_costs_nothing_then_two_conditional_reads() -> None:
    bucket = source({"s.json": SIZES.dump(), "special.json": SIDECAR.dump()})
    store = RenditionStore(bucket, ttl_s=0)
    first = await store.find(ID)
    bucket.calls.clear()
    second = await store.find(ID)

    assert second == first
    assert sorted(bucket.verbs("open")) == [f"{ID}/s.json", f"{ID}/special.json"]

    patient = RenditionStore(bucket)
    await patient.find(ID)
    bucket.calls.clear()
    assert await patient.find(ID) == first
    assert bucket.calls == []


async def test_changed_sizes_file_is_seen() -> None:
    bucket = source({"s.json": SIZES.dump()})
    store = RenditionStore(bucket, ttl_s=0)
    before = await store.find(ID)
    bucket.objects[f"{ID}/s.json"] = SizesFile(SIZES.open).dump()
    after = await store.find(ID)

    assert before is not None
    assert after is not None
    assert before.version != after.version
    assert after.rule == Rule(None)


@pytest.mark.parametrize(
    ("access", "lies_at", "requests"),
    [
        pytest.param("open", "open/400.jpg", 1, id="open"),
        pytest.param("auth", "auth/400.jpg", 1, id="restricted"),
        pytest.param("auth", "authed/400.jpg", 2, id="restricted, as the paper names it"),
        pytest.param("open", "full/400,267/0/default.jpg", 2, id="legacy"),
        pytest.param("auth", "full/400,267/0/default.jpg", 3, id="legacy, restricted"),
    ],
)
async def test_rendition_is_found_where_it_lies(access: str, lies_at: str, requests: int) -> None:
    bucket = MemorySource({f"{ID}/{lies_at}": b"pixels"})
    size = Size(400, 267)
    rendition = Rendition(size, access, rendition_key(ID, size, access))  # type: ignore[arg-type]

    opened = await RenditionStore(bucket).open_rendition(ID, rendition)

    assert await body(opened) == b"pixels"
    assert len(bucket.verbs("open")) == requests


async def test_restricted_rendition_is_never_read_from_the_open_folder() -> None:
    size = Size(400, 267)
    rendition = Rendition(size, "auth", rendition_key(ID, size, "auth"))

    with pytest.raises(Missing, match="named by its sizes file"):
        await RenditionStore(MemorySource({f"{ID}/open/400.jpg": b"pixels"})).open_rendition(ID, rendition)


async def test_missing_rendition_makes_the_store_look_again() -> None:
    bucket = source({"s.json": SIZES.dump()})
    store = RenditionStore(bucket)
    kept = await store.find(ID)
    assert kept is not None

    with pytest.raises(Missing):
        await store.open_rendition(ID, kept.renditions[0])
    bucket.calls.clear()
    await store.find(ID)

    assert f"{ID}/s.json" in bucket.verbs("open")


async def test_condition_is_passed_on() -> None:
    bucket = MemorySource({f"{ID}/open/400.jpg": b"pixels"})
    size = Size(400, 267)
    rendition = Rendition(size, "open", rendition_key(ID, size, "open"))

    with pytest.raises(NotModified):
        await RenditionStore(bucket).open_rendition(
            ID, rendition, unless=Unless(bucket.blob(f"{ID}/open/400.jpg").etag)
        )


async def test_a_small_rendition_is_read_once_and_then_asked_after() -> None:
    bucket = MemorySource({f"{ID}/open/400.jpg": b"pixels"})
    size = Size(400, 267)
    rendition = Rendition(size, "open", rendition_key(ID, size, "open"))
    store = RenditionStore(bucket, ttl_s=0, cache_bytes=100)
    assert store.peek_rendition(ID, rendition) is None

    for _ in range(3):  # not believed for a moment: the second and third are conditional, and read no body
        assert await body(await store.open_rendition(ID, rendition)) == b"pixels"
    assert len(bucket.verbs("open")) == 3
    bucket.objects[f"{ID}/open/400.jpg"] = b"others"
    assert await body(await store.open_rendition(ID, rendition)) == b"others"

    believing = RenditionStore(bucket, cache_bytes=100)
    opened = await asyncio.gather(*(believing.open_rendition(ID, rendition) for _ in range(10)))
    assert [await body(each) for each in opened] == [b"others"] * 10
    cached = believing.peek_rendition(ID, rendition)
    assert cached is not None
    assert cached.data == b"others"
    assert len(bucket.verbs("open")) == 5
    with pytest.raises(NotModified):
        await believing.open_rendition(ID, rendition, unless=Unless(cached.blob.etag))


@pytest.mark.parametrize("side", [pytest.param(1024, id="large"), pytest.param(400, id="too heavy")])
async def test_what_is_not_kept_in_memory_is_read_each_time(side: int) -> None:
    bucket = MemorySource({f"{ID}/open/{side}.jpg": b"p" * 101})
    size = Size(side, side)
    rendition = Rendition(size, "open", rendition_key(ID, size, "open"))
    store = RenditionStore(bucket, cache_bytes=100)
    for _ in range(2):
        assert len(await body(await store.open_rendition(ID, rendition))) == 101
    assert store.peek_rendition(ID, rendition) is None
    assert len(bucket.verbs("open")) == 2


class Silent(MemorySource):
    """Can be made unreachable."""

    is_down = False

    async def open(
        self, key: str, *, span: Span | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        if self.is_down:
            raise Unreachable("down")
        return await super().open(key, span=span, pin=pin, unless=unless)


@pytest.mark.parametrize(
    ("sizes", "closed", "believed"),
    [
        pytest.param(b'{"o":[[400,267]],"a":[]}', (), True, id="open"),
        pytest.param(None, (), True, id="nothing stored"),
        pytest.param(b'{"o":[[400,267]],"a":[[800,533]]}', (), False, id="restricted by its file"),
        pytest.param(b'{"o":[[400,267]],"a":[]}', (ID,), False, id="restricted by a rule"),
        pytest.param(None, (ID,), False, id="nothing stored and restricted by a rule"),
    ],
)
async def test_while_the_store_is_silent_open_images_are_believed_and_others_not(
    sizes: bytes | None, closed: tuple[str, ...], believed: bool
) -> None:
    bucket = Silent({f"{ID}/s.json": sizes} if sizes else {})
    store = RenditionStore(
        bucket, ttl_s=0, missing_ttl_s=0, silence=StoreSilence(3600), is_open=lambda name: name not in closed
    )
    stored = await store.find(ID)
    bucket.is_down = True
    if believed:
        assert await store.find(ID) is stored
    else:
        with pytest.raises(Unreachable):
            await store.find(ID)


@pytest.mark.parametrize("access", ["open", "auth"])
async def test_while_the_store_is_silent_small_open_renditions_come_from_memory(access: Access) -> None:
    size = Size(400, 267)
    rendition = Rendition(size, access, rendition_key(ID, size, access))
    bucket = Silent({rendition.key: b"pixels"})
    store = RenditionStore(bucket, ttl_s=0, cache_bytes=100, silence=StoreSilence(3600))
    await store.open_rendition(ID, rendition)
    bucket.is_down = True
    if access == "open":
        assert await body(await store.open_rendition(ID, rendition)) == b"pixels"
    else:
        with pytest.raises(Unreachable):
            await store.open_rendition(ID, rendition)


async def test_publish_commits_with_the_sizes_file() -> None:
    bucket = MemorySource()
    store = RenditionStore(bucket)
    await store.publish(ID, SIDECAR)

    assert bucket.verbs("write") == [f"{ID}/special.json", f"{ID}/s.json"]
    kept = await store.find(ID)
    assert kept is not None
    assert kept.sidecar == SIDECAR
    assert kept.rule == Rule(500)


class Denying(MemorySource):
    """Denies one key, whatever is there."""

    def __init__(self, contents: dict[str, bytes], denied: str) -> None:
        super().__init__(contents)
        self._denied = denied

    async def open(self, key: str, **named: object):  # type: ignore[no-untyped-def,override]
        if key == self._denied:
            raise Denied(f"s3://b/{key}")
        return await super().open(key, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("denied", ["a/s.json", "a/special.json"])
async def test_a_file_that_is_denied_is_no_file_that_is_missing(denied: str) -> None:
    """What it restricts is unknown, so that nothing may be opened."""
    store = RenditionStore(Denying({}, denied))
    with pytest.raises(Denied):
        await store.find("a")
    with pytest.raises(Denied):
        await store.reload("a")
