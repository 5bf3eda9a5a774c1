"""Broken and hostile JPEG 2000: a layout or a typed error, in bounded memory and a bounded number of reads."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import make_jp2, rework
from special.errors import Malformed, MasterError, Unsupported
from special.formats import jp2
from special.formats.jp2 import Jp2Layout
from special.formats.parser import Parser
from special.geometry import Box, Size, ceil_div
from special.storage.blob import Span

FOLDER = Path(make_jp2.__file__).parent / "jp2"
MASTERS = [path.read_bytes() for path in sorted(FOLDER.iterdir())]
MAX_READS = 200
MAX_MEMORY_BYTES = 64 << 20


def counted(parser: Parser[object], data: bytes) -> object:
    """Run a parser; it may not ask for more than `MAX_READS` batches."""
    try:
        wanted = next(parser)
        for _ in range(MAX_READS):
            assert all(span.stop <= len(data) for span in wanted), "a parser looks at the size that it was given"
            wanted = parser.send([data[span.start : span.stop] for span in wanted])
    except StopIteration as end:
        return end.value
    raise AssertionError(f"more than {MAX_READS} reads")


def used(data: bytes) -> Jp2Layout:
    """Everything that a server does with a master, short of decoding it."""
    layout = counted(jp2.parse(len(data)), data)
    assert isinstance(layout, Jp2Layout)
    width, height = layout.size.width, layout.size.height
    corner = Box(width // 2, height // 2, min(64, ceil_div(width, 2)), min(64, ceil_div(height, 2)))
    for box, size in ((Box.whole(layout.size), layout.levels[-1]), (corner, corner.size), (corner, Size(1, 1))):
        missing = layout.prepare(box, size)
        if missing is not None:
            prepared = counted(missing, data)
            assert isinstance(prepared, Jp2Layout)
            layout = prepared
        extract = layout.extract(box, size)
        assert all(span.stop <= len(data) for span in extract.spans)
        assert sorted(extract.spans) == sorted(set(extract.spans))
        try:
            layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
        except Malformed as lie:
            distrusted = layout.distrusted(str(lie))
            assert distrusted is not None
            layout = distrusted
            assert layout.extract(box, size).spans == (Span(0, len(data)),)
    return jp2.load(layout.dump())


@pytest.mark.parametrize("name", ["tlm.jp2", "components-differ.j2k", "rlcp-partsr-nolengths.jp2", "plm.jp2"])
def test_cut_at_every_byte(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    outcomes = set()
    for stop in range(len(data)):
        try:
            used(data[:stop])
            outcomes.add("layout")
        except MasterError as error:
            outcomes.add(type(error).__name__)
    assert outcomes <= {"layout", "Malformed", "Unsupported"}
    assert "Malformed" in outcomes


# SIZ, COD, QCD of a picture without tile-parts: what follows is for each test to say.
def stream(*, siz: bytes = b"", cod: bytes = b"", qcd: bytes = b"\x40" + bytes(97), extra: bytes = b"") -> bytes:
    siz = siz or sized()
    segments = [(0xFF51, siz), (0xFF52, cod or coded()), (0xFF5C, qcd)]
    return b"\xff\x4f" + rework.joined(segments) + extra


def sized(
    right: int = 64,
    bottom: int = 64,
    tile: tuple[int, int] = (64, 64),
    *,
    components: bytes = b"\7\1\1",
    count: int = 0,
) -> bytes:
    number = count or len(components) // 3
    return struct.pack(">H8IH", 0, right, bottom, 0, 0, *tile, 0, 0, number) + components


def coded(levels: int = 5, *, order: int = 2, layers: int = 1, precincts: bytes = b"") -> bytes:
    return struct.pack(">BBHBBBBBB", bool(precincts), order, layers, 0, levels, 4, 4, 0, 1) + precincts


def part(tile: int = 0, *, body: bytes = b"\0", lengths: bytes = b"", length: int | None = None) -> bytes:
    plt = rework.joined([(0xFF58, b"\0" + lengths)]) if lengths else b""
    whole = 14 + len(plt) + len(body)
    sot = struct.pack(">HHHIBB", 0xFF90, 10, tile, whole if length is None else length, 0, 1)
    return sot + plt + b"\xff\x93" + body


def boxed(*boxes: bytes) -> bytes:
    return bytes.fromhex("0000000c6a5020200d0a870a") + b"".join(boxes)


def box(kind: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(body) if length is None else length, kind) + body


HUGE = (1 << 32) - 1
IHDR = box(b"ihdr", bytes(14))
EOC = b"\xff\xd9"


def hostile() -> Iterator[object]:
    yield pytest.param(b"", Malformed, id="nothing")
    yield pytest.param(b"\xff\x4f\xff\x51", Malformed, id="two markers")
    yield pytest.param(boxed(), Unsupported, id="no codestream box")
    yield pytest.param(boxed(box(b"ftbl", bytes(40))), Unsupported, id="a fragmented codestream")
    yield pytest.param(boxed(box(b"xml ", length=7)), Malformed, id="a box shorter than its head")
    yield pytest.param(boxed(box(b"xml ", length=0)), Unsupported, id="a box to the end")
    yield pytest.param(boxed(box(b"xml ", bytes(8), length=1)), Malformed, id="a long box of no length")
    yield pytest.param(boxed(box(b"xml ", length=HUGE)), Malformed, id="a box past the end")
    yield pytest.param(boxed(*[box(b"free")] * 5000), Malformed, id="boxes without end")
    yield pytest.param(boxed(box(b"jp2c", stream())), Malformed, id="no header box")
    yield pytest.param(boxed(box(b"jp2h"), box(b"jp2c", stream())), Malformed, id="an empty header box")
    yield pytest.param(
        boxed(box(b"jp2h", IHDR + box(b"colr", length=99)), box(b"jp2c", stream())), Malformed, id="lying inside"
    )
    yield pytest.param(
        boxed(box(b"jp2h", IHDR + box(b"free") * 9000), box(b"jp2c", b"")), Malformed, id="an empty jp2c"
    )
    yield pytest.param(stream(siz=sized(0, 0)), Malformed, id="no pixels")
    yield pytest.param(stream(siz=sized(HUGE, HUGE, (1, 1))), Malformed, id="tiles without number")
    yield pytest.param(stream(siz=sized(tile=(0, 0))), Malformed, id="tiles without size")
    yield pytest.param(stream(siz=sized(components=b"\7\0\1")), Malformed, id="samples without distance")
    yield pytest.param(stream(siz=sized(components=b"", count=0)), Malformed, id="no components")
    yield pytest.param(
        stream(siz=sized(components=b"\7\1\1", count=16384)), Malformed, id="components that are not there"
    )
    six = sized(components=b"\7\1\1" * 6)
    yield pytest.param(stream(siz=six, extra=part() + EOC), Unsupported, id="a sixth component")
    yield pytest.param(stream(cod=coded(33)), Malformed, id="too many levels")
    yield pytest.param(stream(cod=coded(order=5)), Malformed, id="a sixth progression")
    yield pytest.param(stream(cod=coded(layers=0)), Malformed, id="no layers")
    yield pytest.param(stream(cod=coded(5, precincts=b"\x11\x11")), Malformed, id="precincts that are not there")
    yield pytest.param(stream(cod=coded(1, precincts=b"\x11\x00")), Malformed, id="precincts too narrow for subbands")
    yield pytest.param(stream(extra=b"\xff\x64\0\1"), Malformed, id="a segment shorter than its length")
    yield pytest.param(stream(extra=b"\xff\x64\0\2" * 50_000), Malformed, id="segments without end")
    yield pytest.param(stream(extra=b"\x12\x34"), Malformed, id="no marker")
    yield pytest.param(stream(extra=b"\xff\x30" * 90_000), Malformed, id="markers without end")
    yield pytest.param(stream(extra=part(length=13) + EOC), Malformed, id="a tile-part shorter than its head")
    yield pytest.param(stream(extra=part(length=HUGE) + EOC), Malformed, id="a tile-part past the end")
    yield pytest.param(stream(extra=part(9) + EOC), Malformed, id="a tile that is not there")
    yield pytest.param(stream(extra=part() * 2 + EOC), Malformed, id="the same tile-part twice")
    yield pytest.param(stream(extra=part(lengths=b"\xff" * 9) + EOC), Malformed, id="a length without end")
    yield pytest.param(stream(extra=part(lengths=b"\xff" * 9 + b"\0") + EOC), Malformed, id="a length of nine bytes")


@pytest.mark.parametrize(("data", "error"), list(hostile()))
def test_broken(data: bytes, error: type[MasterError]) -> None:
    with pytest.raises(error):
        used(data)


def vast() -> Iterator[object]:
    many = sized(components=b"\7\1\1" * 16384)
    fine = coded(1, precincts=b"\x11\x11")
    yield pytest.param(stream(siz=sized(HUGE, HUGE, (HUGE, HUGE)), extra=part(lengths=b"\1") + EOC), id="pixels")
    vast_precincts = sized(HUGE, HUGE, (HUGE, HUGE))
    yield pytest.param(stream(siz=vast_precincts, cod=fine, extra=part(lengths=b"\1") + EOC), id="precincts")
    yield pytest.param(stream(siz=vast_precincts, cod=fine, extra=part() + EOC), id="precincts to be walked")
    yield pytest.param(stream(siz=many, cod=coded(32), extra=part(lengths=b"\1") + EOC), id="components")
    yield pytest.param(stream(cod=coded(layers=65535), extra=part(lengths=b"\1") + EOC), id="layers")
    tiles = sized(255, 257, (1, 1))
    yield pytest.param(stream(siz=tiles, extra=b"".join(part(tile) for tile in range(65535)) + EOC), id="tiles")
    codestream = stream(extra=part(body=bytes(1 << 20), lengths=b"\1" * 60000) + EOC)
    yield pytest.param(codestream, id="packets")


@pytest.mark.parametrize("data", list(vast()))
def test_vast_claims_take_little_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with suppress(MasterError):
            used(data)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES


@pytest.mark.parametrize("count", [1, 5])
def test_up_to_five_components_are_decoded_and_counted(count: int) -> None:
    layout = used(stream(siz=sized(components=b"\7\1\1" * count), extra=part() + EOC))
    assert layout.extract(Box(0, 0, 9, 9), Size(9, 9)).components == count


@pytest.mark.parametrize("count", [6, 16384])
def test_more_are_refused_by_name(count: int) -> None:
    with pytest.raises(Unsupported, match=f"has {count} components; at most 5"):
        used(stream(siz=sized(components=b"\7\1\1" * count), extra=part() + EOC))


def test_what_is_refused_is_refused_by_name() -> None:
    for marker, name in ((0xFF5F, "POC"), (0xFF60, "PPM"), (0xFF5E, "RGN"), (0xFF74, "ff74")):
        extra = rework.joined([(marker, bytes(7))]) + part() + EOC
        layout = used(stream(extra=extra))
        assert layout.extract(Box(0, 0, 9, 9), Size(9, 9)).spans == (Span(0, layout.size_bytes),)
        assert any(name in note for note in layout.advice), name


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A committed encoding with bytes changed, cut out, doubled or swapped."""
    data = bytearray(draw(st.sampled_from(MASTERS)))
    for _ in range(draw(st.integers(1, 4))):
        # Headers are where it hurts: half of all changes fall among the first 400 bytes.
        limit = draw(st.sampled_from([min(400, len(data)), len(data)]))
        at = draw(st.integers(0, max(limit - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                data[at : at + 4] = draw(st.sampled_from([bytes(4), b"\xff" * 4, b"\0\0\0\1", b"\x7f\xff\xff\xff"]))
            case 2:
                del data[at : at + draw(st.integers(1, 64))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case 4:
                data[at : at + 2] = draw(
                    st.sampled_from([b"\xff\x90", b"\xff\x93", b"\xff\x58", b"\xff\x55", b"\xff\xd9"])
                )
    return bytes(data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_a_mutated_master_is_a_layout_or_a_typed_error(data: bytes) -> None:
    with suppress(MasterError):
        used(data)
