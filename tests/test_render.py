"""Pieces to answers: exact sizes, exact pixels where nothing is resampled, right colours everywhere."""

from __future__ import annotations

import pytest

from special import render
from special.iiif import MEDIA, QUALITIES, OutputFormat, Quality
from special.render import Encoding
from tests.pieces import encoded, job, opened, piece, smooth

ENCODING = Encoding()
PICTURE = smooth(300, 200)


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> None:
    render.prepare()


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("output", MEDIA)
@pytest.mark.parametrize("angle", [0, 90, 180, 270, 22.5, 359.9])
def test_the_size_is_exact_and_the_format_as_asked(output: OutputFormat, quality: Quality, angle: float) -> None:
    wanted = job(151, 67, angle=angle, quality=quality, output=output)
    data = render.render(piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), wanted, ENCODING).data
    image = opened(data)
    assert image.size == (wanted.output.width, wanted.output.height)
    assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF"}[output]


@pytest.mark.parametrize(
    ("quality", "output", "mode"),
    [
        ("default", "jpg", "RGB"),
        ("gray", "jpg", "L"),
        ("bitonal", "jpg", "L"),
        ("gray", "png", "L"),
        ("bitonal", "png", "1"),
        ("gray", "tif", "L"),
        ("bitonal", "tif", "1"),
    ],
)
def test_gray_and_bitonal_have_one_channel(quality: Quality, output: OutputFormat, mode: str) -> None:
    data = render.render(
        piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), job(100, 67, quality=quality, output=output), ENCODING
    ).data
    assert opened(data).mode == mode
