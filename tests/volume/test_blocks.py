import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from special.storage.blob import Span
from special.volume.blocks import BlockMap, Damaged, entry_offset, parse_entries, runs, whole_pages
from tests.volume.made import content

MAP = BlockMap("s3://bucket/a b/ü.tif", '"5d41402a"', 150_000, 65536)


def test_the_map_on_disk_is_pinned() -> None:
    assert MAP.name == "29400d7e4eb56ad861b311219c8b75bbb3b24648557d73513d6d7b9209c69cff"
    header = MAP.header()
    assert len(header) == 4096
    assert header[:24].hex() == "7370656369616c2d6d61700000000001650000002badc439"
    assert json.loads(header[24:].rstrip(b"\0")) == {
        "url": "s3://bucket/a b/ü.tif",
        "etag": '"5d41402a"',
        "size_bytes": 150_000,
        "block_bytes": 65536,
    }
    assert MAP.entries(1, [b"\1" * 65536, b"\2" * 18928]).hex() == "00000100dccdfbe6f04900006e1927a5"
    assert [entry_offset(index) for index in (0, 1, 100)] == [4096, 4104, 4896]


def test_a_header_describes_what_it_was_made_from() -> None:
    assert BlockMap.parse(MAP.header()) == MAP
    assert BlockMap.parse(MAP.header()).digest == MAP.digest


@pytest.mark.parametrize("at", [0, 15, 16, 20, 24, 60])
def test_a_flipped_bit_in_a_header_is_noticed(at: int) -> None:
    header = bytearray(MAP.header())
    header[at] ^= 1
    with pytest.raises(Damaged):
        BlockMap.parse(bytes(header))


@pytest.mark.parametrize("length", [0, 10, 4095])
def test_a_short_header_is_noticed(length: int) -> None:
    with pytest.raises(Damaged):
        BlockMap.parse(MAP.header()[:length])


ELSEWHERE = {
    "url": replace(MAP, url="s3://bucket/b.tif"),
    "etag": replace(MAP, etag='"x"'),
    "size": replace(MAP, size_bytes=150_001),
    "block-size": replace(MAP, block_bytes=4096),
}


@pytest.mark.parametrize("other", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_checksum_is_bound_to_the_object(other: BlockMap) -> None:
    assert other.checksum(0, b"abc") != MAP.checksum(0, b"abc")
    assert other.name != MAP.name


def test_a_checksum_is_bound_to_place_and_length() -> None:
    sums = {MAP.checksum(0, b"abc"), MAP.checksum(1, b"abc"), MAP.checksum(0, b"abc\0"), MAP.checksum(0, b"")}
    assert len(sums) == 4


def test_zeros_are_not_a_block() -> None:
    assert parse_entries(bytes(16)) == [(0, 0), (0, 0)]
    assert MAP.checksum(0, bytes(65536)) != 0


@given(data=st.data(), size=st.integers(1, 5000), block=st.integers(1, 700))
def test_spans_cut_from_blocks_are_the_object_s_bytes(data: st.DataObject, size: int, block: int) -> None:
    blocks = BlockMap("s3://a/b", '"1"', size, block)
    start = data.draw(st.integers(0, size - 1))
    span = Span(start, data.draw(st.integers(start + 1, size)))
    indices = blocks.indices(span)
    around = blocks.span(indices)
    assert around.covers(span)
    assert len(around) < len(span) + 2 * block
    split = blocks.split(indices, content("b", 1, around))
    assert [len(split[index]) for index in indices] == [blocks.length(index) for index in indices]
    assert blocks.cut(span, split) == content("b", 1, span)


@pytest.mark.parametrize(
    ("indices", "most", "expected"),
    [
        pytest.param([], 9, [], id="none"),
        pytest.param([4], 9, [range(4, 5)], id="one"),
        pytest.param([1, 2, 3, 5, 6, 9], 9, [range(1, 4), range(5, 7), range(9, 10)], id="gaps"),
        pytest.param([1, 2, 3, 4, 5], 2, [range(1, 3), range(3, 5), range(5, 6)], id="too-long"),
    ],
)
def test_runs(indices: list[int], most: int, expected: list[range]) -> None:
    assert runs(indices, most) == expected


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192)])
def test_whole_pages(size: int, pages: int) -> None:
    assert whole_pages(size) == pages


@pytest.mark.parametrize(("length", "fits"), [pytest.param(3900, True, id="fits"), pytest.param(4100, False, id="not")])
def test_says_whether_a_url_fits_a_header(length: int, *, fits: bool) -> None:
    assert BlockMap("x" * length, '"1"', 1, 4096).describable is fits
