"""What is read of a master when it is opened, before a program asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from special.mount.filesystem import FileSystem
from special.storage import Blob, Span
from special.volume import DEFAULT_BLOCK_BYTES, Volume
from tests.support.live import MASTERS
from tests.support.memory import MemorySource
from tests.support.waiting import until


class Gated(MemorySource):
    """A source that gives bytes when it may."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.gate = asyncio.Event()

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        data = await super().read(blob, spans)
        await self.gate.wait()
        return data

    def taken(self) -> set[int]:
        """Numbers of the blocks that were asked for so far."""
        spans = [span for _, _, spans in self.calls for span in spans]  # type: ignore[attr-defined]
        return {block for span in spans for block in range(span.start // DEFAULT_BLOCK_BYTES, _blocks(span.stop))}


def _blocks(size_bytes: int) -> int:
    return -(-size_bytes // DEFAULT_BLOCK_BYTES)


@pytest.mark.parametrize(
    ("key", "before"),
    [
        pytest.param("pyramid.tif", {0, 5, 6, 7}, id="head and tail of a TIFF at once"),
        pytest.param("pyramid.bin", {0}, id="head alone of what its name tells nothing of"),
    ],
)
async def test_what_is_read_at_once_when_a_master_is_opened(tmp_path: Path, key: str, before: set[int]) -> None:
    data = (MASTERS / "herbarium.tif").read_bytes()  # by libvips: its directories are behind their pixels
    assert _blocks(len(data)) == 8
    source = Gated({key: data})
    async with Volume(tmp_path / "volume", size_bytes=64 << 20) as volume:
        files = FileSystem(source, volume, lists=True)  # type: ignore[arg-type]  # nothing is listed
        files.open(source.blob(key))
        await until(lambda: source.taken() == before)
        source.gate.set()
        directories = {offset // DEFAULT_BLOCK_BYTES for offset in _directories(data)}
        await until(lambda: source.taken() >= directories)
        await files.close()


def _directories(data: bytes) -> list[int]:
    """Where each directory of a little-endian TIFF is."""
    found = [int.from_bytes(data[4:8], "little")]
    while found[-1]:
        count = int.from_bytes(data[found[-1] : found[-1] + 2], "little")
        found.append(int.from_bytes(data[found[-1] + 2 + 12 * count :][:4], "little"))
    return found[:-1]
