"""Pages of PDFs as pictures: every colour at its place, whatever part is drawn, however the page is turned or cut."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from special.codecs import pdf
from special.codecs.decode import decode
from special.codecs.raster import Raster
from special.errors import Malformed, TooExpensive
from special.formats import Piece, Sheet, parse, solve
from special.geometry import Box, Size
from tests.support.pdfs import Page, Rectangle, document, written

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
SHOWN = [Rectangle(10, 20, 30, 40, RED), Rectangle(50, 0, 50, 10, GREEN), Rectangle(90, 50, 10, 10, BLUE)]
"""On a page of 100 by 60 points: left and up to the top, below, in the upper right corner."""


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    pdf.prepare()


def expected(scale: int) -> Raster:
    """The page at so many pixels a point."""
    pixels: Raster = np.full((60, 100, 3), 255, np.uint8)
    for it in SHOWN:
        top, left = 60 - int(it.y + it.height), int(it.x)
        pixels[top : top + int(it.height), left : left + int(it.width)] = [int(255 * part) for part in it.colour]
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def drawn(data: bytes, box: Box | None = None, size: Size | None = None, *, dpi: int = 144, page: int = 1) -> Raster:
    """The picture of which an answer is made, of a page or a part of it."""
    layout = solve(parse(len(data), page, pdf_dpi=dpi), data)
    box = box or Box.whole(layout.size)
    piece = layout.rebuild(layout.extract(box, size or box.size), [data])
    picture = decode(piece, max_pixels=10**7)
    assert isinstance(picture, np.ndarray)
    return picture


@pytest.mark.parametrize("dpi", [72, 144, 216])
def test_every_colour_is_at_its_place(dpi: int) -> None:
    data = written(document([Page(), Page(SHOWN)]))
    assert np.array_equal(drawn(data, dpi=dpi, page=2), expected(dpi // 72))
    assert (drawn(data, dpi=dpi) == 255).all()


@pytest.mark.parametrize("box", [Box(0, 0, 30, 30), Box(17, 3, 101, 59), Box(150, 80, 50, 40)], ids=str)
def test_a_part_is_the_same_as_in_the_whole(box: Box) -> None:
    data = written(document([Page(SHOWN)]))
    assert np.array_equal(drawn(data, box), expected(2)[box.y : box.bottom, box.x : box.right])


@pytest.mark.parametrize("box", [Box(0, 0, 800, 480), Box(160, 80, 240, 160), Box(400, 0, 400, 480)], ids=str)
def test_half_and_quarter_are_drawn_at_once(box: Box) -> None:
    data = written(document([Page(SHOWN)]))
    for level in (1, 2):
        part = np.s_[box.y >> level : box.bottom >> level, box.x >> level : box.right >> level]
        size = Size(box.width >> level, box.height >> level)
        assert np.array_equal(drawn(data, box, size, dpi=576), expected(8 >> level)[part])


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_a_page_is_turned_as_it_says(turns: int) -> None:
    data = written(document([Page(SHOWN, f"/MediaBox [0 0 100 60] /Rotate {90 * turns}")]))
    assert np.array_equal(drawn(data), np.rot90(expected(2), -turns))


def test_what_is_cut_off_is_not_shown() -> None:
    data = written(document([Page(SHOWN, "/MediaBox [-50 -50 500 500] /CropBox [10 0 100 60]")]))
    assert np.array_equal(drawn(data), expected(2)[:, 20:])


def test_a_page_of_larger_units_has_more_pixels() -> None:
    data = written(document([Page(SHOWN, "/MediaBox [0 0 100 60] /UserUnit 3")]))
    assert np.array_equal(drawn(data, dpi=72), expected(3))


def test_a_page_of_no_whole_points_is_not_shifted() -> None:
    for width in (100.4, 100.98):
        picture = drawn(written(document([Page(SHOWN, f"/MediaBox [0 0 {width} 60]")])), dpi=720)
        assert picture.shape == (600, round(10 * width), 3)
        columns = np.flatnonzero((picture[590] == [0, 255, 0]).all(axis=-1))
        assert abs(columns[0] - 500) <= 1
        assert abs(columns[-1] - 999) <= 1


def test_text_is_shown_in_a_font_that_is_not_in_the_file() -> None:
    picture = drawn(written(document([Page(written="Iiii")])))
    dark = np.flatnonzero((picture < 64).all(axis=-1).any(axis=0))
    assert 8 < dark[0] < 20 < dark[-1] < 80


def test_the_table_and_the_library_must_agree() -> None:
    data = written(document([Page(SHOWN)]))
    piece = Piece(data, "pdf", crop=None, area=Box(0, 0, 9, 9), sheet=Sheet(1, Size(100, 100)))  # type: ignore[arg-type]
    with pytest.raises(Malformed, match="finds a page of 100×60 points"):
        decode(piece, max_pixels=100)
    with pytest.raises(TooExpensive, match="9×9 pixels"):
        decode(piece, max_pixels=80)


@pytest.mark.parametrize("page", [2, 1])
def test_what_the_library_does_not_open_is_malformed(page: int) -> None:
    data = written(document([Page(SHOWN)]))
    broken = data if page == 2 else b"%PDF-1.7\n" + bytes(100)
    with pytest.raises(Malformed, match="PDFium does not open"):
        pdf.decode(broken, Sheet(page, Size(100, 60)), area=Box(0, 0, 9, 9), reduce=0)


@pytest.mark.service
@pytest.mark.parametrize(
    ("module", "work", "said"),
    [
        (
            "pypdfium2_raw",
            "from special.codecs import pdf; from special.formats import Sheet\n"
            "from special.geometry import Box, Size\n"
            "pdf.decode(b'', Sheet(1, Size(9, 9)), area=Box(0, 0, 9, 9), reduce=0)",
            "PDF needs a package that is not installed: pip install 'special-iiif[pdf]'",
        ),
        (
            "imagecodecs",
            "from special.codecs import deep_jpeg, jpeg; from special.geometry import Size; "
            "deep_jpeg.decode(b'', jpeg.JpegHeader(Size(9, 9), 3, None, True, 12, is_lossless=False))",
            "a JPEG of 12 bits needs a package that is not installed: pip install 'special-iiif[imagecodecs]'",
        ),
    ],
    ids=["pdf", "imagecodecs"],
)
def test_a_layout_of_a_machine_that_has_the_package_is_refused_by_name(module: str, work: str, said: str) -> None:
    code = f"import sys; sys.modules['{module}'] = None\nfrom special.errors import Unsupported\n"
    code += f"try: exec({work!r})\nexcept Unsupported as error: print(error)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == f"{said}\n"
    )
