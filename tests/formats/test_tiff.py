"""TIFF layouts: what is read of the headers, which tiles a box needs, and what is refused by name."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import pyvips

from fixtures.make_tiff import PYRAMID, TILED, by_tifffile, picture, sparse, vips
from fixtures.tiff_pages import Page, put_together, take_apart
from special import formats
from special.errors import Malformed, MasterError, Unsupported
from special.formats import tiff
from special.formats.layout import Layout
from special.formats.parser import drive, solve
from special.formats.tiff import TiffLayout, read_page
from special.geometry import Box, Frame, Size
from special.storage.blob import Span
from tests.support.memory import MemorySource


def parsed(data: bytes) -> Layout:
    return solve(formats.parse(len(data)), data)


def read(data: bytes, spans: tuple[Span, ...]) -> list[bytes]:
    return [data[span.start : span.stop] for span in spans]


@cache
def jpeg_pyramid() -> bytes:
    return vips(3, compression="jpeg", Q=75, **PYRAMID)


def page(**fields: tuple[int, ...]) -> Page:
    """A grey page of 64×64 pixels in one tile, but for these fields: t256=(100,) and the like; () leaves one out."""
    numbers: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (64,)),
        257: (4, (64,)),
        258: (3, (8,)),
        259: (3, (1,)),
        262: (3, (1,)),
        277: (3, (1,)),
        322: (4, (64,)),
        323: (4, (64,)),
    }
    for name, values in fields.items():
        numbers[int(name[1:])] = (4, values)
    return Page({tag: value for tag, value in numbers.items() if value[1]}, [bytes(4096)], tiled=True)


def large(columns: int, rows: int) -> bytes:
    """A TIFF that says it has this many tiles of 64 pixels, tile n being n % 7 bytes long."""
    count = columns * rows
    head, entries = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16), 10
    lists_at = 16 + 8 + entries * 20 + 8
    fields = [
        (256, 4, 1, struct.pack("<Q", columns * 64)),
        (257, 4, 1, struct.pack("<Q", rows * 64)),
        (258, 3, 1, struct.pack("<Q", 8)),
        (259, 3, 1, struct.pack("<Q", 8)),
        (262, 3, 1, struct.pack("<Q", 1)),
        (277, 3, 1, struct.pack("<Q", 1)),
        (322, 4, 1, struct.pack("<Q", 64)),
        (323, 4, 1, struct.pack("<Q", 64)),
        (324, 16, count, struct.pack("<Q", lists_at)),
        (325, 4, count, struct.pack("<Q", lists_at + 8 * count)),
    ]
    directory = b"".join([struct.pack("<Q", entries), *(struct.pack("<HHQ", *f[:3]) + f[3] for f in fields), bytes(8)])
    lengths = np.arange(count, dtype="<u4") % 7
    offsets = (lists_at + 12 * count + np.cumsum(lengths, dtype="<u8") - lengths).astype("<u8")
    return head + directory + offsets.tobytes() + lengths.tobytes() + bytes(int(lengths.sum()))


def test_what_a_pyramid_is() -> None:
    layout = parsed(jpeg_pyramid())
    assert layout.format == "tiff"
    assert layout.size == Size(533, 401)
    assert layout.levels == (Size(533, 401), Size(266, 200), Size(133, 100), Size(66, 50), Size(33, 25))
    assert layout.tiling is not None
    assert layout.tiling.tile == Size(64, 64)
    assert layout.tiling.scale_factors == (1, 2, 4, 8, 16)
    assert layout.has_color
    assert layout.advice == ()


@pytest.mark.parametrize(
    ("box", "size", "level"),
    [
        pytest.param(Box(0, 0, 533, 401), Size(533, 401), 0, id="full"),
        pytest.param(Box(0, 0, 533, 401), Size(267, 201), 1, id="half-rounded-up"),
        pytest.param(Box(0, 0, 533, 401), Size(266, 200), 1, id="half"),
        pytest.param(Box(0, 0, 533, 401), Size(270, 203), 0, id="a-little-more-than-half"),
        pytest.param(Box(0, 0, 533, 401), Size(132, 99), 2, id="a-little-less-than-a-quarter"),
        pytest.param(Box(0, 0, 533, 401), Size(10, 8), 4, id="less-than-the-least"),
        pytest.param(Box(0, 0, 128, 128), Size(64, 64), 1, id="a-tile-of-half"),
        pytest.param(Box(512, 384, 21, 17), Size(11, 9), 1, id="the-corner-tile-of-half"),
        pytest.param(Box(512, 0, 21, 128), Size(6, 32), 1, id="a-sliver-takes-a-finer-level"),
        pytest.param(Box(100, 100, 1, 1), Size(1, 1), 0, id="one-pixel"),
        pytest.param(Box(100, 100, 2, 2), Size(4, 4), 0, id="enlarged"),
        pytest.param(Box(0, 0, 400, 100), Size(50, 100), 0, id="shrunk-one-way-only"),
    ],
)
def test_the_smallest_level_that_is_enough_is_read(box: Box, size: Size, level: int) -> None:
    assert parsed(jpeg_pyramid()).extract(box, size).level == level


def test_a_box_of_one_tile_reads_that_tile() -> None:
    data = jpeg_pyramid()
    (tile,) = parsed(data).extract(Box(64, 128, 64, 64), Size(64, 64)).spans
    stored = take_apart(data)[0].tiles[2 * 9 + 1]
    assert data[tile.start : tile.stop] == stored


def test_a_box_across_tiles_reads_all_it_touches() -> None:
    extract = parsed(jpeg_pyramid()).extract(Box(63, 127, 66, 2), Size(66, 2))
    assert extract.pixels == 3 * 2 * 64 * 64
    layout = parsed(jpeg_pyramid())
    piece = layout.rebuild(extract, read(jpeg_pyramid(), extract.spans))
    assert piece.crop == Frame(63, 63, 66, 2)


def test_edges_of_the_box_may_fall_between_pixels_of_a_level() -> None:
    data = jpeg_pyramid()
    layout = parsed(data)
    extract = layout.extract(Box(129, 131, 101, 99), Size(25, 24))
    piece = layout.rebuild(extract, read(data, extract.spans))
    assert extract.level == 2
    assert piece.crop == Frame(32.25, 32.75, 25.25, 24.75)


def test_the_far_edge_stays_inside_a_level_that_was_rounded_down() -> None:
    data = jpeg_pyramid()
    layout = parsed(data)
    extract = layout.extract(Box(512, 384, 21, 17), Size(11, 9))  # 10.5 × 8.5 pixels at half, of which 10 × 8 are there
    piece = layout.rebuild(extract, read(data, extract.spans))
    assert piece.crop == Frame(0, 0, 10, 8)


def test_parts_of_the_wrong_length_are_refused() -> None:
    layout = parsed(jpeg_pyramid())
    extract = layout.extract(Box(0, 0, 64, 64), Size(64, 64))
    with pytest.raises(Malformed, match="not as long as"):
        layout.rebuild(extract, [b"short"])


def test_tiles_that_share_bytes_are_read_once() -> None:
    first, *others = take_apart(vips(1, compression="deflate", **TILED))
    first = replace(first, tiles=[first.tiles[0]] * len(first.tiles))
    data = put_together([first, *others], shared=True)
    layout = parsed(data)
    extract = layout.extract(Box.whole(layout.size), layout.size)
    (span,) = extract.spans
    assert len(span) == len(first.tiles[0])
    assert len(layout.rebuild(extract, read(data, extract.spans)).data) < 2 * len(span) + 2000


@pytest.mark.parametrize("quality", [75, 92], ids=["ycbcr", "rgb"])
def test_unwritten_jpeg_tiles_are_black(quality: int) -> None:
    dense = vips(3, compression="jpeg", Q=quality, **TILED)
    data = put_together(sparse(take_apart(dense)))
    layout = parsed(data)
    extract = layout.extract(Box.whole(layout.size), layout.size)
    piece = layout.rebuild(extract, read(data, extract.spans))
    wanted = pyvips.Image.tiffload_buffer(dense).numpy().copy()
    for number in range(1, 9 * 7, 3):
        x, y = number % 9 * 64, number // 9 * 64
        wanted[y : y + 64, x : x + 64] = 0
    np.testing.assert_array_equal(pyvips.Image.tiffload_buffer(piece.data, fail_on="error").numpy(), wanted)
    assert layout.stored(Box(64, 0, 64, 64), Size(64, 64)) is None


@pytest.mark.parametrize(
    ("box", "size", "is_stored"),
    [
        pytest.param(Box(64, 128, 64, 64), Size(64, 64), True, id="inner"),
        pytest.param(Box(128, 128, 128, 128), Size(64, 64), True, id="inner-of-half"),
        pytest.param(Box(0, 0, 256, 256), Size(64, 64), True, id="inner-of-a-quarter"),
        pytest.param(Box(64, 128, 64, 64), Size(63, 64), False, id="shrunk"),
        pytest.param(Box(63, 128, 64, 64), Size(64, 64), False, id="off-the-grid"),
        pytest.param(Box(512, 128, 21, 64), Size(21, 64), False, id="edge-padded-in-the-file"),
        pytest.param(Box(64, 64, 128, 128), Size(64, 64), False, id="off-the-grid-of-half"),
        pytest.param(Box(0, 0, 128, 64), Size(128, 64), False, id="two-tiles"),
    ],
)
def test_a_tile_that_matches_exactly_is_sent_as_it_is_stored(box: Box, size: Size, is_stored: bool) -> None:
    assert (parsed(jpeg_pyramid()).stored(box, size) is not None) == is_stored


def test_an_edge_tile_that_fits_exactly_is_sent_as_it_is_stored() -> None:
    image = pyvips.Image.new_from_array(picture(3)[:128, :192])
    layout = parsed(image.tiffsave_buffer(compression="jpeg", **TILED))
    assert layout.stored(Box(128, 64, 64, 64), Size(64, 64)) is not None


def test_nothing_is_sent_as_stored_that_is_not_a_plain_jpeg() -> None:
    box, size = Box(64, 64, 64, 64), Size(64, 64)
    cmyk = vips(4, interpretation="cmyk", compression="jpeg", **TILED)
    turned = put_together([replace(p, fields={**p.fields, 274: (3, (6,))}) for p in take_apart(jpeg_pyramid())])
    for data in (cmyk, turned, vips(3, compression="deflate", **TILED), vips(3, compression="webp", **TILED)):
        assert parsed(data).stored(box, size) is None


def test_a_colour_profile_goes_along_and_stops_passthrough_unless_it_is_srgb() -> None:
    for name, passes in (("srgb", True), ("p3", False)):
        image = pyvips.Image.new_from_array(picture(3)).copy(interpretation="srgb").icc_transform(name)
        data = image.tiffsave_buffer(compression="jpeg", profile=name, **PYRAMID)
        layout = parsed(data)
        assert (layout.stored(Box(64, 64, 64, 64), Size(64, 64)) is not None) == passes
        extract = layout.extract(Box(64, 64, 200, 200), Size(100, 100))
        piece = layout.rebuild(extract, read(data, extract.spans))
        kept = pyvips.Image.tiffload_buffer(piece.data).get("icc-profile-data")
        assert kept == pyvips.Image.tiffload_buffer(data).get("icc-profile-data")


def test_a_long_colour_profile_is_read_with_the_tiles() -> None:
    profile = bytes(range(256)) * 2000
    pages = take_apart(vips(4, interpretation="cmyk", compression="deflate", **TILED))
    data = put_together([replace(p, fields={**p.fields, 34675: (7, tuple(profile))}) for p in pages])
    layout = parsed(data)
    assert len(layout.dump()) < 5000
    assert any("colour profile" in note for note in layout.advice)
    extract = layout.extract(Box(0, 0, 64, 64), Size(64, 64))
    assert sum(len(span) for span in extract.spans) == len(profile) + len(pages[0].tiles[0])
    piece = layout.rebuild(extract, read(data, extract.spans))
    assert profile in piece.data


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"t259": (6,)}, r"compression 6 \(old-style JPEG\)", id="old-style-jpeg"),
        pytest.param({"t259": (34712,), "t258": (4,)}, "4 bits, colour model MIN_IS_BLACK", id="jpeg-2000-of-4-bits"),
        pytest.param({"t259": (34712,), "t262": (0,)}, "MIN_IS_WHITE, in JPEG 2000", id="jpeg-2000-white-is-0"),
        pytest.param({"t259": (34661,)}, r"compression 34661 \(JBIG\)", id="jbig"),
        pytest.param({"t259": (4711,)}, r"compression 4711 \(an unknown one\)", id="unknown-compression"),
        pytest.param({"t262": (32803,)}, "camera raw", id="camera-raw"),
        pytest.param({"t258": (64,)}, "64 bits that are unsigned", id="64-bit"),
        pytest.param({"t339": (3,)}, "8 bits that are fractions", id="fractions-of-8-bits"),
        pytest.param({"t339": (6,), "t258": (64,)}, "complex fractions", id="complex"),
        pytest.param({"t258": (16,), "t262": (3,)}, "16 bits in the colour model PALETTE", id="palette-of-16-bits"),
        pytest.param({"t262": (2,)}, "1 samples in the colour model RGB", id="too-few-samples"),
        pytest.param({"t262": (5,), "t258": (8,) * 5, "t277": (5,), "t332": (2,)}, "other than CMYK", id="inks"),
        pytest.param({"t258": (8, 5), "t277": (2,)}, "all must be of one depth", id="mixed-depths"),
        pytest.param(
            {"t284": (2,), "t277": (3,), "t262": (6,)}, "YCbCr of 3 samples, subsampled by 2×2", id="separate-ycbcr"
        ),
        pytest.param({"t256": (100_000_001,)}, "longest side possible", id="too-wide"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        parsed(put_together([page(**fields)]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"t256": (0,)}, "0×64", id="no-width"),
        pytest.param({"t257": ()}, "no IMAGE_LENGTH", id="length-missing"),
        pytest.param({"t256": (4000,)}, "need 63 of them; 1 are listed", id="too-few-tiles"),
        pytest.param({"t320": tuple(range(9000))}, "COLOR_MAP is 36000 bytes", id="huge-colour-map"),
        pytest.param({"t259": (7,), "t322": (70_000,)}, "cannot hold a tile", id="jpeg-tile-too-wide"),
    ],
)
def test_what_contradicts_itself_is_malformed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parsed(put_together([page(**fields)]))


def test_a_depth_in_letters_is_malformed() -> None:
    one = page()
    with pytest.raises(Malformed, match="BITS_PER_SAMPLE holds 2 values of type 2"):
        parsed(put_together([replace(one, fields={**one.fields, 258: (2, (56, 0))})]))


def fields_of(data: bytes) -> dict[int, tuple[int, int]]:
    """Where each entry of the first directory is, and its number of values."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = (at + 2 + 12 * number for number in range(count))
    return {struct.unpack_from("<H", data, at)[0]: (at, struct.unpack_from("<I", data, at + 4)[0]) for at in entries}


@pytest.mark.parametrize("missing", ["none", "zero"])
@pytest.mark.parametrize("compression", [1, 8])
def test_byte_counts_that_are_missing_are_found(missing: str, compression: int) -> None:
    tiles = [bytes([number]) * 4096 for number in range(4)]
    data = bytearray(
        put_together([replace(page(t256=(128,), t257=(128,), t259=(compression,)), tiles=tiles)], place="front")
    )
    at, count = fields_of(data)[325]
    assert count == 4
    if missing == "none":
        struct.pack_into("<H", data, at, 326)  # another field
    else:
        (values_at,) = struct.unpack_from("<I", data, at + 8)
        data[values_at : values_at + 16] = bytes(16)
    layout = parsed(bytes(data))
    for x, y in ((0, 0), (64, 64)):
        (span,) = layout.extract(Box(x, y, 64, 64), Size(64, 64)).spans
        # without compression a tile has as many bytes as pixels; else it may reach up to the next one
        assert data[span.start : span.stop] == tiles[(x + 2 * y) // 64]
    assert formats.load(layout.dump()) == layout


@pytest.mark.parametrize(
    ("fields", "has_color", "samples"),
    [
        pytest.param({"t262": ()}, False, 1, id="no colour model"),
        pytest.param({"t262": (), "t258": (8,) * 3, "t277": (3,)}, True, 3, id="no colour model of three samples"),
        pytest.param({"t262": (2,), "t258": (8,) * 3, "t277": ()}, True, 3, id="no number of samples"),
        pytest.param({"t262": (2,), "t258": (8,), "t277": ()}, True, 3, id="no number, and one depth for all"),
        pytest.param({"t262": (), "t258": (8,) * 4, "t277": ()}, True, 4, id="neither"),
    ],
)
def test_fields_that_are_missing_are_told_by_the_others(fields: dict[str, Any], has_color: bool, samples: int) -> None:
    data = put_together([page(**fields)])
    layout = parsed(data)
    assert isinstance(layout, TiffLayout)
    assert (layout.has_color, layout.full.samples) == (has_color, samples)
    extract = layout.extract(Box(0, 0, 64, 64), Size(64, 64))
    assert read_page(layout.rebuild(extract, read(data, extract.spans)).data).samples == samples


def test_of_a_circle_of_directories_the_first_page_is_shown() -> None:
    pages = [page(t256=(side,), t257=(side,)) for side in (64, 32)]
    data = bytearray(put_together(pages, place="front"))
    entries = len(pages[0].fields) + 2
    first_bytes = 2 + 12 * entries + 4  # every value fits into its entry
    data[8 + 2 * first_bytes - 4 : 8 + 2 * first_bytes] = struct.pack("<I", 8)
    layout = parsed(bytes(data))
    assert layout.size == Size(64, 64)
    assert "byte 8 is linked twice" in layout.advice[0]


@pytest.mark.parametrize(
    ("place", "fields", "told"),
    [
        pytest.param("next", {}, "at byte 2147483647 of", id="the next page is beyond the end"),
        pytest.param("next into data", {}, "fields; 1 to 200 are possible", id="the next page is none"),
        pytest.param("", {"t330": (0x7FFFFFFF,)}, "at byte 2147483647 of", id="a sub-directory is beyond the end"),
        pytest.param("", {"t274": ((1 << 31) - 1,)}, "", id="an orientation that is none"),
    ],
)
def test_the_first_page_is_shown_where_what_is_behind_it_is_broken(
    place: str, fields: dict[str, Any], told: str
) -> None:
    data = bytearray(put_together([page(**fields)], place="front"))
    (entries,) = struct.unpack_from("<H", data, 8)
    following = {"": 0, "next": 0x7FFFFFFF, "next into data": len(data) - 40}[place]
    struct.pack_into("<I", data, 8 + 2 + 12 * entries, following)
    layout = parsed(bytes(data))
    assert layout.size == Size(64, 64)
    assert formats.load(layout.dump()).advice == layout.advice
    assert [told in note for note in layout.advice] == ([True] if told else [])


@pytest.mark.parametrize("tag", [34675, 297], ids=["profile", "page number"])
def test_values_beyond_the_end_that_pixels_do_not_need_are_passed_over(tag: int) -> None:
    one = page()
    data = bytearray(put_together([replace(one, fields={**one.fields, tag: (7, tuple(range(100)))})], place="front"))
    at = data.index(struct.pack("<HHI", tag, 7, 100))
    struct.pack_into("<I", data, at + 8, 0x7FFFFF00)
    layout = parsed(bytes(data))
    assert (layout.size, layout.profile) == (Size(64, 64), None)


async def test_a_chain_of_pages_that_do_not_grow_smaller_is_left_at_once() -> None:
    source = MemorySource({"book.tif": put_together([page() for _ in range(500)], place="between")})
    blob = source.blob("book.tif")
    await drive(formats.parse(blob.size), source, blob, first_bytes=0, chunk_bytes=0)
    assert len(source.calls) == 2  # what it is, and the first page with the second behind it


def test_a_broken_level_is_left_out() -> None:
    data = put_together([page(), page(t256=(32,), t257=(32,), t259=(50000,))])
    assert parsed(data).levels == (Size(64, 64),)


def test_levels_that_were_rounded_up_are_levels() -> None:
    pages = [page(t256=(61,), t257=(43,)), page(t256=(31,), t257=(22,)), page(t256=(16,), t257=(11,))]
    assert parsed(put_together(pages)).levels == (Size(61, 43), Size(31, 22), Size(16, 11))


def test_a_page_of_other_proportions_is_no_level() -> None:
    pages = [page(), page(t256=(33,), t257=(20,)), page(t256=(32,), t257=(32,))]
    assert parsed(put_together(pages)).levels == (Size(64, 64), Size(32, 32))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"t254": (2,), "t297": (0, 2)}, {"t254": (2,), "t297": (1, 2)}, id="pages of a document"),
        pytest.param({}, {"t254": (2,)}, id="only the second calls itself a page"),
        pytest.param({}, {"t297": (1, 2)}, id="only a page number"),
        pytest.param({}, {"t262": (0,)}, id="nothing said, another colour model"),
        pytest.param({}, {"t259": (8,)}, id="nothing said, another compression"),
    ],
)
def test_another_page_of_half_the_size_is_no_level(first: dict[str, Any], second: dict[str, Any]) -> None:
    data = put_together([page(**first), page(t256=(32,), t257=(32,), **second)])
    assert parsed(data).levels == (Size(64, 64),)
    assert formats.load(parsed(data).dump()).levels == (Size(64, 64),)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({}, {}, id="nothing said, stored alike"),
        pytest.param({}, {"t254": (1,), "t259": (8,)}, id="it says it is reduced"),
        pytest.param({"t297": (0, 2)}, {"t254": (1,), "t297": (1, 2)}, id="reduced, with a page number"),
        pytest.param({"t254": (2,), "t297": (0, 1)}, {"t254": (3,), "t297": (0, 1)}, id="reduced, of a page"),
    ],
)
def test_a_reduced_page_of_half_the_size_is_a_level(first: dict[str, Any], second: dict[str, Any]) -> None:
    data = put_together([page(**first), page(t256=(32,), t257=(32,), **second)])
    assert parsed(data).levels == (Size(64, 64), Size(32, 32))
    assert formats.load(parsed(data).dump()).levels == (Size(64, 64), Size(32, 32))


def test_a_sub_directory_of_half_the_size_is_a_level_whatever_it_is_stored_as() -> None:
    nested = replace(page(), subs=[page(t256=(32,), t257=(32,), t259=(8,))])
    assert parsed(put_together([nested])).levels == (Size(64, 64), Size(32, 32))


def test_a_thumbnail_may_come_first() -> None:
    pages = [page(t254=(1,), t256=(16,), t257=(16,)), page()]
    data = put_together(pages)
    assert parsed(data).levels == (Size(64, 64), Size(16, 16))


def test_truncation_at_every_byte_is_a_typed_error_or_the_whole_truth() -> None:
    data = put_together([page(), page(t256=(32,), t257=(32,))], place="front")
    whole = parsed(data)
    for length in range(len(data)):
        try:
            layout = parsed(data[:length])
            extract = layout.extract(Box.whole(layout.size), layout.size)
        except MasterError:
            continue
        assert layout.size == whole.size
        assert all(span.stop <= length for span in extract.spans)


@pytest.mark.parametrize("compression", [1, 8])
def test_of_a_tile_past_the_end_what_is_there_is_shown(compression: int) -> None:
    data = put_together([page(t259=(compression,))], place="front")[:-1000]
    layout = parsed(data)
    extract = layout.extract(Box(0, 0, 64, 64), Size(64, 64))
    assert extract.spans[-1].stop == len(data)
    piece = layout.rebuild(extract, read(data, extract.spans))
    assert piece.incomplete == "1 of 1 tiles are not whole in the file"
    first = (64 * 64 - 1000) // 64 if compression == 1 else 0  # rows of 64 bytes
    assert piece.missing == (Box(0, first, 64, 64 - first),)


def test_very_long_lists_are_read_by_the_part_that_is_needed() -> None:
    data = large(1000, 1000)
    layout = parsed(data)
    box, size = Box(64 * 500, 64 * 700, 128, 128), Size(128, 128)
    parser = layout.prepare(box, size)
    assert parser is not None
    wanted = next(parser)
    assert sum(len(span) for span in wanted) <= 6 * 8192
    with pytest.raises(StopIteration) as end:
        parser.send(read(data, tuple(wanted)))
    prepared = end.value.value
    assert prepared.prepare(box, size) is None
    extract = prepared.extract(box, size)
    numbers = [700_500, 700_501, 701_500, 701_501]
    assert sum(len(span) for span in extract.spans) == sum(number % 7 for number in numbers)
    assert prepared.levels == layout.levels
    assert formats.load(prepared.dump()) == layout


def test_lists_of_ordinary_length_need_no_preparation() -> None:
    layout = parsed(jpeg_pyramid())
    assert layout.prepare(Box.whole(layout.size), layout.size) is None


def test_more_tiles_than_can_be_planned_are_refused() -> None:
    layout = parsed(large(1000, 1000))
    with pytest.raises(Unsupported, match="needs 1000000 tiles"):
        layout.prepare(Box.whole(layout.size), layout.size)
    with pytest.raises(Unsupported, match="needs 1000000 tiles"):
        layout.extract(Box.whole(layout.size), layout.size)


async def test_one_tile_of_a_pyramid_costs_little_beside_its_bytes() -> None:
    image = pyvips.Image.gaussnoise(4096, 3000, sigma=20, mean=128, seed=3).cast("uchar")
    source = MemorySource(
        {"a": image.tiffsave_buffer(compression="jpeg", **(PYRAMID | {"tile_width": 256, "tile_height": 256}))}
    )
    blob = source.blob("a")
    layout = await drive(formats.parse(blob.size), source, blob)
    for box, size in ((Box(1024, 512, 512, 512), Size(512, 512)), (Box(100, 100, 512, 512), Size(512, 512))):
        extract = layout.extract(box, size)
        tiles = math.prod(
            -(-(start + length) // 256) - start // 256 for start, length in ((box.x, box.width), (box.y, box.height))
        )
        per_tile = blob.size / sum(-(-level.width // 256) * -(-level.height // 256) for level in layout.levels)
        assert sum(len(span) for span in extract.spans) <= 1.1 * tiles * per_tile + 65536


async def test_headers_of_a_nested_pyramid_take_three_reads() -> None:
    image = pyvips.Image.gaussnoise(3000, 3000, sigma=20, mean=128, seed=3).cast("uchar")
    source = MemorySource({"a": image.tiffsave_buffer(compression="deflate", subifd=True, **PYRAMID)})
    blob = source.blob("a")
    await drive(formats.parse(blob.size), source, blob)
    assert len(source.calls) == 3  # the start; the first directory and the end; the sub-directories


def test_the_serial_form_is_pinned() -> None:
    data = put_together([page()], place="front")
    assert len(data) == 8 + 2 + 12 * 10 + 4 + 4096
    field = struct.Struct(">HHQQB")
    first = b"T\x01<" + struct.pack(">QBB", len(data), 1, 10) + field.pack(256, 4, 1, 18, 1) + b"\x40\0\0\0"
    dumped = parsed(data).dump()
    assert dumped.startswith(first)
    assert dumped.endswith(field.pack(325, 4, 1, 126, 1) + struct.pack("<I", 4096))
    assert len(dumped) == 13 + 10 * field.size + 6 * 4 + 4 * 2
    assert formats.load(dumped) == parsed(data)


def test_a_damaged_serial_form_is_malformed() -> None:
    dumped = parsed(jpeg_pyramid()).dump()
    for length in range(len(dumped)):
        with pytest.raises(MasterError):
            formats.load(dumped[:length])


def test_palettes_of_greys_have_no_colour() -> None:
    shades = tuple(shade * 257 for shade in range(256))
    assert not parsed(put_together([page(t262=(3,), t320=shades * 3)])).has_color
    assert parsed(put_together([page(t262=(3,), t320=shades * 2 + (0,) * 256)])).has_color


def test_strips_have_no_tiling_and_a_note() -> None:
    layout = parsed(by_tifffile(3, dtype="u1", planar="contig", tile=None, rows=32))
    assert layout.tiling is None
    wide = page(t256=(2000,), t257=(100,), t322=(), t323=(), t278=(100,))
    assert any("strips" in note for note in parsed(put_together([replace(wide, tiled=False)])).advice)


def test_sniffing_knows_both_orders_and_both_widths() -> None:
    heads = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]
    assert all(tiff.sniff(head + bytes(12)) for head in heads)
    assert not tiff.sniff(b"IIRO" + bytes(12))
    assert not tiff.sniff(b"II")


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        pytest.param({"t259": (34712,)}, "Tiles are JPEG 2000", id="jpeg-2000"),
        pytest.param({"t284": (2,), "t277": (3,), "t262": (2,)}, r"3 planes.*interleaved samples", id="planes"),
        pytest.param({"t256": (2048,), "t322": (2048,)}, "No smaller levels", id="no-levels"),
        pytest.param({"t258": (32,), "t339": (3,)}, "SMaxSampleValue", id="fractions without a range"),
    ],
)
def test_what_makes_it_expensive_is_told_with_the_remedy(fields: dict[str, Any], note: str) -> None:
    described = page(**fields)
    layout = parsed(put_together([replace(described, tiles=[bytes(64)] * 3)]))
    assert any(re.search(note, said) for said in layout.advice)
