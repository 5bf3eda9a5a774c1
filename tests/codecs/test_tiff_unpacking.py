"""Samples in tiles of their own: exactly what tifffile reads of them."""

from __future__ import annotations

import io
from itertools import product
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile

from special.codecs import tiff_unpacking
from special.formats.tiff import read_page
from tests.support.pieces import smooth


def written(samples: int, photometric: str, **options: Any) -> bytes:
    pixels = np.moveaxis(smooth(200, 150, samples), -1, 0)
    if options.pop("deep", False):
        pixels = pixels.astype("u2") * 251
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, planarconfig="separate", photometric=photometric, tile=(48, 64), **options)
    return file.getvalue()


def decoded(data: bytes) -> pyvips.Image:
    page = read_page(data)
    assert page.planes > 1
    return tiff_unpacking.decode(data, page)


@pytest.mark.parametrize(
    ("samples", "photometric", "interpretation"),
    [
        pytest.param(2, "minisblack", "b-w", id="grey and opacity"),
        pytest.param(3, "rgb", "srgb", id="RGB"),
        pytest.param(4, "rgb", "srgb", id="RGB and opacity"),
        pytest.param(4, "separated", "cmyk", id="CMYK"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"compression": compression, "byteorder": order}, id=f"{compression} {order}")
        for compression, order in product((None, "zlib"), "<>")
    ]
    + [pytest.param({"compression": "zlib", "predictor": True}, id="predicted")],
)
def test_samples_are_joined(samples: int, photometric: str, interpretation: str, options: dict[str, Any]) -> None:
    data = written(samples, photometric, **options)
    image = decoded(data)
    assert image.interpretation == interpretation
    assert np.array_equal(image.numpy(), np.moveaxis(tifffile.imread(io.BytesIO(data)), 0, -1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_samples_of_a_bigtiff_are_joined(order: str) -> None:
    data = written(3, "rgb", byteorder=order, bigtiff=True)
    assert np.array_equal(decoded(data).numpy(), np.moveaxis(tifffile.imread(io.BytesIO(data)), 0, -1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_samples_of_16_bits_are_joined(order: str) -> None:
    data = written(3, "rgb", deep=True, byteorder=order)
    image = decoded(data)
    assert image.interpretation == "rgb16"
    assert np.array_equal(image.numpy(), np.moveaxis(tifffile.imread(io.BytesIO(data)), 0, -1))


def test_the_profile_goes_along() -> None:
    profile = bytes(pyvips.Image.profile_load("p3"))
    data = written(3, "rgb", iccprofile=profile)
    assert decoded(data).get("icc-profile-data") == profile
