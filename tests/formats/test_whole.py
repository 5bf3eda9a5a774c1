"""PNG, WebP, GIF and BMP: size, colour and orientation from the headers, and the file as a whole."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import pytest
import pyvips
from PIL import Image

from fixtures.make_tiff import HEIGHT, WIDTH, picture
from special import formats
from special.errors import Malformed, MasterError, Unsupported
from special.formats import exif, whole
from special.formats.layout import Layout
from special.formats.parser import solve
from special.geometry import Box, Frame, Orientation, Size
from special.storage.blob import Span

FULL = Box(0, 0, WIDTH, HEIGHT)


def encoded(kind: str, mode: str = "RGB", *, orientation: int | None = None, **options: object) -> bytes:
    file, block = io.BytesIO(), Image.Exif()
    if orientation is not None:
        block[274] = orientation
        options["exif"] = block
    Image.fromarray(picture(3)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def parsed(data: bytes) -> Layout:
    return solve(formats.parse(len(data)), data)


@pytest.mark.parametrize(
    ("data", "format_name", "has_color"),
    [
        pytest.param(encoded("PNG"), "png", True, id="png"),
        pytest.param(encoded("PNG", "RGBA"), "png", True, id="png-alpha"),
        pytest.param(encoded("PNG", "L"), "png", False, id="png-grey"),
        pytest.param(encoded("PNG", "LA"), "png", False, id="png-grey-alpha"),
        pytest.param(encoded("PNG", "P"), "png", True, id="png-palette"),
        pytest.param(encoded("WEBP"), "webp", True, id="webp-lossy"),
        pytest.param(encoded("WEBP", lossless=True), "webp", True, id="webp-lossless"),
        pytest.param(encoded("WEBP", "RGBA"), "webp", True, id="webp-alpha"),
        pytest.param(encoded("GIF"), "gif", True, id="gif"),
        pytest.param(encoded("BMP"), "bmp", True, id="bmp"),
    ],
)
def test_what_a_file_is(data: bytes, format_name: str, has_color: bool) -> None:
    layout = parsed(data)
    assert layout.format == format_name
    assert layout.size == Size(WIDTH, HEIGHT)
    assert layout.levels == (Size(WIDTH, HEIGHT),)
    assert layout.tiling is None
    assert layout.has_color == has_color
    assert layout.advice == ()
    assert formats.load(layout.dump()) == layout
    extract = layout.extract(Box(10, 20, 300, 200), Size(30, 20))
    assert (extract.spans, extract.level, extract.pixels) == ((Span(0, len(data)),), 0, WIDTH * HEIGHT)
    piece = layout.rebuild(extract, [data])
    assert (piece.data, piece.format, piece.crop) == (data, format_name, Frame(10, 20, 300, 200))
    assert (piece.reduce, piece.area, piece.orientation) == (0, None, Orientation.UPRIGHT)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (layout.size.width, layout.size.height)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", list(Orientation), ids=lambda orientation: orientation.name.lower())
def test_a_turned_one_is_shown_upright(kind: str, orientation: Orientation) -> None:
    data = encoded(kind, orientation=orientation)
    layout = parsed(data)
    assert layout.size == orientation.upright(Size(WIDTH, HEIGHT))
    box = Box(0, 0, 40, 30)
    piece = layout.rebuild(layout.extract(box, box.size), [data])
    stored = orientation.to_stored(box, Size(WIDTH, HEIGHT))
    assert piece.orientation is orientation
    assert piece.crop == Frame(stored.x, stored.y, stored.width, stored.height)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_an_exif_chunk_behind_the_pixels_counts() -> None:
    plain, turned = encoded("PNG"), encoded("PNG", orientation=8)
    at = turned.index(b"eXIf") - 4
    (length,) = struct.unpack_from(">I", turned, at)
    chunk = turned[at : at + 12 + length]
    moved = plain[:-12] + chunk + plain[-12:]
    assert parsed(moved).size == Size(HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", [3, 4], ids=["SHORT", "LONG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_is_a_short_or_a_long(kind: int, order: str) -> None:
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *((6, 0) if kind == 3 else (6,)))
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IHHHI", 8, 1, 274, kind, 1) + value
    assert exif.orientation(block) is Orientation.TURN_90


def test_a_large_one_has_a_note() -> None:
    data = pyvips.Image.black(3000, 20).pngsave_buffer()
    assert any("Re-encode as a tiled, pyramidal TIFF" in note for note in parsed(data).advice)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        pytest.param(encoded("PNG")[:30], Malformed, "whole IHDR", id="png-cut"),
        pytest.param(encoded("PNG").replace(b"IHDR", b"IHDX"), Malformed, "whole IHDR", id="png-without-ihdr"),
        pytest.param(
            encoded("PNG")[:24] + b"\0" + encoded("PNG")[25:], Malformed, "samples of 0 bits", id="png-without-depth"
        ),
        pytest.param(encoded("WEBP")[:25], Malformed, "inside its header", id="webp-cut"),
        pytest.param(encoded("WEBP")[:-1], Malformed, "cut short", id="webp-without-its-last-byte"),
        pytest.param(encoded("WEBP").replace(b"VP8 ", b"VPX "), Malformed, "holds no picture", id="webp-odd-chunk"),
        pytest.param(b"GIF89a\0\0", Malformed, "inside its header", id="gif-cut"),
        pytest.param(b"GIF89a\0\0\x05\0" + bytes(20), Malformed, "0×5", id="gif-of-no-width"),
        pytest.param(encoded("BMP")[:30], Malformed, "inside its header", id="bmp-cut"),
        pytest.param(encoded("BMP")[:18] + bytes(8) + encoded("BMP")[26:], Malformed, "0×0", id="bmp-of-no-size"),
        pytest.param(
            encoded("BMP")[:30] + b"\4" + encoded("BMP")[31:], Unsupported, "compressed by method 4", id="bmp-of-jpeg"
        ),
        pytest.param(
            encoded("PNG")[:16] + struct.pack(">II", 1 << 30, 5) + encoded("PNG")[24:],
            Unsupported,
            "1073741824×5",
            id="png-too-wide",
        ),
    ],
)
def test_broken_headers_are_typed_errors(data: bytes, error: type[MasterError], message: str) -> None:
    with pytest.raises(error, match=message):
        parsed(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_truncation_at_every_byte_of_the_headers_is_a_typed_error(kind: str) -> None:
    data = encoded(kind)
    for length in range(200):
        try:
            assert parsed(data[:length]).size == Size(WIDTH, HEIGHT)
        except MasterError as error:
            assert str(error)  # noqa: PT017 - both ends are allowed, an untyped error is not


@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        pytest.param(b"", Orientation.UPRIGHT, id="empty"),
        pytest.param(b"Exif\0\0", Orientation.UPRIGHT, id="prefix-only"),
        pytest.param(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", Orientation.TURN_90, id="big-endian"),
        pytest.param(
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0", Orientation.TURN_270, id="little-endian"
        ),
        pytest.param(
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", Orientation.UPRIGHT, id="out-of-range"
        ),
        pytest.param(b"II*\0\xff\xff\xff\xff\x01\0\x12\x01", Orientation.UPRIGHT, id="offset-past-the-end"),
        pytest.param(
            b"\xfeM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", Orientation.UPRIGHT, id="no-byte-order"
        ),
    ],
)
def test_orientation_out_of_an_exif_block(block: bytes, orientation: Orientation) -> None:
    assert exif.orientation(block) is orientation


def test_the_serial_form_is_pinned() -> None:
    layout = whole.WholeLayout(
        "jpeg", 1234567, Size(6000, 4000), Orientation.TURN_90, has_color=False, max_reduce=3, progressive=True
    )
    pinned = bytes.fromhex("5702 00 000000000012d687 00001770 00000fa0 06 00 03 01 0000000000000000")
    assert layout.dump() == pinned
    assert formats.load(pinned) == layout
    measured = replace(layout, density=300.0)
    assert measured.dump() == pinned[:-8] + bytes.fromhex("4072c00000000000")
    assert formats.load(measured.dump()) == measured
    # What the first version has stored stays of use.
    assert formats.load(bytes.fromhex("5701 00 000000000012d687 00001770 00000fa0 06 00 03 01")) == layout


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes.fromhex("5702 00 000000000012d687 00001770 00000fa0 06 00 03"), id="short"),
        pytest.param(
            bytes.fromhex("5702 09 000000000012d687 00001770 00000fa0 06 00 03 01 0000000000000000"),
            id="unknown-format",
        ),
        pytest.param(
            bytes.fromhex("5702 00 0000000000000000 00001770 00000fa0 06 00 03 01 0000000000000000"), id="no-bytes"
        ),
        pytest.param(
            bytes.fromhex("5702 00 000000000012d687 00000000 00000fa0 06 00 03 01 0000000000000000"), id="no-width"
        ),
    ],
)
def test_a_damaged_serial_form_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        formats.load(data)
