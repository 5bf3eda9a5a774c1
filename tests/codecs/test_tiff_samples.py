"""Samples of a TIFF that libvips misreads: extra ones that are no opacity, and YCbCr that is not subsampled."""

from __future__ import annotations

import zlib
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from fixtures.tiff_pages import Page, put_together
from special import formats
from special.codecs import colour
from special.codecs.decode import decode
from special.codecs.raster import from_vips
from special.errors import Malformed
from special.formats.parser import solve
from special.geometry import Box
from tests.support.pieces import smooth

WHITE_IS_0, GREY, RGB, CMYK, YCBCR = 0, 1, 2, 5, 6
WIDTH, HEIGHT, TILE, ROWS = 100, 70, 64, 32
Samples = npt.NDArray[np.uint8 | np.uint16]
Storage = Literal["strip", "tiles", "planes", "planes in tiles"]


def compressed(samples: Samples, order: str) -> bytes:
    return zlib.compress(samples.astype(samples.dtype.newbyteorder(order)).tobytes())


def tiff(
    samples: Samples,
    photometric: int,
    extra: tuple[int, ...],
    storage: Storage = "strip",
    order: Literal["<", ">"] = "<",
    **more: tuple[int, tuple[float, ...]],
) -> bytes:
    """A page of these samples, (height, width, samples), without loss; t530=(3, (1, 1)) and the like add a field."""
    height, width, count = samples.shape
    fields: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (samples.itemsize * 8,) * count),
        259: (3, (8,)),
        262: (3, (photometric,)),
        277: (3, (count,)),
        284: (3, (2 if "planes" in storage else 1,)),
    }
    if extra:
        fields[338] = (3, extra)
    fields |= {int(name[1:]): values for name, values in more.items()}
    planes = np.split(samples, count, axis=2) if "planes" in storage else [samples]
    if "tiles" not in storage:
        fields[278] = (4, (ROWS,))
        strips = [compressed(plane[y : y + ROWS], order) for plane in planes for y in range(0, height, ROWS)]
        return put_together([Page(fields, strips, tiled=False)], order=order)
    fields |= {322: (4, (TILE,)), 323: (4, (TILE,))}
    tiles = []
    for plane in planes:
        filled = np.pad(plane, ((0, -height % TILE), (0, -width % TILE), (0, 0)))
        corners = product(range(0, height, TILE), range(0, width, TILE))
        tiles += [compressed(filled[y : y + TILE, x : x + TILE], order) for y, x in corners]
    return put_together([Page(fields, tiles, tiled=True)], order=order)


def shown(data: bytes) -> Samples:
    """All of a master as it is served: sRGB or grey, and opacity."""
    layout = solve(formats.parse(len(data)), data)
    extract = layout.extract(Box.whole(layout.size), layout.size)
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    picture: Any = decode(piece, max_pixels=10**6)
    if isinstance(picture, np.ndarray):
        return picture
    return colour.from_inks(picture) if colour.is_ink(picture) else from_vips(colour.to_srgb(picture))


PICTURE = smooth(WIDTH, HEIGHT, 6)
OPAQUE, FIRST = (0, 1, 2), (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("photometric", "count", "extra", "bands"),
    [
        pytest.param(RGB, 4, (0,), OPAQUE, id="RGB and infrared"),
        pytest.param(RGB, 4, (), OPAQUE, id="RGB and a fourth of which nothing is said"),
        pytest.param(RGB, 4, (2,), FIRST, id="RGB and opacity"),
        pytest.param(RGB, 5, (0, 0), OPAQUE, id="RGB and two more"),
        pytest.param(RGB, 5, (0, 2), (0, 1, 2, 4), id="opacity comes second"),
        pytest.param(RGB, 5, (2, 0), FIRST, id="opacity comes first"),
        pytest.param(RGB, 6, (0, 2), (0, 1, 2, 4), id="one more than are named"),
        pytest.param(GREY, 2, (0,), (0,), id="grey and infrared"),
        pytest.param(GREY, 2, (), (0,), id="grey and a second of which nothing is said"),
        pytest.param(GREY, 2, (2,), (0, 1), id="grey and opacity"),
        pytest.param(GREY, 3, (0, 0), (0,), id="multispectral, three"),
        pytest.param(GREY, 4, (0, 0, 0), (0,), id="multispectral, four"),
        pytest.param(GREY, 5, (0, 0, 0, 0), (0,), id="multispectral, five"),
        pytest.param(GREY, 4, (0, 0, 2), (0, 3), id="multispectral, with opacity"),
    ],
)
@pytest.mark.parametrize("storage", ["strip", "tiles", "planes"])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_only_what_is_called_opacity_is_shown(
    photometric: int, count: int, extra: tuple[int, ...], bands: tuple[int, ...], storage: Storage, deep: bool
) -> None:
    samples: Samples = PICTURE[..., :count]
    stored = samples.astype(np.uint16) * 257 if deep else samples
    for order in "<>" if deep else "<":
        made = shown(tiff(stored, photometric, extra, storage, order))
        np.testing.assert_array_equal(made, samples[..., list(bands)])


@pytest.mark.parametrize("storage", ["strip", "tiles", "planes"])
@pytest.mark.parametrize(("extra", "bands"), [((0,), (0,)), ((2,), (0, 1)), ((0, 2), (0, 2))])
def test_where_0_is_white_opacity_is_not_turned_round(
    extra: tuple[int, ...], bands: tuple[int, ...], storage: Storage
) -> None:
    samples = PICTURE[..., : 1 + len(extra)]
    turned = samples.copy()
    turned[..., 0] = 255 - turned[..., 0]
    np.testing.assert_array_equal(shown(tiff(turned, WHITE_IS_0, extra, storage)), samples[..., list(bands)])


@pytest.mark.parametrize(("extra", "bands"), [((0,), OPAQUE), ((2,), FIRST)])
def test_planes_in_tiles_follow_the_same_rule(extra: tuple[int, ...], bands: tuple[int, ...]) -> None:
    data = tiff(PICTURE[..., :4], RGB, extra, "planes in tiles")
    np.testing.assert_array_equal(shown(data), PICTURE[..., list(bands)])


@pytest.mark.parametrize("storage", ["strip", "tiles"])
@pytest.mark.parametrize(
    ("extra", "at"),
    [
        pytest.param((1,), 3, id="alone"),
        pytest.param((1, 1), 3, id="twice"),
        pytest.param((1, 0), 3, id="before another"),
        pytest.param((0, 1), 4, id="behind another"),
    ],
)
def test_premultiplied_opacity_is_divided_out_at_its_own_place(
    extra: tuple[int, ...], at: int, storage: Storage
) -> None:
    colours = PICTURE[..., :3].astype(float)
    opacity = np.where(np.arange(WIDTH) < WIDTH // 2, 255, 90).astype(np.uint8) * np.ones((HEIGHT, 1), np.uint8)
    others = np.full((HEIGHT, WIDTH), 17, np.uint8)
    samples = np.dstack([np.rint(colours * opacity[..., None] / 255).astype(np.uint8), *[others] * len(extra)])
    samples[..., at] = opacity
    made = shown(tiff(samples, RGB, extra, storage))
    np.testing.assert_array_equal(made[..., 3], opacity)
    assert np.abs(made[..., :3] - colours).max() <= 2  # half a level of what was stored, divided by 90/255


@pytest.mark.parametrize("extra", [(0,), ()], ids=["spot", "nothing said"])
def test_inks_beyond_four_are_left_out(extra: tuple[int, ...]) -> None:
    four = shown(tiff(PICTURE[..., :4], CMYK, ()))
    assert four.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(shown(tiff(PICTURE[..., :5], CMYK, extra)), four)


NOT_SUBSAMPLED = (3, (1, 1))
BT_709 = (0.2126, 0.7152, 0.0722)


def ycbcr(rgb: Samples, luma: tuple[float, float, float], headroom: bool) -> Samples:
    """RGB as luma and chroma of the same depth: at full range, or with the head and foot room of video (8 bits)."""
    highest, middle = np.iinfo(rgb.dtype).max, (int(np.iinfo(rgb.dtype).max) + 1) // 2
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    y = luma[0] * red + luma[1] * green + luma[2] * blue
    chroma = [(blue - y) / (2 - 2 * luma[2]), (red - y) / (2 - 2 * luma[0])]
    if headroom:
        codes = [16 + y * 219 / 255, *(128 + c * 112 / 127 for c in chroma)]
    else:
        codes = [y, *(middle + c for c in chroma)]
    return np.rint(np.stack(codes, axis=-1)).clip(0, highest).astype(rgb.dtype)


@pytest.mark.parametrize("storage", ["strip", "tiles"])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("luma", [None, BT_709], ids=["BT.601", "BT.709"])
def test_ycbcr_that_is_not_subsampled_is_converted(
    storage: Storage, deep: bool, luma: tuple[float, float, float] | None
) -> None:
    rgb = PICTURE[..., :3] // 2 + 64  # no colour that YCbCr would cut off
    stored = ycbcr(rgb.astype(np.uint16) * 257 if deep else rgb, luma or (0.299, 0.587, 0.114), headroom=False)
    coefficients = (
        {"t529": (5, tuple(part for value in luma for part in (round(value * 10**4), 10**4)))} if luma else {}
    )
    data = tiff(stored, YCBCR, (), storage, t530=NOT_SUBSAMPLED, **coefficients)
    made = shown(data)
    assert np.abs(made.astype(int) - rgb).max() <= (0 if deep else 2)  # chroma in whole levels, times 1.86


def test_reference_black_and_white_are_minded() -> None:
    rgb = PICTURE[..., :3] // 2 + 64
    reference = tuple(part for value in (16, 235, 128, 240, 128, 240) for part in (value, 1))
    stored = ycbcr(rgb, (0.299, 0.587, 0.114), headroom=True)
    made = shown(tiff(stored, YCBCR, (), t530=NOT_SUBSAMPLED, t532=(5, reference)))
    assert np.abs(made.astype(int) - rgb).max() <= 2


def test_references_that_divide_by_0_are_malformed() -> None:
    reference = tuple(part for value in (16, 16, 128, 240, 128, 240) for part in (value, 1))
    with pytest.raises(Malformed, match="references"):
        shown(tiff(PICTURE[..., :3], YCBCR, (), t530=NOT_SUBSAMPLED, t532=(5, reference)))
