"""A master is known by its content; its layout comes back from the serial form by its first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from special import formats
from special.errors import Malformed, Unsupported
from special.formats.parser import solve
from special.storage.blob import Span

MASTERS = Path(__file__).parents[2] / "fixtures" / "masters"
FORMATS = {".tif": "tiff", ".jp2": "jp2", ".jpg": "jpeg", ".webp": "webp", ".gif": "gif", ".png": "png"}


@pytest.mark.parametrize("path", sorted(MASTERS.iterdir()), ids=lambda path: path.name)
def test_every_fixture_is_known_by_its_content(path: Path) -> None:
    data = path.read_bytes()
    layout = solve(formats.parse(len(data)), data)
    assert layout.format == FORMATS[path.suffix]
    assert layout.levels[0] == layout.size
    again = formats.load(layout.dump())
    assert (again.format, again.size, again.levels, again.tiling) == (
        layout.format,
        layout.size,
        layout.levels,
        layout.tiling,
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"%!PS-Adobe-3.0 " + bytes(100), id="postscript"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"RIFF\0\0\0\0WAVEfmt ", id="wave"),
        pytest.param(b"a", id="one-byte"),
    ],
)
def test_what_is_none_of_them_is_refused_by_its_first_bytes(data: bytes) -> None:
    with pytest.raises(Unsupported) as refusal:
        solve(formats.parse(len(data)), data)
    assert repr(data[:12]) in str(refusal.value)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF", id="heif"),
        pytest.param(b"8BPS\0\1", "Photoshop", id="photoshop"),
    ],
)
def test_known_formats_are_refused_by_their_names(start: bytes, name: str) -> None:
    data = start + bytes(100)
    with pytest.raises(Unsupported, match=f"is a file of {name}"):
        solve(formats.parse(len(data)), data)


def test_an_empty_master_is_malformed() -> None:
    with pytest.raises(Malformed, match="empty"):
        solve(formats.parse(0), b"")


def test_the_first_question_is_small() -> None:
    assert next(formats.parse(1_000_000)) == [Span(0, 32)]
    assert next(formats.parse(10)) == [Span(0, 10)]


@pytest.mark.parametrize("data", [b"", b"T", b"T\x02<", b"W\x02", b"special.jp2\0\xff", b"{}"], ids=repr)
def test_serial_forms_of_other_versions_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="read the master again"):
        formats.load(data)
