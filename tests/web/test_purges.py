"""An administrator's purge: gone from memory and volume of every server process, and for administrators alone."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from special.errors import ConfigurationError
from special.images import PurgeList
from special.images.purges import MAX_BYTES
from special.storage import Blob, Span
from special.volume import Volume
from special.web.purges import Purges, token_of
from tests.support.live import special
from tests.support.memory import MemorySource
from tests.support.waiting import until

TOKEN = "a long token of administrators"


@pytest.mark.service
def test_every_process_forgets_an_image(tmp_path: Path) -> None:
    def paint(colour: str) -> None:
        Image.new("RGB", (600, 600), colour).save(tmp_path / "new.png")
        os.replace(tmp_path / "new.png", tmp_path / "masters" / "a b.png")

    def colours(count: int = 8) -> set[object]:
        """Of a tile over as many connections, which the processes share."""
        seen = set()
        for _ in range(count):
            data = httpx.get(f"{server.url}/iiif/3/a%20b.png/0,0,512,512/64,/0/default.png").content
            seen.add(Image.open(io.BytesIO(data)).convert("RGB").getpixel((9, 9)))
        return seen

    (tmp_path / "masters").mkdir()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    paint("red")
    chosen = {"SPECIAL_ADMIN_TOKEN_FILE": str(tmp_path / "token"), "SPECIAL_ASSET_TTL_S": "3600"}
    with special(tmp_path / "masters", home=tmp_path, settings=chosen, workers=2) as server:
        assert colours() == {(255, 0, 0)}
        paint("blue")
        url = f"{server.url}/admin/images/a%20b.png"
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            assert httpx.delete(url, headers=header).status_code == 401
        assert httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.delete(f"{server.url}/admin/images/..%2Fx", headers=good).status_code == 404
        assert httpx.delete(url, headers=good).status_code == 204
        until = time.monotonic() + 30
        while time.monotonic() < until and colours() != {(0, 0, 255)}:
            time.sleep(0.2)
        assert colours(20) == {(0, 0, 255)}


@pytest.mark.service
def test_there_is_no_such_address_without_a_token(tmp_path: Path) -> None:
    (tmp_path / "masters").mkdir()
    with special(tmp_path / "masters", home=tmp_path) as server:
        assert httpx.delete(f"{server.url}/admin/images/a").status_code == 404


async def test_processes_follow_each_other_through_one_file(tmp_path: Path) -> None:
    purged: tuple[list[str], list[str]] = ([], [])

    def purges_of(number: int) -> Purges:
        async def purge(identifier: str) -> None:
            purged[number].append(identifier)

        return Purges(PurgeList(tmp_path / "purges"), purge)

    first = purges_of(0)
    await first.add("before")
    second = purges_of(1)
    async with first.running(), second.running():
        await first.add("a\n\u00fc")
        await until(lambda: purged[1] == ["a\n\u00fc"])
        (tmp_path / "purges").write_bytes(b"x" * (MAX_BYTES + 1))
        await second.add("b")  # and the file begins anew
        await until(lambda: "b" in purged[0])
    assert (tmp_path / "purges").stat().st_size < 100


async def test_a_master_leaves_the_volume(tmp_path: Path) -> None:
    source = MemorySource({"a": b"a" * 200_000, "b": b"b" * 200_000})
    async with Volume(tmp_path / "volume", size_bytes=16 << 20) as volume:
        reader = volume.reader(source)

        async def read(blob: Blob) -> int:
            """How many GETs it took."""
            source.calls.clear()
            assert await reader.read(blob, [Span(5, 9)]) == [source.objects[blob.key][5:9]]
            return len(source.verbs("read"))

        a, b = source.blob("a"), source.blob("b")
        assert [await read(it) for it in (a, b, a, b)] == [1, 1, 0, 0]
        await volume.remove(a.url)
        assert [await read(it) for it in (b, a, a)] == [0, 1, 0]


@pytest.mark.parametrize("text", ["", "short", None])
def test_a_token_that_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigurationError, match="token"):
        token_of(tmp_path / "token")
