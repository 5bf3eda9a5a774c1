"""Pages of a PDF: their sizes, found in each form that a file may have, at a cost that does not grow with it."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from special import formats
from special.errors import Malformed, MasterError, NoSuchPage, Unsupported
from special.formats import Layout, drive, solve
from special.geometry import Box, Frame, Size
from special.storage import Span
from tests.support.memory import MemorySource
from tests.support.pdfs import Form, Page, Writer, document, written

PAGES = [Page(entries=f"/MediaBox [0 0 {width} 72]") for width in (72, 144, 216, 288, 360, 432, 504)]
"""At 100 pixels an inch 100, 200, … pixels wide, and 100 high."""


def layout_of(data: bytes, page: int = 1) -> Layout:
    return solve(formats.parse(len(data), page, pdf_dpi=100), data)


@pytest.mark.parametrize("branches", [0, 1, 3])
@pytest.mark.parametrize("form", ["table", "stream", "objects"])
def test_every_page_is_found_in_every_form_of_file(form: Form, branches: int) -> None:
    data = written(document(PAGES, branches=branches), form)
    assert [layout_of(data, n).size for n in range(1, 8)] == [Size(100 * n, 100) for n in range(1, 8)]
    with pytest.raises(NoSuchPage, match="no page 8: it has 7 pages"):
        layout_of(data, 8)


@pytest.mark.parametrize("predictor", [10, 11, 12, 13, 14])
def test_rows_of_a_stream_may_be_filtered(predictor: int) -> None:
    assert layout_of(written(document(PAGES), "objects", predictor=predictor), 5).size == Size(500, 100)


def test_a_table_of_many_objects_is_read_in_the_usual_filter_alone() -> None:
    writer = document(PAGES)
    for number in range(1000, 300_000):
        writer.objects[number] = b""
    assert layout_of(written(writer, "stream", predictor=12), 7).size == Size(700, 100)
    with pytest.raises(Unsupported, match="in filters other than Up"):
        layout_of(written(writer, "stream", predictor=11))


def test_tables_are_bounded_all_together() -> None:
    data = written(document(PAGES))
    for number in range(1000, 3000, 1000):
        rows = Writer({number: b"null"})
        data = written(rows, "stream", before=data, unused_bytes=9 << 20)
    assert len(data) < 100_000
    with pytest.raises(Unsupported, match="tables of objects of more than"):
        layout_of(data, 7)


def test_runs_of_a_stream_are_bounded_as_those_of_a_table() -> None:
    numbers = range(100, 40_100, 2)
    data = written(Writer({**document(PAGES).objects, **dict.fromkeys(numbers, b"")}), "stream")
    with pytest.raises(Unsupported, match="more than 10000 parts"):
        layout_of(data, 7)


def test_a_page_behind_too_many_objects_is_refused() -> None:
    writer = document(PAGES[:2])
    empty = writer.put("<< /Type /Pages /Count 0 /Kids [] >>")
    tree = writer.objects[2]
    writer.put(tree.replace(b"[ ", b"[ " + b"%d 0 R " % empty * 100), 2)
    assert layout_of(written(writer), 2).size == Size(200, 100)
    writer.put(tree.replace(b"[ ", b"[ " + b"%d 0 R " % empty * 2000), 2)
    with pytest.raises(Unsupported, match="behind more than 2000 objects"):
        layout_of(written(writer), 2)


@pytest.mark.parametrize("newer", ["table", "stream", "objects"])
@pytest.mark.parametrize("older", ["table", "stream", "objects"])
def test_an_update_counts_and_what_it_leaves_alone_stays(older: Form, newer: Form) -> None:
    first = document(PAGES[:2])
    before = written(first, older)
    page = next(number for number, text in first.objects.items() if b"[0 0 144 72]" in text)
    after = written(Writer({page: first.objects[page].replace(b"144", b"36")}), newer, before=before)
    assert [layout_of(after, n).size for n in (1, 2)] == [Size(100, 100), Size(50, 100)]
    assert layout_of(before, 2).size == Size(200, 100)


def test_a_file_for_old_and_new_readers_names_a_stream_beside_its_table() -> None:
    first = document(PAGES[:2])
    streamed = written(first, "objects")
    stream_at = int(streamed.rpartition(b"startxref")[2].split()[0])
    assert (
        layout_of(written(Writer({99: b"null"}), trailer=f"/XRefStm {stream_at}", before=streamed), 2).size.width == 200
    )


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        pytest.param("/MediaBox [0 0 72 36]", Size(100, 50), id="as it is"),
        pytest.param("/MediaBox [72 36 0 0]", Size(100, 50), id="other corners"),
        pytest.param("/MediaBox [-36 10 36.0 46]", Size(100, 50), id="not from 0"),
        pytest.param("/MediaBox [0 0 72 36] /Rotate 90", Size(50, 100), id="turned"),
        pytest.param("/MediaBox [0 0 72 36] /Rotate -180", Size(100, 50), id="upside down"),
        pytest.param("/MediaBox [0 0 720 720] /CropBox [0 0 72 36]", Size(100, 50), id="cropped"),
        pytest.param("/MediaBox [0 0 72 36] /CropBox [-50 -50 500 500]", Size(100, 50), id="crop beyond the paper"),
        pytest.param("/MediaBox [0 0 72 36] /CropBox [500 500 600 600]", Size(100, 50), id="crop beside the paper"),
        pytest.param("/MediaBox [0 0 36 18] /UserUnit 2", Size(100, 50), id="larger units"),
        pytest.param("/Media#42ox[0 0 72%comment (]\n36]", Size(100, 50), id="odd spelling"),
        pytest.param("/Note (a \\) (b) /MediaBox [0 0 1 1]) /MediaBox [0 0 72 36]", Size(100, 50), id="in a string"),
        pytest.param("", Size(850, 1100), id="not said"),
        pytest.param("/MediaBox [0 0 0 0]", Size(850, 1100), id="empty"),
    ],
)
def test_the_size_of_a_page(entries: str, size: Size) -> None:
    layout = layout_of(written(document([Page(entries=entries)])))
    assert (layout.format, layout.size, layout.density) == ("pdf", size, 100)
    assert formats.load(layout.dump()) == layout


def test_what_a_page_does_not_say_it_inherits() -> None:
    writer = document(
        [Page(entries="/MediaBox 90 0 R /Rotate 91 0 R"), Page(entries="")], inherited="/MediaBox [0 0 9 9]"
    )
    writer.put("[0 0 92 0 R 36]", 90)
    writer.put("270", 91)
    writer.put("72", 92)
    assert [layout_of(written(writer), n).size for n in (1, 2)] == [Size(50, 100), Size(12, 12)]


def test_pillows_files() -> None:
    file = io.BytesIO()
    first, *more = (Image.new("RGB", size) for size in ((300, 200), (50, 70), (10, 10)))
    first.save(file, "PDF", save_all=True, append_images=more, resolution=100)
    assert [layout_of(file.getvalue(), n).size for n in (1, 2, 3)] == [Size(300, 200), Size(50, 70), Size(10, 10)]


async def test_a_page_of_a_large_file_costs_some_reads() -> None:
    writer = document([*PAGES] * 300, branches=50)
    writer.put_stream(bytes(10_000_000))
    source = MemorySource({"book": written(writer)})
    blob = source.blob("book")
    layout = await drive(formats.parse(blob.size, 2100, pdf_dpi=100), source, blob)
    assert layout.size == Size(700, 100)
    runs = [span for verb, _, spans in source.calls if verb == "read" for span in spans]
    assert len(runs) <= 7
    assert sum(map(len, runs)) < 300_000


def test_levels_and_what_is_drawn_for_a_box() -> None:
    data = written(document([Page(entries="/MediaBox [0 0 1000 1500]")]))
    layout = solve(formats.parse(len(data), pdf_dpi=72), data)
    assert layout.levels == (Size(1000, 1500), Size(500, 750), Size(250, 375), Size(125, 188))
    extract = layout.extract(Box(256, 512, 501, 256), Size(126, 64))
    assert (extract.spans, extract.level, extract.pixels) == ((Span(0, len(data)),), 2, 126 * 64)
    piece = layout.rebuild(extract, [data])
    assert (piece.area, piece.reduce, piece.crop) == (Box(256, 512, 501, 256), 2, Frame(0, 0, 125.25, 64))
    assert layout.extract(Box(0, 0, 1000, 1500), Size(501, 751)).level == 0
    with pytest.raises(Malformed, match="1 bytes were read"):
        layout.rebuild(extract, [b"%"])


FILE = written(document(PAGES))


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        pytest.param(written(document(PAGES), trailer="/Encrypt 9 0 R"), Unsupported, "encrypted", id="encrypted"),
        pytest.param(FILE[:-30], Malformed, "startxref", id="cut short"),
        pytest.param(
            FILE.replace(b"startxref\n", b"startxref\n9"), Malformed, "nothing whole at byte 9", id="far table"
        ),
        pytest.param(FILE.replace(b"startxref\n", b"startxref\n-"), Malformed, "where a number should", id="no number"),
        pytest.param(FILE.replace(b"/Root", b"/Prev -5 /Root"), Malformed, "nothing whole at byte -5", id="negative"),
        pytest.param(
            written(document(PAGES), "stream", predictor=12).replace(b"/Columns 7", b"/Columns 99999999999999999999"),
            Unsupported,
            "rows that are not read here",
            id="long rows",
        ),
        pytest.param(FILE.replace(b"\nxref\n", b"\nxxxx\n"), Malformed, "where a number should be", id="no table"),
        pytest.param(
            FILE.replace(b"2 0 obj", b"3 0 obj"), Malformed, "object 2 of the PDF is not where", id="other object"
        ),
        pytest.param(FILE.replace(b"/Kids", b"/Cats"), NoSuchPage, "it has 1 page", id="no tree"),
        pytest.param(FILE.replace(b"/Count 7", b"/Count x"), Malformed, "where an object should be", id="no count"),
        pytest.param(FILE.replace(b"/Root 1", b"/Root 8"), Malformed, "no tree of pages", id="other root"),
        pytest.param(FILE.replace(b"/Root 1", b"/Root 77"), Malformed, "no catalog", id="no root"),
        pytest.param(FILE.replace(b"[ 4 0 R", b"[ 2 0 R"), Malformed, "deeper than 64", id="circle"),
        pytest.param(FILE.replace(b"/Count 7", b"/Count 9"), Malformed, "fewer pages than it says", id="too few"),
        pytest.param(written(Writer({1: b"1 0 R"})), Malformed, "chain of more than 64", id="refers to itself"),
        pytest.param(written(Writer({1: b"[" * 99 + b"]" * 99})), Malformed, "in more than 64 others", id="nested"),
        pytest.param(written(Writer({1: b"(" * 99})), Malformed, "nothing whole", id="no end"),
    ],
)
def test_what_is_broken_is_refused_in_words(data: bytes, error: type[MasterError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        layout_of(data, 8 if "few" in reason else 2 if error is NoSuchPage else 1)


@given(st.data())
def test_changed_bytes_end_in_a_typed_error_or_a_layout(data: st.DataObject) -> None:
    form: Form = data.draw(st.sampled_from(["table", "stream", "objects"]))
    changed = bytearray(written(document(PAGES[:3], branches=2), form))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(9, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        layout = layout_of(bytes(changed), data.draw(st.integers(1, 4)))
    except MasterError:
        return
    assert formats.load(layout.dump()) == layout


@pytest.mark.service
def test_without_the_package_it_is_refused_by_name() -> None:
    code = (
        "import sys; sys.modules['pypdfium2_raw'] = None\n"
        "from special import formats\n"
        "try: formats.solve(formats.parse(9), b'%PDF-1.7\\n')\n"
        "except formats.Unsupported as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "PDF needs a package that is not installed: pip install 'special-iiif[pdf]'\n"
