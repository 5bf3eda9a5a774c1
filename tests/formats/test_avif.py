"""AVIF: the size from boxes, written by an encoder and by hand."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from special import formats
from special.errors import Malformed, MasterError, Unsupported
from special.formats import avif
from special.formats.layout import Layout
from special.formats.parser import solve
from special.geometry import Box, Frame, Orientation, Size
from special.storage.blob import Span

WIDTH, HEIGHT = 120, 90


def parsed(data: bytes) -> Layout:
    return solve(formats.parse(len(data)), data)


def encoded(mode: str = "RGB", orientation: int = 1, **options: object) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert(mode).save(file, "AVIF", exif=exif, **options)
    return file.getvalue()


def box(kind: bytes, *parts: bytes, large: bool = False) -> bytes:
    body = b"".join(parts)
    if large:
        return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


def written(
    *properties: bytes,
    brands: tuple[bytes, ...] = (b"avif",),
    before: bytes = b"",
    wide: bool = False,
    large: bool = False,
) -> bytes:
    """A file of an item whose properties are all those that are not of another; its pixels are nowhere.

    `wide`: with numbers of 32 and 16 bits, where smaller ones would do.
    """
    other = box(b"ispe", bytes(4), struct.pack(">II", 7, 7))
    number, index = (">I", ">H") if wide else (">H", ">B")
    items = [(1, [1]), (2, list(range(2, len(properties) + 2)))]
    associations = b"".join(
        struct.pack(number, item) + bytes((len(found),)) + b"".join(struct.pack(index, it) for it in found)
        for item, found in items
    )
    head = bytes((wide, 0, 0, wide))
    meta = box(
        b"meta",
        bytes(4),
        box(b"hdlr", bytes(4), b"\0\0\0\0pict", bytes(13)),
        box(b"pitm", bytes((wide, 0, 0, 0)), struct.pack(number, 2)),
        box(b"iprp", box(b"ipco", other, *properties), box(b"ipma", head, struct.pack(">I", len(items)), associations)),
        large=large,
    )
    return box(b"ftyp", brands[0], bytes(4), *brands[1:]) + before + meta + box(b"mdat", bytes(100))


def ispe(width: int, height: int) -> bytes:
    return box(b"ispe", bytes(4), struct.pack(">II", width, height))


def clap(*numbers: int) -> bytes:
    return box(b"clap", struct.pack(">4I", *numbers), bytes(16))


def irot(quarters: int) -> bytes:
    return box(b"irot", bytes((quarters,)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_a_file_is(mode: str) -> None:
    data = encoded(mode)
    layout = parsed(data)
    assert (layout.format, layout.size, layout.levels) == ("avif", Size(WIDTH, HEIGHT), (Size(WIDTH, HEIGHT),))
    assert (layout.tiling, layout.advice) == (None, ())
    assert formats.load(layout.dump()) == layout
    extract = layout.extract(Box(10, 20, 30, 20), Size(30, 20))
    assert (extract.spans, extract.level, extract.pixels) == ((Span(0, len(data)),), 0, WIDTH * HEIGHT)
    piece = layout.rebuild(extract, [data])
    assert (piece.data, piece.format, piece.crop) == (data, "avif", Frame(10, 20, 30, 20))


@pytest.mark.parametrize("orientation", list(Orientation), ids=lambda it: it.name.lower())
def test_decoders_turn_it_themselves(orientation: Orientation) -> None:
    layout = parsed(encoded(orientation=orientation))
    assert layout.size == orientation.upright(Size(WIDTH, HEIGHT))
    box = Box(0, 0, 40, 30)
    data = encoded(orientation=orientation)
    piece = layout.rebuild(layout.extract(box, box.size), [data])
    assert (piece.orientation, piece.crop) == (Orientation.UPRIGHT, Frame(0, 0, 40, 30))


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(written(ispe(300, 200)), Size(300, 200), id="size"),
        pytest.param(written(ispe(300, 200), irot(1)), Size(200, 300), id="turned"),
        pytest.param(written(ispe(300, 200), irot(2)), Size(300, 200), id="turned by half"),
        pytest.param(written(ispe(300, 200), clap(100, 1, 240, 4)), Size(100, 60), id="crop"),
        pytest.param(written(ispe(300, 200), clap(100, 1, 60, 1), irot(3)), Size(60, 100), id="crop, turned"),
        pytest.param(written(ispe(300, 200), clap(900, 1, 60, 1)), Size(300, 60), id="crop beyond the picture"),
        pytest.param(written(ispe(300, 200), wide=True), Size(300, 200), id="wide numbers"),
        pytest.param(written(ispe(300, 200), large=True), Size(300, 200), id="a length of 64 bits"),
        pytest.param(written(ispe(300, 200), brands=(b"mif1", b"miaf", b"avif")), Size(300, 200), id="other brand"),
        pytest.param(written(ispe(300, 200), before=box(b"free", bytes(9000))), Size(300, 200), id="a box between"),
    ],
)
def test_sizes_come_from_the_primary_item(data: bytes, size: Size) -> None:
    assert parsed(data).size == size


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        pytest.param(written(ispe(300, 200), clap(101, 2, 60, 1)), Unsupported, "within a pixel", id="half a pixel"),
        pytest.param(written(ispe(300, 200), clap(1, 0, 60, 1)), Unsupported, "within a pixel", id="no denominator"),
        pytest.param(written(), Malformed, "does not say how large", id="no size"),
        pytest.param(written(ispe(0, 200)), Malformed, "0×200", id="no width"),
        pytest.param(written(box(b"ispe", bytes(5))), Malformed, "within a box", id="half a size"),
        pytest.param(box(b"ftyp", b"avif", bytes(4)) + box(b"mdat", bytes(99)), Malformed, "no meta", id="no meta"),
        pytest.param(
            box(b"ftyp", b"avif", bytes(4)) + box(b"meta", bytes(4)), Malformed, "no primary image", id="empty meta"
        ),
        pytest.param(box(b"ftyp", b"avif", bytes(4)) + box(b"free") * 20, Malformed, "no meta data", id="many boxes"),
        pytest.param(
            box(b"ftyp", b"avif", bytes(4)) + b"\x7f\xff\xff\xffmeta", Malformed, "cut short", id="too long a box"
        ),
    ],
)
def test_what_is_wrong_is_told(data: bytes, error: type[MasterError], message: str) -> None:
    with pytest.raises(error, match=message):
        parsed(data)


def test_truncation_at_every_byte_of_the_headers_is_a_typed_error() -> None:
    data = encoded()
    for length in range(1, 400):
        try:
            assert parsed(data[:length]).size == Size(WIDTH, HEIGHT)
        except MasterError as error:
            assert str(error)  # noqa: PT017 - both ends are allowed, an untyped error is not


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x10ftypavif\0\0\0\0", True),
        (b"\0\0\0\x18ftypmif1\0\0\0\0miafavif", True),
        (b"\0\0\0\x10ftypmif1\0\0\0\0miafavif", False),
        (b"\0\0\0\x18ftypmif1avifmiafheic", False),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", False),
        (b"\0\0\0\x10freeavif\0\0\0\0", False),
        (b"\0\0\0\x04ftypavif", False),
    ],
)
def test_a_file_is_known_by_its_brands(head: bytes, expected: bool) -> None:
    assert avif.sniff(head) is expected
