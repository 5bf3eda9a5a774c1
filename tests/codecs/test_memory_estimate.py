"""What an answer's memory is told to be, exactly; and in the long form, that it never is more."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fixtures import make_jp2
from special import formats
from special.codecs import Encoding, render
from special.codecs.memory_estimate import decode_bytes, rendition_bytes
from special.concurrency import Deadline
from special.formats.layout import Extract, Format
from special.formats.parser import solve
from special.geometry import Box, Size
from special.iiif import Job
from special.iiif.request import OutputFormat
from special.storage.blob import Span
from special.workers import Workers
from tests.support.live import MASTERS

pytestmark = pytest.mark.service

MIB = 1 << 20
JP2 = Path(make_jp2.__file__).parent / "jp2"


def job(width: int, height: int, *, angle: float = 0, mirror: bool = False, to: OutputFormat = "jpg") -> Job:
    return Job(Box(0, 0, 2 * width, 2 * height), Size(width, height), mirror, angle, "default", to)


@pytest.mark.parametrize(
    ("format_", "spans", "pixels", "asked", "expected"),
    [
        pytest.param("jpeg", [(0, 1000)], 10_000, job(100, 50), 8 * MIB + 6000 + 60_000 + 30_000, id="JPEG"),
        pytest.param("jpeg", [(0, 1000)], 10_000, job(100, 50, to="png"), 8 * MIB + 6000 + 60_000 + 60_000, id="PNG"),
        pytest.param("jpeg", [(0, 1)], 1, job(100, 50, mirror=True), 8 * MIB + 6 + 6 + 60_000, id="mirrored"),
        pytest.param("jpeg", [(0, 1)], 1, job(10, 10, angle=45), 8 * MIB + 6 + 6 + 12 * 14 * 14, id="turned askew"),
        pytest.param("jp2", [(5, 10), (90, 100)], 512, job(1, 1), 8 * MIB + 90 + 24 * 512 + 6, id="JPEG 2000"),
        pytest.param("tiff", [], 512, job(1, 1), 8 * MIB + 8 * 512 + 6, id="holes of a TIFF"),
        pytest.param("png", [(0, 1)], 100, job(1, 1), 8 * MIB + 6 + 800 + 6, id="from PNG"),
        pytest.param("webp", [(0, 1)], 100, job(1, 1), 8 * MIB + 6 + 800 + 6, id="from WebP"),
        pytest.param("gif", [(0, 1)], 100, job(1, 1), 8 * MIB + 6 + 1200 + 6, id="from GIF"),
        pytest.param("avif", [(0, 1)], 100, job(1, 1), 8 * MIB + 6 + 2800 + 6, id="from AVIF"),
        pytest.param("bmp", [(0, 1)], 100, job(1, 1), 8 * MIB + 6 + 1200 + 6, id="from BMP"),
        pytest.param("pdf", [(0, 1)], 100, job(1, 1), 8 * MIB + 6 + 3000 + 6, id="from PDF"),
        pytest.param("png", [(0, 1)], 1, job(10, 5, to="avif"), 8 * MIB + 6 + 8 + 28 * 50, id="AVIF"),
    ],
)
def test_memory_by_format_and_answer(
    format_: Format, spans: list[tuple[int, int]], pixels: int, asked: Job, expected: int
) -> None:
    extract = Extract(tuple(Span(*span) for span in spans), 0, pixels, None)
    assert decode_bytes(format_, extract, asked) == expected


@pytest.mark.parametrize(("components", "per_pixel"), [(1, 24), (3, 24), (4, 32), (5, 40)])
def test_memory_by_components(components: int, per_pixel: int) -> None:
    extract = Extract((), 0, 600, None, components)
    assert decode_bytes("jp2", extract, job(1, 1)) == 8 * MIB + per_pixel * 600 + 6


def test_memory_of_a_rendition() -> None:
    assert rendition_bytes(Size(100, 10), job(50, 5)) == 8 * MIB + 6000 + 6000 + 6 * 250


def highest(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@pytest.mark.long
@pytest.mark.parametrize("path", [*sorted(MASTERS.iterdir()), *sorted(JP2.glob("*.jp2"))], ids=lambda it: it.name)
async def test_no_decoder_takes_more_than_was_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = path.read_bytes()  # noqa: ASYNC240  a test may block
    layout = solve(formats.parse(len(data)), data)
    box, size = Box.whole(layout.size), layout.size
    shrunk = Size(max(1, size.width // 3), max(1, size.height // 3))
    for wanted, angle, to in (
        (size, 0, "jpg"),
        (size, 45, "tif"),
        (size, 90, "webp"),
        (shrunk, 0, "png"),
        (size, 0, "avif"),
    ):
        asked = Job(box, wanted, False, angle, "default", to)  # type: ignore[arg-type]
        grown = layout
        if (more := layout.prepare(box, wanted)) is not None:
            grown = solve(more, data)
        extract = grown.extract(box, wanted)
        piece = grown.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
        async with Workers(1, memory_bytes=4 << 30, spare=0) as workers:
            pid = await workers.run(os.getpid, deadline=Deadline.after(60))
            before = highest(pid)
            await workers.run(render, piece, asked, Encoding(), deadline=Deadline.after(60))
            took, told = highest(pid) - before, decode_bytes(layout.format, extract, asked)
        with capsys.disabled():
            print(f"{path.name} {wanted} {angle} {to}: took {took / 1e6:.1f} MB, told {told / 1e6:.1f} MB")
        assert took <= told
