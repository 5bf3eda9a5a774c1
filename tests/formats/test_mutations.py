"""Files with some bytes changed: a typed error, or a layout that keeps its promises; never more work than allowed."""

from __future__ import annotations

import io
import struct
from functools import cache, partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixtures.make_tiff import PYRAMID, Encoding, by_tifffile, nested, picture, rearranged, sparse, turned, vips
from tests.soak.fuzz_tiff import exercise


def by_pillow(kind: str) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.fromarray(picture(3)).save(file, kind, exif=exif)
    return file.getvalue()


JPEG_PYRAMID = partial(vips, 3, compression="jpeg", **PYRAMID)
LZW_PYRAMID = partial(vips, 1, compression="lzw", **PYRAMID)
SEEDS = [
    Encoding("pyramid", partial(rearranged, JPEG_PYRAMID, None, place="front")),
    Encoding("nested", partial(rearranged, LZW_PYRAMID, nested, place="front", big=True, order=">")),
    Encoding("sparse", partial(rearranged, JPEG_PYRAMID, sparse, place="front")),
    Encoding("turned", partial(rearranged, LZW_PYRAMID, partial(turned, 6), place="front", order=">")),
    Encoding("planar", partial(by_tifffile, 3, dtype="u2", planar="separate", tile=None, rows=32)),
    Encoding("jpeg", partial(by_pillow, "JPEG")),
    Encoding("png", partial(by_pillow, "PNG")),
    Encoding("webp", partial(by_pillow, "WEBP")),
    Encoding("gif", partial(by_pillow, "GIF")),
    Encoding("bmp", partial(by_pillow, "BMP")),
    Encoding("avif", partial(by_pillow, "AVIF")),
]
seeds = pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
VALUES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([0, 1, 2, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]).map(partial(struct.pack, "<I")),
    st.integers(0, 1 << 16).map(partial(struct.pack, "<I")),
    st.integers(0, 65535).map(partial(struct.pack, ">H")),
)


@cache
def bytes_of(seed: Encoding) -> bytes:
    return seed.write()


@seeds
def test_an_unchanged_file_is_read(seed: Encoding) -> None:
    assert exercise(bytes_of(seed)) is not None


@seeds
@settings(deadline=None, max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 2000), VALUES), min_size=1, max_size=4))
def test_a_changed_header_is_a_typed_error_or_kept(seed: Encoding, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(bytes_of(seed))
    for at, value in changes:
        data[at : at + len(value)] = value
    exercise(bytes(data))


@seeds
@settings(deadline=None, max_examples=60)
@given(length=st.integers(0, 4000))
def test_a_file_cut_short_is_a_typed_error_or_kept(seed: Encoding, length: int) -> None:
    exercise(bytes_of(seed)[:length])


@settings(deadline=None, max_examples=200)
@given(
    magic=st.sampled_from(
        [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0", b"\xff\xd8\xff"]
    ),
    rest=st.binary(max_size=400),
)
def test_noise_behind_a_signature_is_a_typed_error_or_kept(magic: bytes, rest: bytes) -> None:
    exercise(magic + rest)
