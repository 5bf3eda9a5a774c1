"""Finding masters: which object, at what cost, believed for how long."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from special.concurrency import StoreSilence
from special.errors import Malformed, Missing, Uncounted, Unreachable, Unsupported
from special.geometry import Box, Size
from special.images.key_templates import KeyTemplates
from special.images.masters import HEAD_BYTES, TAIL_BYTES, Master, Masters
from special.observability.trace import Trace, tracing
from special.storage import open_source
from special.storage.blob import Blob, Span, Suffix, Unless
from special.storage.source import Opened
from special.volume import Volume
from tests.support.fakes import Call, CountingSource

FIXTURES = Path(__file__).parents[2] / "fixtures"


def noise(width: int, height: int, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    return noise(width, height, "png")


@pytest.fixture
def source(tmp_path: Path) -> CountingSource:
    (tmp_path / "a").write_bytes(png(20, 10))
    (tmp_path / "b.jp2").write_bytes(png(30, 10))
    (tmp_path / "large").write_bytes(noise(400, 400, "jpeg", quality=100))
    (tmp_path / "empty").touch()
    (tmp_path / "letter").write_bytes(b"Dear reader")
    return CountingSource(open_source(str(tmp_path)))


async def test_the_first_look_costs_one_get_of_the_head(source: CountingSource) -> None:
    masters = Masters(source)
    large = await masters.find("large")
    assert large.layout.size == Size(400, 400)
    assert large.blob.size > HEAD_BYTES
    assert source.calls == [Call("open", "large", (Span(0, HEAD_BYTES),))]
    await masters.find("large")
    assert len(source.calls) == 1


async def test_the_first_template_that_exists_is_the_master(source: CountingSource) -> None:
    masters = Masters(source, templates=KeyTemplates(("{id}", "{id}.jp2", "{id}.tif")))
    assert (await masters.find("b")).layout.size == Size(30, 10)
    assert [call.key for call in source.calls] == ["b", "b.jp2"]
    with pytest.raises(Missing, match=r"'c' by the keys \{id\}, \{id\}\.jp2, \{id\}\.tif"):
        await masters.find("c")


async def test_an_expired_master_is_asked_after(source: CountingSource, tmp_path: Path) -> None:
    masters = Masters(source, ttl_s=0)
    first = await masters.find("a")
    assert await masters.find("a") is first
    (tmp_path / "a").write_bytes(png(50, 60))
    second = await masters.find("a")
    assert second.layout.size == Size(50, 60)
    assert second.blob.etag != first.blob.etag
    assert source.gets("a") == 3


async def test_a_large_index_is_read_once_however_many_plan_at_once(tmp_path: Path) -> None:
    image = pyvips.Image.black(9000, 9000)
    image.tiffsave(str(tmp_path / "many.tif"), tile=True, tile_width=16, tile_height=16, compression="deflate")
    source = CountingSource(open_source(str(tmp_path)))
    masters = Masters(source)
    master = await masters.find("many.tif")
    box = Box(4000, 4000, 64, 64)
    assert master.layout.prepare(box, box.size) is not None
    source.clear()
    grown = await asyncio.gather(*(masters.prepared(master, box, box.size, source) for _ in range(10)))
    assert source.gets() == 2, "tile offsets and byte counts, once"
    assert all(layout is grown[0] for layout in grown)
    assert grown[0].prepare(box, box.size) is None
    other = Box(0, 0, 64, 64)
    both = await masters.prepared(master, other, other.size, source)
    assert both.prepare(box, box.size) is None


async def test_a_learned_master_costs_nothing(source: CountingSource) -> None:
    known = await Masters(source).find("a")
    source.clear()
    masters = Masters(source)
    assert not masters.contains("a")
    masters.put("a", known)
    assert await masters.find("a") is known
    assert source.calls == []
    masters.forget("a", known)
    found = await masters.find("a")
    assert found.blob == known.blob
    masters.forget("a", known)  # it has been looked up again since
    assert await masters.find("a") is found
    assert source.gets() == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [pytest.param("empty", Malformed, id="empty"), pytest.param("letter", Unsupported, id="not a picture")],
)
async def test_what_is_no_picture_is_said_so(source: CountingSource, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await Masters(source).find(name)


async def test_what_is_no_picture_is_parsed_once_for_each_version(source: CountingSource, tmp_path: Path) -> None:
    masters, broken = Masters(source), b"II*\0" + bytes(200_000)
    (tmp_path / "broken").write_bytes(broken)
    for _ in range(3):
        with pytest.raises(Malformed):
            await masters.find("broken")
    cost = source.gets()
    source.clear()
    for _ in range(3):
        with pytest.raises(Malformed):
            await masters.find("broken")
    assert cost > 0
    assert source.calls == []
    assert masters.peek("broken") is None
    assert not masters.contains("broken")


async def test_a_version_that_cannot_be_shown_is_asked_after_and_its_next_one_found(
    source: CountingSource, tmp_path: Path
) -> None:
    masters = Masters(source, ttl_s=0)
    with pytest.raises(Unsupported) as first:
        await masters.find("letter")
    source.clear()
    with pytest.raises(Unsupported) as second:
        await masters.find("letter")
    assert source.calls == [Call("open", "letter", (Span(0, HEAD_BYTES),))]
    assert str(second.value) == str(first.value)
    assert second.value is not first.value
    (tmp_path / "letter").write_bytes(png(5, 6))
    assert (await masters.find("letter")).layout.size == Size(5, 6)


class Silent(CountingSource):
    """Can be made unreachable."""

    is_down = False

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        if self.is_down:
            raise Unreachable("down")
        return await super().open(key, span=span, pin=pin, unless=unless)


async def test_while_the_store_is_silent_open_masters_are_believed_and_others_not(source: CountingSource) -> None:
    silent = Silent(source.source)
    masters = Masters(silent, ttl_s=0, silence=StoreSilence(3600), is_open=lambda identifier: identifier != "large")
    found = await masters.find("a")
    await masters.find("large")
    with pytest.raises(Unsupported):
        await masters.find("letter")
    silent.is_down = True
    assert await masters.find("a") is found
    with pytest.raises(Unsupported):
        await masters.find("letter")
    with pytest.raises(Unreachable):
        await masters.find("large")
    silent.is_down = False
    assert (await masters.find("large")).layout.size == Size(400, 400)


async def looked_up(tmp_path: Path, key: str, *, ttl_s: float = 60.0) -> tuple[Master, list[Call], Trace]:
    """A master as a server finds it that was just started, what that cost, and its metadata written."""
    source = CountingSource(open_source(str(tmp_path / "masters")))
    with tracing() as spent:
        async with Volume(tmp_path / "volume", size_bytes=64 << 20) as volume:
            master = await Masters(source, ttl_s=ttl_s, metadata=volume.metadata).find(key)
            await volume.metadata.flush()
    return master, source.calls, spent


@pytest.fixture
def pyramid(tmp_path: Path) -> str:
    """A TIFF whose headers take several reads."""
    (tmp_path / "masters").mkdir()
    noise = pyvips.Image.gaussnoise(900, 700).cast("uchar")
    noise.tiffsave(str(tmp_path / "masters" / "a.tif"), tile=True, pyramid=True, tile_width=64, tile_height=64)
    return "a.tif"


async def test_a_server_that_restarts_asks_only_whether_the_version_still_stands(tmp_path: Path, pyramid: str) -> None:
    first, calls, spent = await looked_up(tmp_path, pyramid)
    assert len(calls) > 2
    assert spent.bytes > HEAD_BYTES
    second, calls, spent = await looked_up(tmp_path, pyramid)
    assert calls == [Call("open", pyramid, (Span(0, HEAD_BYTES),))]
    assert spent.bytes == 0
    assert second == first


async def test_a_second_process_learns_from_the_first(tmp_path: Path, pyramid: str) -> None:
    async with Volume(tmp_path / "volume", size_bytes=64 << 20) as volume:
        first = Masters(open_source(str(tmp_path / "masters")), metadata=volume.metadata)
        found = await first.find(pyramid)
        await volume.metadata.flush()
        second, calls, spent = await looked_up(tmp_path, pyramid)
    assert (second, len(calls), spent.bytes) == (found, 1, 0)


async def test_metadata_of_an_older_version_is_not_believed(tmp_path: Path, pyramid: str) -> None:
    first, _, _ = await looked_up(tmp_path, pyramid)
    (tmp_path / "masters" / pyramid).write_bytes(png(50, 60))
    second, _, _ = await looked_up(tmp_path, pyramid)
    assert second.layout.size == Size(50, 60)
    assert second.blob.etag != first.blob.etag
    third, calls, spent = await looked_up(tmp_path, pyramid)
    assert (third, len(calls), spent.bytes) == (second, 1, 0)


async def test_a_layout_that_grew_is_stored_as_it_is(tmp_path: Path, pyramid: str) -> None:
    jp2 = (FIXTURES / "jp2" / "archive.jp2").read_bytes()
    (tmp_path / "masters" / "a.jp2").write_bytes(jp2)
    async with Volume(tmp_path / "volume", size_bytes=64 << 20) as volume:
        source = open_source(str(tmp_path / "masters"))
        masters = Masters(source, metadata=volume.metadata)
        master = await masters.find("a.jp2")
        distrusted = master.layout.distrusted("for a test")
        assert distrusted is not None
        masters.put_layout(master.blob, distrusted)
        await volume.metadata.flush()
    found, calls, spent = await looked_up(tmp_path, "a.jp2")
    assert found.layout == distrusted
    assert (len(calls), spent.bytes) == (1, 0)


async def test_metadata_in_a_form_that_this_version_does_not_write_is_of_no_use(tmp_path: Path, pyramid: str) -> None:
    first, _, _ = await looked_up(tmp_path, pyramid)
    for text in (b"", b'{"media": null, "modified": null}\nT\x00 of old', b"{}\n" + first.layout.dump()):
        async with Volume(tmp_path / "volume", size_bytes=64 << 20) as volume:
            volume.metadata.put(first.blob, lambda text=text: text)
            await volume.metadata.flush()
        again, calls, _ = await looked_up(tmp_path, pyramid)
        assert again == first
        assert len(calls) > 2


def tiled(path: Path, *, width: int = 1500) -> None:
    """A TIFF whose directories are far behind its start and before its end."""
    noise = pyvips.Image.gaussnoise(width, 1100, seed=1).cast("uchar")
    noise.tiffsave(str(path), tile=True, pyramid=True, tile_width=64, tile_height=64)


HEAD, TAIL = (Span(0, HEAD_BYTES),), (Suffix(TAIL_BYTES),)


async def opened(masters: Masters, source: CountingSource, name: str) -> list[tuple[Span | Suffix, ...]]:
    """What a look-up opens: the head alone, or the tail, too."""
    source.clear()
    await masters.find(name)
    return [call.spans for call in source.of("open", name)]


async def test_the_tail_is_asked_for_where_the_last_master_of_such_a_name_had_use_for_it(tmp_path: Path) -> None:
    """Of a name that says TIFF from the start. Nothing else that is looked up costs a GET more."""
    for name in ("far.tif", "far2.tif", "far3.tif", "far", "far2"):
        tiled(tmp_path / name)
    Image.new("L", (300, 300)).save(tmp_path / "small.tif")
    for name in ("b.jp2", "c.jp2", "d"):
        (tmp_path / name).write_bytes(noise(400, 400, "jpeg", quality=100))
    source = CountingSource(open_source(str(tmp_path)))
    masters = Masters(source)
    assert await opened(masters, source, "far.tif") == [HEAD, TAIL]
    assert await opened(masters, source, "small.tif") == [HEAD, TAIL]
    assert await opened(masters, source, "far2.tif") == [HEAD], "a small one had none"
    assert await opened(masters, source, "far3.tif") == [HEAD, TAIL]
    assert await opened(masters, source, "far") == [HEAD], "a name that says nothing"
    assert await opened(masters, source, "far2") == [HEAD, TAIL]
    assert await opened(masters, source, "d") == [HEAD, TAIL], "the last one had use for it"
    for name in ("b.jp2", "c.jp2"):
        assert await opened(masters, source, name) == [HEAD]


async def test_a_master_that_is_asked_after_is_asked_for_its_head_alone(tmp_path: Path) -> None:
    tiled(tmp_path / "a.tif")
    source = CountingSource(open_source(str(tmp_path)))
    masters = Masters(source, ttl_s=0)
    assert await opened(masters, source, "a.tif") == [HEAD, TAIL]
    assert await opened(masters, source, "a.tif") == [HEAD]


class Tailed(CountingSource):
    """Runs something after it has answered with an object's head, and before it answers with its tail; once."""

    def __init__(self, source: CountingSource, between: Callable[[], None]) -> None:
        super().__init__(source)
        self._between = between
        self._headed = asyncio.Event()

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        if isinstance(span, Suffix):
            await self._headed.wait()
            between, self._between = self._between, lambda: None
            between()
        opened = await super().open(key, span=span, pin=pin, unless=unless)
        self._headed.set()
        return opened


async def test_a_tail_of_another_version_than_the_head_is_not_used(tmp_path: Path) -> None:
    """It is overwritten between the two, by one as long: of which the tail would tell all."""
    for name, width, height in (("a.tif", 512, 256), ("new", 256, 512)):
        pyvips.Image.black(width, height).tiffsave(str(tmp_path / name), tile=True, tile_width=64, tile_height=64)
    old, new = (tmp_path / "a.tif").read_bytes(), (tmp_path / "new").read_bytes()
    assert len(new) == len(old) > HEAD_BYTES
    source = Tailed(CountingSource(open_source(str(tmp_path))), lambda: (tmp_path / "a.tif").write_bytes(new))
    found = await Masters(source).find("a.tif")
    assert found.layout.size == Size(256, 512)
    assert found == await Masters(CountingSource(open_source(str(tmp_path)))).find("a.tif")


@pytest.mark.parametrize("error", [Uncounted("no"), Unreachable("no"), Missing("no")], ids=lambda it: type(it).__name__)
async def test_a_tail_that_does_not_come_costs_nothing_but_speed(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        raise error

    tiled(tmp_path / "a.tif")
    plain = CountingSource(open_source(str(tmp_path)))
    source = Tailed(plain, fail)
    assert await Masters(source).find("a.tif") == await Masters(plain).find("a.tif")


async def test_where_the_head_is_missing_the_next_template_is_tried(tmp_path: Path) -> None:
    tiled(tmp_path / "a.tiff")
    source = CountingSource(open_source(str(tmp_path)))
    masters = Masters(source, templates=KeyTemplates(("{id}.tif", "{id}.tiff")))
    assert (await masters.find("a")).layout.size == Size(1500, 1100)
    assert [call.key for call in source.calls[:4]] == ["a.tif", "a.tif", "a.tiff", "a.tiff"]
