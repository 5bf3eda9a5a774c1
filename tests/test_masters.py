"""Finding masters: which object, at what cost, believed for how long."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from special.errors import Malformed, Missing, Unsupported
from special.geometry import Box, Size
from special.masters import HEAD_BYTES, Masters
from special.sources import open_source
from special.spans import Span
from tests.fakes import Call, CountingSource


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> CountingSource:
    (tmp_path / "a").write_bytes(png(20, 10))
    (tmp_path / "b.jp2").write_bytes(png(30, 10))
    (tmp_path / "large").write_bytes(png(400, 400))
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
    masters = Masters(source, keys=("{id}", "{id}.jp2", "{id}.tif"))
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
    assert not masters.knows("a")
    masters.learn("a", known)
    assert await masters.find("a") is known
    assert source.calls == []
    masters.forget("a")
    assert (await masters.find("a")).blob == known.blob
    assert source.gets() == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [pytest.param("empty", Malformed, id="empty"), pytest.param("letter", Unsupported, id="not a picture")],
)
async def test_what_is_no_picture_is_said_so(source: CountingSource, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await Masters(source).find(name)
