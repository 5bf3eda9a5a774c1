"""Files that end early or count their parts wrongly: what is there is shown exactly, the rest is grey."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures import make_jp2
from fixtures.tiff_pages import Page, put_together
from special.codecs import Encoding, openjpeg, render
from special.codecs.decode import decode
from special.codecs.raster import Raster, from_vips
from special.errors import Malformed
from special.formats import Layout, Piece, parse, solve
from special.formats.jp2 import Jp2Layout
from special.geometry import Box, Size
from special.iiif import Job
from tests.formats.test_jp2_oracle import requests
from tests.support.pieces import encoded, pixels_of, smooth
from tests.sweep.jp2_inputs import EOC, SOT, coded, enumerated, jp2, miscounted

WIDTH, HEIGHT = 200, 160
GREY = 128
FIXTURES = Path(make_jp2.__file__).parent / "jp2"
RGB = smooth(WIDTH, HEIGHT)


def piece_of(data: bytes, box: Box | None = None, size: Size | None = None) -> Piece:
    layout: Layout = solve(parse(len(data)), data)
    box = box or Box.whole(layout.size)
    size = size or box.size
    while True:
        missing = layout.prepare(box, size)
        if missing is not None:
            layout = solve(missing, data)
        extract = layout.extract(box, size)
        try:
            return layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
        except Malformed as lie:
            whole = layout.distrusted(str(lie))
            if whole is None:
                raise
            layout = whole


def shown(data: bytes, box: Box | None = None, size: Size | None = None) -> Raster:
    piece = piece_of(data, box, size)
    box = box or Box.whole(solve(parse(len(data)), data).size)
    job = Job(box, size or box.size, mirror=False, angle=0, quality="default", format="png")
    return pixels_of(render(piece, job, Encoding()).data)


def grey_rows(picture: Raster) -> int:
    """How many rows at the end are grey."""
    is_grey = (picture == GREY).all(axis=(1, 2))
    return len(is_grey) - (np.flatnonzero(~is_grey).max(initial=-1) + 1)


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_jpeg_without_its_end_is_whole(progressive: bool) -> None:
    data = encoded(RGB, "jpeg", quality=92, progressive=progressive)
    cut = data.removesuffix(b"\xff\xd9")
    assert cut != data
    assert piece_of(cut).incomplete == "the JPEG has no end (EOI)"
    assert not piece_of(data).incomplete
    assert np.array_equal(shown(cut), shown(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_that_is_cut_is_grey_below(mode: str) -> None:
    data = encoded(Image.fromarray(RGB).convert(mode), "jpeg", quality=92)
    whole, part = shown(data), shown(data[: len(data) * 6 // 10])
    assert np.array_equal(part[:48], whole[:48])
    if mode != "CMYK":  # inks of that value are no grey
        assert grey_rows(part) > HEIGHT // 5


def test_an_end_in_a_preview_is_not_that_of_the_picture() -> None:
    preview = encoded(RGB[:20, :20], "jpeg")
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2) + preview
    data = encoded(RGB, "jpeg")
    assert piece_of(data[:2] + segment + data[2:-2]).incomplete


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "P", "1"])
@pytest.mark.parametrize("part", [0.4, 0.9])
def test_a_png_that_is_cut_is_grey_below(mode: str, part: float) -> None:
    source = Image.fromarray(RGB).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        source = Image.fromarray(np.asarray(source).astype(np.uint16) * 257)
    file = io.BytesIO()
    source.save(file, "PNG")
    data = file.getvalue()
    whole, cut = shown(data), shown(data[: int(len(data) * part)])
    same = (whole == cut).all(axis=(1, 2))
    good = int(np.argmin(same)) if not same.all() else HEIGHT
    assert 0.2 * HEIGHT < good < HEIGHT
    if mode not in ("P", "1"):  # no entry of a palette is grey, and a bit is never
        assert grey_rows(cut) == HEIGHT - good
    assert piece_of(data[: int(len(data) * part)]).incomplete == "the PNG has no end (IEND)"


def test_pixels_of_an_interlaced_png_that_is_cut_are_right_or_grey() -> None:
    import pyvips

    data = pyvips.Image.new_from_array(RGB).pngsave_buffer(interlace=True)
    picture = shown(data[: len(data) // 2])
    is_right, is_grey = (picture == RGB).all(axis=2), (picture == GREY).all(axis=2)
    assert (is_right | is_grey).all()
    assert is_right[::8, ::8].all()  # the first pass
    assert is_grey[1::2].any()


def test_a_gif_that_is_cut_is_grey_below() -> None:
    palette = Image.fromarray(RGB).quantize(64)
    file = io.BytesIO()
    palette.save(file, "GIF", interlace=False, save_all=True, append_images=[palette.rotate(180)])
    data = file.getvalue()
    whole, cut = shown(data), shown(data[: len(data) // 3])
    assert np.array_equal(whole, np.asarray(palette.convert("RGB")))
    good = int(np.argmin((whole == cut).all(axis=(1, 2))))
    assert 0.2 * HEIGHT < good < HEIGHT
    assert grey_rows(cut) >= HEIGHT - good - 1
    assert piece_of(data[: len(data) // 3]).incomplete == "the GIF has no end (trailer)"
    assert not piece_of(data).incomplete
    assert np.array_equal(shown(data[: len(data) * 3 // 4]), whole)  # its first frame is there


def tiff(
    samples: np.ndarray[Any, Any], compression: int, *, tile: int = 0, **more: tuple[int, tuple[float, ...]]
) -> bytes:
    """A TIFF with its directory before its samples, in strips of 40 rows or in tiles."""
    height, width, count = samples.shape
    fields: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (samples.itemsize * 8,) * count),
        259: (3, (compression,)),
        262: (3, (2 if count > 2 else 1,)),
        277: (3, (count,)),
    }
    fields |= {int(name[1:]): value for name, value in more.items()}
    if tile:
        fields |= {322: (4, (tile,)), 323: (4, (tile,))}
        filled = np.pad(samples, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
        parts = [
            filled[y : y + tile, x : x + tile]
            for y in range(0, filled.shape[0], tile)
            for x in range(0, filled.shape[1], tile)
        ]
    else:
        fields[278] = (4, (40,))
        parts = [samples[y : y + 40] for y in range(0, height, 40)]
    stored = [np.ascontiguousarray(part).tobytes() for part in parts]
    if compression == 8:
        stored = [zlib.compress(part) for part in stored]
    return put_together([Page(fields, stored, tiled=bool(tile))], place="front")


@pytest.mark.parametrize(
    ("samples", "more"),
    [
        pytest.param(RGB, {}, id="8 bits"),
        pytest.param(RGB.astype(np.uint16) * 257, {}, id="16 bits"),
        pytest.param((RGB / 255).astype(np.float32), {"t339": (3, (3, 3, 3))}, id="floats"),
        pytest.param(np.dstack([RGB, RGB[..., 0] | 1]), {"t338": (3, (0,))}, id="another sample"),
    ],
)
@pytest.mark.parametrize("compression", [1, 8])
def test_of_a_tiff_that_is_cut_the_rest_is_grey(samples: Any, more: dict[str, Any], compression: int) -> None:
    data = tiff(samples, compression, **more)
    strip_bytes = len(data) // 4
    part = shown(data[: -strip_bytes // 2])  # in the middle of the last of four strips
    missing = grey_rows(part)
    assert (20 <= missing <= 22) if compression == 1 else missing == 40
    assert np.array_equal(part[: HEIGHT - missing], RGB[: HEIGHT - missing])


def test_of_tiles_that_are_cut_the_rest_is_grey() -> None:
    data = tiff(RGB, 8, tile=64)
    cut = data[: len(data) * 3 // 4]
    part = shown(cut)
    assert np.array_equal(part[:64], RGB[:64])
    assert (part[128:, 128:] == GREY).all()
    # a region that is there is whole, whatever else is missing
    assert not piece_of(cut, Box(0, 0, 64, 64)).incomplete
    assert np.array_equal(shown(cut, Box(0, 0, 64, 64)), RGB[:64, :64])


def test_of_opaque_and_other_pixels_what_is_missing_is_opaque() -> None:
    data = tiff(np.dstack([RGB, np.full(RGB.shape[:2], 100, np.uint8)]), 1, t338=(3, (2,)))
    picture = decode(piece_of(data[:-10_000]), max_pixels=10**6)
    assert from_vips(picture)[-1, 0].tolist() == [GREY, GREY, GREY, 255]


def test_a_jpeg_2000_without_its_end_is_whole() -> None:
    code = coded(RGB).removesuffix(EOC)
    for data in (code, jp2(code, WIDTH, HEIGHT, 3, 8, enumerated(16))):
        assert piece_of(data).incomplete == "the codestream has no end (EOC)"
        assert np.array_equal(shown(data), RGB)


def test_a_jpeg_2000_that_is_cut_before_is_refused() -> None:
    code = coded(RGB)
    with pytest.raises(Malformed, match="truncated"):
        openjpeg.decode(code[: len(code) // 2])
    assert np.array_equal(openjpeg.decode(code[:-1]).pixels, openjpeg.decode(code).pixels)  # half of EOC


PARTED = [
    "rlcp-partsr.jp2",
    "rlcp-partsr-nolengths.jp2",
    "rpcl-partsr-tiles.jp2",
    "rpcl-partsr-tiles-nolengths.jp2",
    "grok-rpcl-parts.jp2",
    "grok-rpcl-tiles-parts.jp2",
]


@pytest.mark.parametrize("name", PARTED)
def test_tile_parts_that_are_counted_too_low_are_found_all(name: str) -> None:
    data = (FIXTURES / name).read_bytes()
    start = data.index(SOT)
    wrong = data[:start] + miscounted(data[start:])
    assert wrong != data
    layout = solve(parse(len(data)), data)
    assert isinstance(layout, Jp2Layout)
    for box, size in requests(layout, count=6, seed=name):
        assert np.array_equal(shown(wrong, box, size), shown(data, box, size)), (box, size)
