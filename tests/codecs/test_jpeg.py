"""JPEG by libjpeg-turbo: the same pixels as libvips, or left to it."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips
from PIL import Image

from special.codecs import jpeg
from special.codecs.decode import decode
from special.errors import TooExpensive
from special.formats import Piece
from special.geometry import Frame, Size
from tests.support.pieces import encoded, mean_difference, opened, smooth

PICTURE = smooth(101, 77)


@pytest.mark.parametrize("reduce", [0, 1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_shrinking_on_load_rounds_sides_up(reduce: int, channels: int, progressive: bool) -> None:
    data = encoded(smooth(101, 77, channels), "jpeg", progressive=progressive)
    head = jpeg.read_head(data)
    assert head is not None
    assert (head.size, head.components, head.profile) == (Size(101, 77), channels, None)
    ours = jpeg.decode(data, head, reduce=reduce)
    assert ours is not None
    assert ours.shape == (-(-77 >> reduce), -(-101 >> reduce), channels)
    theirs = pyvips.Image.jpegload_buffer(data, shrink=1 << reduce)  # rounds down
    pixels = theirs.numpy().reshape(theirs.height, theirs.width, channels)
    assert mean_difference(ours[: theirs.height, : theirs.width], pixels) < 0.01


def with_scans(progressive: bool, scans: int) -> bytes:
    """A JPEG whose last scan is repeated until it has this many."""
    data = encoded(PICTURE, "jpeg", progressive=progressive)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


@pytest.mark.parametrize("scans", [jpeg.MAX_SCANS, jpeg.MAX_SCANS + 1, 5000])
def test_a_bomb_of_scans_is_refused_by_name(scans: int) -> None:
    data = with_scans(True, scans)
    frame = Frame(0, 0, 101, 77)
    if scans > jpeg.MAX_SCANS:
        with pytest.raises(TooExpensive, match=rf"has {scans} scans; at most 500"):
            decode(Piece(data, "jpeg", frame), max_pixels=10**6)
    else:
        decode(Piece(data, "jpeg", frame), max_pixels=10**6)


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        pytest.param(encoded(PICTURE, "jpeg"), True, id="baseline"),
        pytest.param(encoded(smooth(40, 30, 1), "jpeg"), True, id="grey"),
        pytest.param(encoded(PICTURE, "jpeg", progressive=True), False, id="progressive"),
        pytest.param(
            encoded(PICTURE, "jpeg").replace(b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x08\x01"), False, id="apart"
        ),
    ],
)
def test_pictures_of_one_scan_are_not_searched_for_more(data: bytes, is_one: bool) -> None:
    head = jpeg.read_head(data)
    assert head is not None
    assert head.is_one_scan == is_one
    if is_one:
        ending = data + b"\xff\xda\x00" * 1000
        assert decode(Piece(ending, "jpeg", Frame(0, 0, 1, 1)), max_pixels=10**6) is not None


def test_profiles_in_several_segments_are_joined() -> None:
    profile = bytes(range(256)) * 600  # a segment holds 65,519 bytes of it
    head = jpeg.read_head(encoded(PICTURE, "jpeg", icc_profile=profile))
    assert head is not None
    assert head.profile == profile


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xd8", id="only a start"),
        pytest.param(b"\xff\xd8\xff\xda\x00\x02", id="a scan without a frame"),
        pytest.param(b"\xff\xd8\xff\xff\xff\xff", id="fill bytes only"),
        pytest.param(encoded(PICTURE, "jpeg")[:150], id="cut before the frame"),
        pytest.param(encoded(PICTURE, "png"), id="a PNG"),
        pytest.param(b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x10\x01\x01\x11\x00" + bytes(20), id="no lines"),
        pytest.param(b"\xff\xd8\xff\xe2\x00\x0eICC_PROFILE\x00", id="a profile without a number"),
    ],
)
def test_heads_that_are_none(data: bytes) -> None:
    assert jpeg.read_head(data) is None


def test_of_what_only_imagecodecs_decodes_the_head_tells() -> None:
    frame = b"\xff\xd8\xff%b\x00\x0b%b\x00\x10\x00\x10\x01\x01\x11\x00" + bytes(20)
    for marker, bits, is_deep in ((b"\xc0", 8, False), (b"\xc1", 12, True), (b"\xc3", 8, True), (b"\xc3", 16, True)):
        head = jpeg.read_head(frame % (marker, bytes((bits,))))
        assert head is not None
        assert (head.bits, head.is_deep) == (bits, is_deep)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(Image.fromarray(smooth(40, 30, 4), "CMYK"), "jpeg"), id="inks"),
        pytest.param(encoded(PICTURE, "jpeg")[:-600], id="truncated"),
    ],
)
def test_what_is_left_to_libvips(data: bytes) -> None:
    head = jpeg.read_head(data)
    assert head is not None
    assert jpeg.decode(data, head) is None


@pytest.mark.parametrize(("quality", "sampling"), [(85, 2), (89, 2), (90, 0), (100, 0)])
def test_colours_are_halved_below_90(quality: int, sampling: int) -> None:
    from PIL import JpegImagePlugin

    assert JpegImagePlugin.get_sampling(opened(jpeg.encode(PICTURE, quality=quality))) == sampling


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(PICTURE, id="whole"),
        pytest.param(PICTURE[10:50, 20:60], id="cut"),
        pytest.param(PICTURE[:, ::-1], id="mirrored"),
        pytest.param(PICTURE[::-1], id="flipped"),
        pytest.param(PICTURE.transpose(1, 0, 2), id="transposed"),
        pytest.param(PICTURE[..., :1], id="one channel of three"),
        pytest.param(smooth(30, 20, 1), id="grey"),
    ],
)
def test_views_are_encoded_as_they_look(view: np.ndarray) -> None:
    theirs = np.asarray(opened(jpeg.encode(view, quality=95)))
    assert mean_difference(theirs.reshape(view.shape), view) < 2.0
