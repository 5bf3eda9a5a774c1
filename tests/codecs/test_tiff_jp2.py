"""JPEG 2000 tiles of a TIFF: what their samples mean, and what is refused of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures import codestreams
from fixtures.tiff_pages import Page, put_together
from special.codecs import openjpeg, tiff_jp2
from special.codecs.raster import from_vips
from special.errors import Malformed, Unsupported
from special.formats.tiff import read_page
from tests.support.pieces import smooth

SUBSAMPLED = (codestreams.FOLDER / "ycc420.jp2").read_bytes()
GREY_12 = (codestreams.FOLDER / "grey12.jp2").read_bytes()
SIGNED = (codestreams.FOLDER / "signed8.j2k").read_bytes()
WIDTH, HEIGHT = codestreams.WIDTH, codestreams.HEIGHT


def tile(pixels: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG2000", **{"no_jp2": True} | options)
    return file.getvalue()


def tiff(tiles: list[bytes], **fields: tuple[int, ...]) -> bytes:
    """A page of RGB in tiles as large as the fixtures' codestreams; t256=(100,) and the like say otherwise."""
    numbers: dict[int, tuple[int, ...]] = {
        256: (WIDTH,),
        257: (HEIGHT,),
        258: (8,),
        259: (34712,),
        262: (2,),
        277: (3,),
        322: (WIDTH,),
        323: (HEIGHT,),
    } | {int(name[1:]): values for name, values in fields.items()}
    return put_together([Page({tag: (4, values) for tag, values in numbers.items()}, tiles, tiled=True)])


def decoded(data: bytes) -> Any:
    return tiff_jp2.decode(data, read_page(data))


@pytest.mark.parametrize(
    ("compression", "photometric"),
    [pytest.param(33003, 2, id="aperio"), pytest.param(34712, 6, id="as the colour model says")],
)
def test_luma_and_coarser_chroma_become_rgb(compression: int, photometric: int) -> None:
    data = tiff([SUBSAMPLED], t259=(compression,), t262=(photometric,))
    assert np.array_equal(decoded(data), openjpeg.decode(SUBSAMPLED).pixels)


def test_components_that_were_mixed_to_be_coded_are_rgb_whatever_the_tiff_says() -> None:
    pixels = smooth(WIDTH, HEIGHT)
    assert np.array_equal(decoded(tiff([tile(pixels, mct=1)], t262=(6,))), pixels)
    assert not np.array_equal(decoded(tiff([tile(pixels, mct=0)], t262=(6,))), pixels)


def test_a_tile_at_the_edge_may_be_cut_to_what_it_shows() -> None:
    pixels = smooth(300, HEIGHT)
    data = tiff([tile(pixels[:, :WIDTH]), tile(pixels[:, WIDTH:])], t256=(300,))
    assert np.array_equal(decoded(data), pixels)


def test_tiles_that_were_never_written_are_black() -> None:
    pixels = smooth(WIDTH, HEIGHT)
    data = tiff([b"", tile(pixels)], t256=(2 * WIDTH,), t259=(33003,))
    page = decoded(data)
    assert not page[:, :WIDTH].any()
    assert page[:, WIDTH:].any()


def test_opacity_and_inks_are_for_libvips_to_turn_into_colours() -> None:
    pixels = smooth(WIDTH, HEIGHT, 4)
    for photometric, interpretation in ((2, "srgb"), (5, "cmyk")):
        image = decoded(tiff([tile(pixels)], t277=(4,), t262=(photometric,)))
        assert image.interpretation == interpretation
        assert np.array_equal(from_vips(image), pixels)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        pytest.param(tiff([GREY_12], t277=(1,), t262=(1,), t258=(16,)), Unsupported, "12 bits", id="other-precision"),
        pytest.param(tiff([SIGNED], t277=(1,), t262=(1,)), Unsupported, "signed samples", id="signed"),
        pytest.param(tiff([SIGNED], t277=(3,)), Unsupported, "signed", id="signed, and too few"),
        pytest.param(tiff([tile(smooth(WIDTH, HEIGHT, 1))]), Malformed, "of 1 components", id="too few components"),
        pytest.param(
            tiff([tile(smooth(WIDTH, HEIGHT, 1))], t259=(33003,), t262=(1,), t277=(1,)),
            Malformed,
            "says they are YCbCr",
            id="grey that is said to be YCbCr",
        ),
        pytest.param(tiff([tile(smooth(64, 64))]), Malformed, "a JPEG 2000 tile of 64,64", id="too small"),
        pytest.param(tiff([SUBSAMPLED], t322=(64,), t256=(64,)), Malformed, "tiles of 64,", id="too large"),
        pytest.param(tiff([SUBSAMPLED[:900]]), Malformed, "truncated", id="truncated"),
        pytest.param(tiff([b"\xff\xd8\xff\xe0" + bytes(99)]), Malformed, "not JPEG 2000", id="another codec's"),
        pytest.param(tiff([SUBSAMPLED], t258=(4,)), Unsupported, "of 4 bits", id="4 bits"),
        pytest.param(tiff([SUBSAMPLED], t262=(8,)), Unsupported, "colour model CIELAB", id="CIELab"),
    ],
)
def test_what_contradicts_the_tiff_is_a_typed_error(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decoded(data)
