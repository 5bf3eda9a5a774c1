"""JPEG: what its markers say, how far it is shrunk while it is decoded, and what is refused by name."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import pyvips
import simplejpeg
from PIL import Image

from fixtures.make_tiff import HEIGHT, WIDTH, picture
from special import formats
from special.errors import Malformed, MasterError, Unsupported
from special.formats.layout import Layout
from special.formats.parser import drive, solve
from special.geometry import Box, Frame, Orientation, Size
from special.storage.blob import Span
from tests.support.memory import MemorySource

FULL = Box(0, 0, WIDTH, HEIGHT)


def encoded(mode: str = "RGB", *, orientation: int | None = None, **options: object) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.fromarray(picture(3)).convert(mode).save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


def parsed(data: bytes) -> Layout:
    return solve(formats.parse(len(data)), data)


def with_frame(data: bytes, **changes: int) -> bytes:
    """The same JPEG with its frame header (of 3 components) changed."""
    at = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2))
    marker, length, bits, height, width, components = struct.unpack_from(">xBHBHHB", data, at)
    now = {"marker": marker, "bits": bits, "height": height, "width": width, "components": components} | changes
    frame = struct.pack(
        ">BBHBHHB", 0xFF, now["marker"], length, now["bits"], now["height"], now["width"], now["components"]
    )
    return data[:at] + frame + data[at + len(frame) :]


@pytest.mark.parametrize(
    ("mode", "options", "has_color"),
    [
        pytest.param("RGB", {}, True, id="baseline"),
        pytest.param("RGB", {"progressive": True}, True, id="progressive"),
        pytest.param("L", {}, False, id="grey"),
        pytest.param("CMYK", {}, True, id="cmyk"),
    ],
)
def test_what_a_jpeg_is(mode: str, options: dict[str, object], has_color: bool) -> None:
    layout = parsed(encoded(mode, **options))
    assert layout.format == "jpeg"
    assert layout.size == Size(WIDTH, HEIGHT)
    assert layout.levels == (Size(WIDTH, HEIGHT),)
    assert layout.tiling is None
    assert layout.has_color == has_color
    assert formats.load(layout.dump()) == layout


@pytest.mark.parametrize(
    ("box", "size", "reduce", "crop"),
    [
        pytest.param(FULL, Size(533, 401), 0, Frame(0, 0, 533, 401), id="full"),
        pytest.param(FULL, Size(400, 301), 0, Frame(0, 0, 533, 401), id="more-than-half"),
        pytest.param(FULL, Size(267, 201), 0, Frame(0, 0, 533, 401), id="half-leaves-no-factor-of-two"),
        pytest.param(FULL, Size(134, 101), 1, Frame(0, 0, 266.5, 200.5), id="a-quarter-leaves-one"),
        pytest.param(FULL, Size(60, 45), 2, Frame(0, 0, 133.25, 100.25), id="less-than-an-eighth"),
        pytest.param(FULL, Size(10, 8), 3, Frame(0, 0, 66.625, 50.125), id="never-below-an-eighth"),
        pytest.param(Box(256, 128, 128, 128), Size(32, 32), 1, Frame(128, 64, 64, 64), id="a-region-of-a-quarter"),
        pytest.param(Box(512, 384, 21, 17), Size(21, 17), 0, Frame(512, 384, 21, 17), id="the-corner"),
        pytest.param(FULL, Size(66, 401), 0, Frame(0, 0, 533, 401), id="shrunk-one-way-only"),
    ],
)
def test_it_is_shrunk_while_decoded_as_far_as_the_size_allows(box: Box, size: Size, reduce: int, crop: Frame) -> None:
    data = encoded()
    layout = parsed(data)
    extract = layout.extract(box, size)
    piece = layout.rebuild(extract, [data])
    assert (piece.reduce, piece.crop, piece.format, piece.data) == (reduce, crop, "jpeg", data)
    assert extract.spans == (Span(0, len(data)),)
    wide, high = -(-WIDTH // (1 << reduce)), -(-HEIGHT // (1 << reduce))  # libjpeg rounds up
    assert simplejpeg.decode_jpeg(data, min_width=wide, min_height=high).shape == (high, wide, 3)
    assert extract.pixels == wide * high
    assert crop.x + crop.width <= wide
    assert crop.y + crop.height <= high
    assert layout.stored(box, size) is None
    assert layout.prepare(box, size) is None


def test_a_progressive_one_takes_memory_for_all_its_pixels() -> None:
    layout = parsed(encoded(progressive=True))
    assert layout.extract(FULL, Size(60, 45)).pixels == WIDTH * HEIGHT


@pytest.mark.parametrize("changes", [{"bits": 12}, {"marker": 0xC3}], ids=["12-bit", "lossless"])
def test_what_only_imagecodecs_decodes_is_never_halved_while_it_is_decoded(changes: dict[str, int]) -> None:
    layout = parsed(with_frame(encoded(), **changes))
    extract = layout.extract(FULL, Size(60, 45))
    assert (extract.level, extract.pixels) == (0, WIDTH * HEIGHT)
    assert formats.load(layout.dump()) == layout


@pytest.mark.parametrize("orientation", list(Orientation), ids=lambda orientation: orientation.name.lower())
def test_a_turned_one_is_shown_upright(orientation: Orientation) -> None:
    data = encoded(orientation=orientation)
    layout = parsed(data)
    upright = pyvips.Image.jpegload_buffer(data).autorot()
    assert layout.size == Size(upright.width, upright.height)
    assert formats.load(layout.dump()) == layout
    box = Box(37, 101, 211, 150)
    crop = layout.rebuild(layout.extract(box, box.size), [data]).crop
    part = pyvips.Image.jpegload_buffer(data).crop(crop.x, crop.y, crop.width, crop.height).autorot()
    np.testing.assert_array_equal(part.numpy(), upright.crop(box.x, box.y, box.width, box.height).numpy())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(with_frame(encoded(), marker=0xC3, bits=1), "3 components of 1 bits", id="lossless-1-bit"),
        pytest.param(with_frame(encoded(), marker=0xC5), "hierarchical", id="hierarchical"),
        pytest.param(with_frame(encoded(), marker=0xF7), "JPEG-LS", id="jpeg-ls"),
        pytest.param(with_frame(encoded(), marker=0xC9), "arithmetic-coded", id="arithmetic"),
        pytest.param(with_frame(encoded(), bits=10), "3 components of 10 bits", id="10-bit"),
        pytest.param(with_frame(encoded(), bits=12, components=4), "4 components of 12 bits", id="12-bit-inks"),
        pytest.param(with_frame(encoded(), components=2), "2 components", id="two-components"),
        pytest.param(with_frame(encoded(), height=0), "DNL", id="height-later"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        parsed(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\xff\xd8\xff\xd9", "before its frame header", id="nothing-inside"),
        pytest.param(b"\xff\xd8\xff\xd9" + bytes(20), "0xd9", id="end-too-early"),
        pytest.param(b"\xff\xd8\xff\xe0\0\x04ab" + bytes(20), "where a marker should start", id="lost-its-way"),
        pytest.param(b"\xff\xd8\xff\xe0\0\x01" + bytes(20), "of 1 bytes", id="segment-too-short"),
        pytest.param(b"\xff\xd8" + b"\xff\xe1\0\x04ab" * 2000, "first 1000 segments", id="segments-without-end"),
        pytest.param(b"\xff\xd8" + b"\xff" * 5000, "first 1000 segments", id="fill-bytes-without-end"),
        pytest.param(with_frame(encoded(), width=0), r"0×401", id="no-width"),
    ],
)
def test_what_breaks_the_rules_is_malformed(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parsed(data)


def test_truncation_at_every_byte_of_the_headers_is_a_typed_error() -> None:
    data = encoded(orientation=6)
    whole = parsed(data)
    for length in range(700):
        try:
            assert parsed(data[:length]).size == whole.size
        except MasterError as error:
            assert str(error)  # noqa: PT017 - both ends are allowed, an untyped error is not


async def test_headers_take_one_read() -> None:
    source = MemorySource({"a.jpg": encoded(orientation=3)})
    blob = source.blob("a.jpg")
    await drive(formats.parse(blob.size), source, blob)
    assert len(source.calls) == 1


def test_parts_of_the_wrong_length_are_refused() -> None:
    layout = parsed(encoded())
    with pytest.raises(Malformed, match="3 bytes were read"):
        layout.rebuild(layout.extract(FULL, FULL.size), [b"abc"])
