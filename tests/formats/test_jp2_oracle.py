"""Parts of a JPEG 2000 master, rebuilt and decoded, are exactly those parts of the whole master decoded."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fixtures import make_jp2
from special.codecs import openjpeg
from special.errors import Malformed
from special.formats import jp2
from special.formats.jp2 import Jp2Layout
from special.formats.parser import solve
from special.geometry import Box, Size, ceil_div

FIXTURES = Path(make_jp2.__file__).parent
KEPT = sorted((FIXTURES / "jp2").iterdir()) + sorted((FIXTURES / "codestreams").iterdir())
MATRIX = list(make_jp2.encodings())

Pixels = npt.NDArray[np.uint8 | np.uint16]


def requests(layout: Jp2Layout, *, count: int, seed: str) -> Iterator[tuple[Box, Size]]:
    """The whole at every level; corners, tiles and boxes at random, at sizes that fit a level or lie between two."""
    whole, (width, height) = Box.whole(layout.size), (layout.size.width, layout.size.height)
    for level in layout.levels:
        yield whole, level
    yield Box(0, 0, 1, 1), Size(1, 1)
    yield Box(width - 1, height - 1, 1, 1), Size(1, 1)
    draw = random.Random(seed)
    for number in range(count - 2):
        scale = 1 << draw.randint(0, layout.max_reduction)
        if number % 2:
            side = 32 * scale
            x, y = draw.randrange(0, width, side), draw.randrange(0, height, side)
            box = Box(x, y, min(side, width - x), min(side, height - y))
        else:
            w, h = draw.randint(1, width), draw.randint(1, height)
            box = Box(draw.randint(0, width - w), draw.randint(0, height - h), w, h)
        yield box, Size(ceil_div(box.width, scale), ceil_div(box.height, scale))


def prepared(layout: Jp2Layout, data: bytes, box: Box, size: Size) -> Jp2Layout:
    """The layout with what this box needs of the index."""
    missing = layout.prepare(box, size)
    found = layout if missing is None else solve(missing, data)
    assert isinstance(found, Jp2Layout)
    return found


def expected(whole: Pixels, layout: Jp2Layout, box: Box, level: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box in the whole picture at this level.

    Edges of the picture stay edges; others are divided, on the reference grid, and counted from its first pixel.
    """
    scale, (left, top) = 1 << level, layout.header.bounds(0)[:2]

    def edge(at: int, origin: int, full: int, reduced: int) -> float:
        if at in (0, full):
            return float(reduced if at else 0)
        return min(max((origin + at) / scale - ceil_div(origin, scale), 0.0), float(reduced))

    height, width = whole.shape[:2]
    return (
        edge(box.x, left, layout.size.width, width),
        edge(box.y, top, layout.size.height, height),
        edge(box.right, left, layout.size.width, width),
        edge(box.bottom, top, layout.size.height, height),
    )


def check(data: bytes, *, count: int, seed: str) -> None:
    """Every request, through the spans alone."""
    layout = solve(jp2.parse(len(data)), data)
    wholes: dict[int, Pixels] = {}
    for box, size in requests(layout, count=count, seed=seed):
        layout = prepared(layout, data, box, size)
        extract = layout.extract(box, size)
        parts = [data[span.start : span.stop] for span in extract.spans]
        try:
            piece = layout.rebuild(extract, parts)
        except Malformed as lie:
            distrusted = layout.distrusted(str(lie))
            assert distrusted is not None
            layout = distrusted
            piece = layout.rebuild(layout.extract(box, size), [data])
        if extract.level not in wholes:
            wholes[extract.level] = openjpeg.decode(data, reduce=extract.level).pixels
        whole = wholes[extract.level]
        decoded = openjpeg.decode(piece.data, reduce=piece.reduce, area=piece.area).pixels
        # The whole pixels under the crop, in the piece and in the whole.
        left, top, right, bottom = expected(whole, layout, box, extract.level)
        crop = piece.crop
        x, y = left - crop.x, top - crop.y
        if crop.width > 1 and crop.height > 1:
            assert (x, y, crop.width, crop.height) == (int(x), int(y), right - left, bottom - top), (box, size)
        rows = slice(math.floor(crop.y), math.ceil(crop.y + crop.height))
        columns = slice(math.floor(crop.x), math.ceil(crop.x + crop.width))
        x, y = math.ceil(x), math.ceil(y)
        same = whole[rows.start + y : rows.stop + y, columns.start + x : columns.stop + x]
        np.testing.assert_array_equal(decoded[rows, columns], same, err_msg=f"{box} at {size}")


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_a_part_is_exactly_that_part_of_the_whole(path: Path) -> None:
    check(path.read_bytes(), count=24, seed=path.name)


@pytest.mark.long
@pytest.mark.parametrize("encoding", MATRIX, ids=lambda encoding: encoding.name)
def test_a_part_is_exactly_that_part_of_the_whole_over_the_matrix(encoding: make_jp2.Encoding, tmp_path: Path) -> None:
    check(make_jp2.make(encoding, tmp_path).read_bytes(), count=40, seed=encoding.name)


def test_the_matrix_is_as_large_as_promised_and_the_committed_part_is_of_it() -> None:
    assert len(MATRIX) == len({encoding.name for encoding in MATRIX}) >= 150
    assert {encoding.file for encoding in MATRIX if encoding.is_kept} == {
        path.name for path in (FIXTURES / "jp2").iterdir()
    }
