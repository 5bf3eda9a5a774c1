"""Policies: which sizes a master gets, and who may have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from special import iiif
from special.errors import ConfigurationError
from special.geometry import Size
from special.iiif import Limits
from special.renditions import SizesFile
from tests.support.policies import policy

LANDSCAPE, PORTRAIT = Size(6000, 4000), Size(4000, 6000)


@pytest.mark.parametrize(
    ("sizes", "shape", "expected"),
    [
        pytest.param("1024,400,200,100", LANDSCAPE, "1024,683 400,267 200,133 100,67", id="what a DLCS makes"),
        pytest.param("1024,400", PORTRAIT, "683,1024 267,400", id="long sides, portrait"),
        pytest.param("100,400,200", LANDSCAPE, "400,267 200,133 100,67", id="largest first, however written"),
        pytest.param("400,400", LANDSCAPE, "400,267", id="twice the same"),
        pytest.param("1024", LANDSCAPE, "1024,683", id="one"),
        pytest.param("400, ,300", LANDSCAPE, "450,300 400,267", id="IIIF width and height"),
        pytest.param("!1024,1024 400, ,300", PORTRAIT, "683,1024 400,600 200,300", id="IIIF sizes, portrait"),
        pytest.param("!500,100", LANDSCAPE, "150,100", id="IIIF bounds: inside both"),
        pytest.param("1024,400,200", Size(300, 150), "300,150 200,100", id="a small master is not enlarged, but kept"),
        pytest.param("400, ,400", Size(399, 200), "399,200", id="nor by width or height"),
        pytest.param("100", Size(10000, 1), "100,1", id="a line keeps a pixel"),
    ],
)
def test_sizes(sizes: str, shape: Size, expected: str) -> None:
    assert " ".join(map(str, policy(sizes).sizes(shape).open)) == expected


def test_what_it_includes_is_what_it_names() -> None:
    ours = policy("400, !200,200")
    assert ours.includes(LANDSCAPE, Size(400, 267), "jpg")
    assert ours.includes(PORTRAIT, Size(133, 200), "jpg")
    assert not ours.includes(LANDSCAPE, Size(400, 266), "jpg")
    assert not ours.includes(LANDSCAPE, Size(300, 200), "jpg")
    assert not ours.includes(LANDSCAPE, Size(400, 267), "webp")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(None, SizesFile((Size(1024, 683), Size(400, 267)), ()), id="absent: all open"),
        pytest.param(-1, SizesFile((Size(1024, 683), Size(400, 267)), ()), id="-1: all open"),
        pytest.param(0, SizesFile((), (Size(1024, 683), Size(400, 267))), id="0: all restricted"),
        pytest.param(400, SizesFile((Size(400, 267),), (Size(1024, 683),)), id="N: open up to N"),
        pytest.param(399, SizesFile((), (Size(1024, 683), Size(400, 267))), id="N: the long side counts"),
        pytest.param(5000, SizesFile((Size(1024, 683), Size(400, 267)), ()), id="N above all: open"),
    ],
)
def test_access(limit: int | None, expected: SizesFile) -> None:
    assert policy("1024,400", max_unauthorised=limit).sizes(LANDSCAPE) == expected


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param("", id="none"),
        pytest.param("0", id="no pixels"),
        pytest.param("1024,0", id="no pixels in a list"),
        pytest.param("0,", id="no width"),
        pytest.param("!0,5", id="no bounds"),
        pytest.param("400,300 200,", id="both sides would distort"),
        pytest.param("1024, 400, 200", id="blanks in a list"),
        pytest.param("max", id="max"),
        pytest.param("pct:50", id="percent"),
        pytest.param("-5", id="negative"),
    ],
)
def test_what_is_no_policy_is_said(sizes: str) -> None:
    with pytest.raises(ConfigurationError, match=r"1024,400,200,100"):
        policy(sizes)


sides = st.integers(1, 20000)


@given(shape=st.builds(Size, sides, sides), bound=st.builds(Size, sides, sides))
def test_every_size_is_what_the_server_makes_of_the_same_request(shape: Size, bound: Size) -> None:
    request = iiif.parse(f"x/full/!{bound}/0/default.jpg")
    assert isinstance(request, iiif.ImageRequest)
    asked = iiif.resolve(request, shape, version=3, limits=Limits()).size

    assert policy(f"!{bound}").sizes(shape).open == (asked,)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        pytest.param("jpg", "jpg 70", id="jpg"),
        pytest.param("webp", "webp 60", id="webp"),
        pytest.param("jpg,webp", "jpg 70, webp 60", id="both"),
        pytest.param("webp,webp", "webp 60", id="twice is once"),
    ],
)
def test_encoding_names_formats_and_qualities(formats: str, expected: str) -> None:
    assert policy("9", formats=formats, jpeg_quality=70, webp_quality=60).encoding == expected


def test_other_formats_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"formats.*'jpg' or 'webp'"):
        policy("9", formats="jpg,gif")
