"""What the headers of JPEG 2000 masters tell, which bytes are read, and in how many round trips."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fixtures import make_jp2, rework
from special import formats
from special.codecs import openjpeg
from special.errors import Malformed
from special.formats import jp2
from special.formats.jp2 import Jp2Layout
from special.formats.jp2.extract import PickedPackets, WholeObject, WholeTiles
from special.formats.jp2.packet_headers import Precinct
from special.formats.jp2.packet_index import index_packets
from special.formats.jp2.precincts import file_order, place, tile_of
from special.formats.layout import Extract, Tiling
from special.formats.parser import drive, solve
from special.geometry import Box, Size
from special.storage.blob import Span
from special.storage.ranges import read_spans
from tests.support.memory import MemorySource

FIXTURES = Path(make_jp2.__file__).parent
SMALL = make_jp2.WIDTH, make_jp2.HEIGHT
Q = 65536


def kept(name: str) -> bytes:
    return next((FIXTURES / "jp2").glob(f"{name}.j*")).read_bytes()


def parsed(data: bytes) -> Jp2Layout:
    return solve(jp2.parse(len(data)), data)


def completed(data: bytes) -> Jp2Layout:
    layout = parsed(data)
    rest = layout.complete()
    found = layout if rest is None else solve(rest, data)
    assert isinstance(found, Jp2Layout)
    return found


def extracted(layout: Jp2Layout, data: bytes, box: Box, size: Size) -> tuple[Jp2Layout, Extract]:
    missing = layout.prepare(box, size)
    found = layout if missing is None else solve(missing, data)
    assert isinstance(found, Jp2Layout)
    return found, found.extract(box, size)


@pytest.mark.parametrize(
    ("head", "is_jp2"),
    [
        pytest.param(bytes.fromhex("0000000c6a5020200d0a870a00000014"), True, id="boxes"),
        pytest.param(bytes.fromhex("ff4fff51002f00000000"), True, id="raw"),
        pytest.param(bytes.fromhex("ff4fff5200"), False, id="no SIZ"),
        pytest.param(b"\xff\xd8\xff\xe0", False, id="JPEG"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_sniff(head: bytes, is_jp2: bool) -> None:
    assert jp2.sniff(head) is is_jp2


@pytest.mark.parametrize(
    ("name", "size", "levels", "tiling", "has_color"),
    [
        pytest.param("archive", SMALL, 8, None, True, id="archive"),
        pytest.param("rpcl-partsr-tiles", SMALL, 4, Tiling(Size(110, 100), (1, 2, 4, 8)), True, id="tiled"),
        pytest.param("offset-pcrl-37x21-5x9-64x64-precincts", SMALL, 4, None, True, id="tiles off the corner"),
        pytest.param("samples-1x16", SMALL, 4, None, False, id="grey"),
        pytest.param("samples-2x8", SMALL, 4, None, False, id="grey and opacity"),
        pytest.param("components-differ", SMALL, 3, None, True, id="as many levels as the component with fewest"),
        pytest.param("ycc420-rpcl", SMALL, 4, None, True, id="subsampled"),
    ],
)
def test_headers(name: str, size: tuple[int, int], levels: int, tiling: Tiling | None, has_color: bool) -> None:
    layout = parsed(kept(name))
    assert (layout.format, layout.size, layout.tiling, layout.has_color) == ("jp2", Size(*size), tiling, has_color)
    assert len(layout.levels) == levels
    assert layout.levels[0] == layout.size
    assert layout.advice == ()


def test_a_palette_is_never_averaged() -> None:
    data = (FIXTURES / "masters" / "mosaic.jp2").read_bytes()
    layout = parsed(data)
    assert layout.levels == (layout.size,)
    assert layout.has_color
    assert extracted(layout, data, Box.whole(layout.size), Size(10, 10))[1].level == 0
    assert any("palette" in note for note in layout.advice)


@pytest.mark.parametrize(
    ("bits", "levels"), [pytest.param(bits, levels, id=f"{bits} bits") for bits, levels in ((1, 1), (4, 1), (5, 4))]
)
def test_of_few_bits_no_smaller_level_is_shown(bits: int, levels: int) -> None:
    data = bytearray(kept("samples-1x16"))
    data[42] = bits - 1  # Ssiz (table A.9), behind SOC and 40 bytes of SIZ
    layout = parsed(bytes(data))
    assert len(layout.levels) == levels
    assert (f"samples of {bits} bits" in " ".join(layout.advice)) is (levels == 1)


@pytest.mark.parametrize(
    ("box", "size", "level"),
    [
        pytest.param(Box(0, 0, 213, 187), Size(213, 187), 0, id="full"),
        pytest.param(Box(0, 0, 213, 187), Size(107, 94), 1, id="a level's own size, rounded up"),
        pytest.param(Box(0, 0, 213, 187), Size(107, 95), 0, id="a pixel more"),
        pytest.param(Box(0, 0, 213, 187), Size(1, 94), 1, id="the side that needs most decides"),
        pytest.param(Box(0, 0, 128, 128), Size(32, 32), 2, id="aligned"),
        pytest.param(Box(3, 0, 126, 128), Size(32, 32), 1, id="a box a little too narrow"),
        pytest.param(Box(128, 128, 85, 59), Size(11, 8), 3, id="a tile at the edge, rounded up"),
        pytest.param(Box(0, 0, 20, 20), Size(200, 200), 0, id="larger than it is"),
    ],
)
def test_the_smallest_level_that_is_large_enough(box: Box, size: Size, level: int) -> None:
    assert parsed(kept("archive")).extract(box, size).level == level


def test_a_box_outside_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="outside"):
        parsed(kept("archive")).extract(Box(213, 0, 5, 5), Size(5, 5))


@pytest.mark.parametrize(
    ("name", "box", "size", "recipe"),
    [
        pytest.param("archive", Box(0, 0, 213, 187), Size(213, 187), WholeObject, id="everything is the object itself"),
        pytest.param("archive", Box(0, 0, 213, 187), Size(27, 24), PickedPackets, id="a reduction"),
        pytest.param("plm", Box(10, 10, 20, 20), Size(20, 20), PickedPackets, id="PLM"),
        pytest.param(
            "rpcl-partsr-tiles-nolengths", Box(10, 10, 20, 20), Size(5, 5), WholeTiles, id="tiles without lengths"
        ),
        pytest.param("rlcp-partsr-nolengths", Box(0, 0, 213, 187), Size(27, 24), PickedPackets, id="walked"),
        pytest.param(
            "rlcp-partsr-nolengths", Box(10, 10, 20, 20), Size(20, 20), WholeObject, id="a region without lengths"
        ),
    ],
)
def test_ways(name: str, box: Box, size: Size, recipe: type) -> None:
    data = kept(name)
    assert isinstance(extracted(parsed(data), data, box, size)[1].recipe, recipe)


def test_spans_are_those_of_the_low_resolutions() -> None:
    """In RPCL by tile-parts, a reduction is the bodies of the first parts, and nothing else."""
    data = kept("archive")
    layout, extract = extracted(parsed(data), data, Box.whole(Size(*SMALL)), Size(27, 24))
    index = layout.index
    bodies = [Span(index.bodies[row], index.stops[row]) for row in index.rows[0]]
    assert extract.level == 3
    assert list(extract.spans) == bodies[:5]


@pytest.mark.parametrize("path", sorted((FIXTURES / "jp2").iterdir()), ids=lambda path: path.name)
def test_packet_headers_say_what_plt_says(path: Path) -> None:
    data = path.read_bytes()
    layout = completed(data)
    header = layout.header
    measured, promised = [], []
    for number in layout.index.rows:
        if not layout.index.has_lengths(number):
            continue
        bounds = header.canvas.tile(number % header.canvas.columns, number // header.canvas.columns)
        tile = tile_of(header, bounds)
        packets, precincts = index_packets(header, layout.index, number, tile), {}
        for packet in file_order(header, tile).tolist():
            precinct = packet // header.layers
            if precinct not in precincts:
                precincts[precinct] = Precinct(header, bounds, *place(tile, precinct))
            start = int(packets.starts[packet])
            measured.append(precincts[precinct].packet(data, start) - start)
            promised.append(int(packets.lengths[packet]))
    assert (measured == promised) is ("lies" not in path.name)


# The serial form


@pytest.mark.parametrize("path", sorted((FIXTURES / "jp2").iterdir()), ids=lambda path: path.name)
def test_a_layout_comes_back_as_it_was(path: Path) -> None:
    data = path.read_bytes()
    layout = completed(data)
    again = jp2.load(layout.dump())
    assert (again, hash(again)) == (layout, hash(layout))
    for box, size in ((Box(5, 5, 60, 40), Size(30, 20)), (Box.whole(layout.size), layout.levels[-1])):
        assert again.prepare(box, size) is None or layout.prepare(box, size) is not None
        assert again.extract(box, size).spans == layout.extract(box, size).spans
    assert (again.levels, again.advice, again.tiling) == (layout.levels, layout.advice, layout.tiling)


def test_the_serial_form_is_pinned() -> None:
    """A change of this hash is a new version of the form: raise the last byte of its MAGIC."""
    dumped = completed(kept("tlm")).dump()
    assert dumped.startswith(b"special.jp2\0\x01")
    content = zlib.decompress(dumped[13:])
    assert hashlib.sha256(content).hexdigest() == "c6851b453a8c494f208e794db5606b08dff2f27c6ccfcdc5a21c914b28a4e8ba"


@pytest.mark.parametrize("cut", [0, 12, 13, 40, -1])
def test_a_damaged_serial_form_is_malformed(cut: int) -> None:
    with pytest.raises(Malformed):
        jp2.load(completed(kept("tlm")).dump()[:cut])


# Lies


def test_lengths_that_put_a_boundary_inside_a_packet_are_found_out() -> None:
    data = kept("plt-lies")
    layout = completed(data)
    extract = layout.extract(Box(100, 90, 16, 16), Size(16, 16))
    with pytest.raises(Malformed, match="PLT is wrong"):
        layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    whole = layout.distrusted("PLT is wrong")
    assert whole is not None
    assert whole.distrusted("again") is None
    assert whole.extract(Box(100, 90, 16, 16), Size(16, 16)).spans == (Span(0, len(data)),)
    assert any("PLT is wrong" in note for note in whole.advice)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(kept("plt-lies"), {True, False}, id="bare: where a run begins or ends"),
        pytest.param(rework.wrong_plt(kept("archive")), {True}, id="sop: everywhere"),
        pytest.param(rework.wrong_plt(kept("ht")), {True, False}, id="HTJ2K"),
    ],
)
def test_no_region_is_made_of_packets_that_are_cut_wrong(data: bytes, found: set[bool]) -> None:
    layout, whole = completed(data), openjpeg.decode(data).pixels
    outcomes = set()
    for x, y in product(range(0, 170, 13), range(0, 150, 17)):
        box = Box(x, y, 29, 31)
        extract = layout.extract(box, box.size)
        try:
            piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
        except Malformed:
            outcomes.add(True)
            continue
        outcomes.add(False)
        decoded = openjpeg.decode(piece.data, reduce=piece.reduce, area=piece.area).pixels
        left, top = round(piece.crop.x), round(piece.crop.y)
        assert np.array_equal(decoded[top : top + 31, left : left + 29], whole[y : y + 31, x : x + 29])
    assert outcomes == found


def test_a_boundary_moved_in_a_file_with_sop_is_found_out() -> None:
    data = rework.wrong_plt(kept("archive"))
    layout = completed(data)
    extract = layout.extract(Box(0, 0, 213, 187), Size(107, 94))
    with pytest.raises(Malformed, match="PLT is wrong"):
        layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda lengths: [*lengths[:-1], lengths[-1] + 1], "adds up to", id="one byte too many"),
        pytest.param(lambda lengths: lengths[:-1], "packets of tile", id="one packet too few"),
        pytest.param(lambda lengths: [*lengths, 1], "packets of tile", id="one packet too many"),
        pytest.param(lambda lengths: [0, lengths[0] + lengths[1], *lengths[2:]], "without bytes", id="an empty packet"),
    ],
)
def test_lengths_that_do_not_add_up_cost_the_whole_object(change: object, reason: str) -> None:
    data = rework.with_lengths(kept("lrcp-precincts-3"), change)
    layout = completed(data)
    assert layout.extract(Box(0, 0, 10, 10), Size(10, 10)).spans == (Span(0, len(data)),)
    assert any(reason in note for note in layout.advice)


@pytest.mark.parametrize("change", [rework.wrong_tlm, rework.short_tlm], ids=["wrong", "short"])
def test_a_wrong_tlm_is_walked_around(change: object) -> None:
    data = kept("tlm")
    box, size = Box(0, 0, 213, 187), Size(54, 47)
    changed = change(data)  # type: ignore[operator]
    assert extracted(parsed(changed), changed, box, size)[1].pixels == 54 * 47
    lengths = [len(span) for span in extracted(parsed(changed), changed, box, size)[1].spans]
    assert lengths == [len(span) for span in extracted(parsed(data), data, box, size)[1].spans]


def test_parts_of_other_lengths_are_malformed() -> None:
    data = kept("archive")
    layout, extract = extracted(parsed(data), data, Box.whole(Size(*SMALL)), Size(27, 24))
    with pytest.raises(Malformed, match="other lengths"):
        layout.rebuild(extract, [b""] * len(extract.spans))


# Bytes and round trips


async def costs(data: bytes, box: Box, size: Size, *, layout: Jp2Layout | None = None) -> tuple[int, int, int]:
    """Round trips, bytes read, and bytes of the packets needed, as an engine would go about it."""
    source = MemorySource({"x": data})
    blob = source.blob("x")
    seen: list[tuple[Span, bytes]] = []
    known = layout or await drive(formats.parse(len(data)), source, blob, seen=seen)
    missing = known.prepare(box, size)
    if missing is not None:
        known = await drive(missing, source, blob, first_bytes=0, chunk_bytes=0, seen=seen)
    extract = known.extract(box, size)
    parts = await read_spans(source, blob, extract.spans, max_gap_bytes=Q, seen=seen)
    known.rebuild(extract, parts)
    reads = [call for call in source.calls if call[0] == "read"]
    read = sum(len(span) for call in reads for span in call[2])  # type: ignore[attr-defined]
    return len(reads), read, sum(len(span) for span in extract.spans)


@pytest.mark.parametrize("level", range(1, 8))
def test_a_small_size_costs_its_packets_and_three_round_trips(level: int) -> None:
    data = (FIXTURES / "masters" / "map.jp2").read_bytes()
    layout = parsed(data)
    trips, read, needed = asyncio.run(costs(data, Box.whole(layout.size), layout.levels[level]))
    assert trips <= 3
    assert read <= 1.05 * needed + Q


def test_with_its_index_a_size_costs_one_round_trip() -> None:
    data = (FIXTURES / "masters" / "map.jp2").read_bytes()
    layout = jp2.load(completed(data).dump())
    for level in range(1, 8):
        trips, read, needed = asyncio.run(costs(data, Box.whole(layout.size), layout.levels[level], layout=layout))
        assert trips == 1
        assert read <= 1.05 * needed


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """48 megapixels as archives encode them, and in tiles of 1024."""
    folder = tmp_path_factory.mktemp("large")
    width, height = 6000, 8000
    draw, y = np.random.default_rng(3), np.arange(height)[:, None]
    grain = draw.normal(0, 1, (height // 4, width // 4)).repeat(4, axis=0).repeat(4, axis=1)
    waves = 60 * np.sin(np.arange(width)[None, :] / 211) * np.cos(y / 173) + 128
    with (folder / "a.ppm").open("wb") as file:
        file.write(b"P6\n%d %d\n255\n" % (width, height))
        for rows in np.array_split(np.arange(height), 16):
            plane = waves[rows] + 9 * grain[rows] + draw.normal(0, 4, (len(rows), width))
            file.write(np.stack([plane, plane * 0.9, plane * 0.7 + 20], axis=-1).clip(0, 255).astype("u1").tobytes())
    made = {}
    tiled = ("-n", "6", "-t", "1024,1024", "-p", "RPCL", "-PLT", "-TLM", "-I")
    for name, options in (("archive", make_jp2.ARCHIVE), ("tiled", tiled)):
        command = ["opj_compress", "-i", str(folder / "a.ppm"), "-o", str(folder / "a.jp2"), "-r", "12", *options]
        subprocess.run(command, check=True, capture_output=True)
        made[name] = (folder / "a.jp2").read_bytes()
    return made


@pytest.mark.long
@pytest.mark.parametrize("level", range(1, 8))
def test_a_small_size_of_48_megapixels(large: dict[str, bytes], level: int) -> None:
    layout = parsed(large["archive"])
    trips, read, needed = asyncio.run(costs(large["archive"], Box.whole(layout.size), layout.levels[level]))
    assert trips <= 3
    assert read <= 1.05 * needed + Q


@pytest.mark.long
def test_an_index_takes_three_reads_and_then_none(large: dict[str, bytes]) -> None:
    box = Box(2048, 3072, 512, 512)
    assert asyncio.run(costs(large["archive"], box, box.size))[0] <= 3 + 1
    layout = jp2.load(completed(large["archive"]).dump())
    assert asyncio.run(costs(large["archive"], box, box.size, layout=layout))[0] == 1


@pytest.mark.long
def test_a_tile_of_a_tiled_master_costs_its_tile(large: dict[str, bytes]) -> None:
    data, box = large["tiled"], Box(2048, 3072, 512, 512)
    layout = completed(data)
    index = layout.index
    tile = len(index.spans(3 * 6 + 2)[0])
    trips, read, _ = asyncio.run(costs(data, box, box.size))
    assert trips <= 3
    assert read <= 1.1 * tile + Q


def test_very_many_tiles_are_told_of() -> None:
    layout = parsed(kept("tlm"))
    canvas = replace(layout.header.canvas, tile_width=2, tile_height=2)
    many = replace(layout, header=replace(layout.header, canvas=canvas))
    assert any("10058 tiles" in note and "larger tiles" in note for note in many.advice)
    assert not any("tiles:" in note for note in layout.advice)
