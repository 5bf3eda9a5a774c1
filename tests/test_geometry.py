import pytest
from hypothesis import given
from hypothesis import strategies as st

from special.geometry import (
    Box,
    Frame,
    Orientation,
    Size,
    half_up,
    rotated_bounds,
    to_area,
    to_fit,
    to_height,
    to_width,
)

sides = st.integers(1, 100_000)
sizes = st.builds(Size, sides, sides)


@pytest.mark.parametrize(
    ("number", "divisor", "rounded"),
    [
        pytest.param(5, 2, 3, id="half goes up"),
        pytest.param(7, 2, 4, id="three and a half goes up, not to even"),
        pytest.param(49, 100, 1, id="never below one"),
        pytest.param(149, 100, 1, id="below half goes down"),
        pytest.param(10**18 + 1, 2, 5 * 10**17 + 1, id="exact where floats are not"),
    ],
)
def test_half_up(number: int, divisor: int, rounded: int) -> None:
    assert half_up(number, divisor) == rounded


@pytest.mark.parametrize(
    ("shape", "bounds", "fitted"),
    [
        pytest.param(Size(6000, 8000), Size(200, 200), Size(150, 200), id="height binds"),
        pytest.param(Size(400, 200), Size(200, 400), Size(200, 100), id="fits inside both numbers"),
        pytest.param(Size(100, 100), Size(300, 200), Size(200, 200), id="enlarges"),
        pytest.param(Size(10000, 1), Size(10, 10), Size(10, 1), id="never below one pixel"),
        pytest.param(Size(3001, 4000), Size(200, 200), Size(150, 200), id="150.05"),
    ],
)
def test_to_fit(shape: Size, bounds: Size, fitted: Size) -> None:
    assert to_fit(shape, bounds) == fitted


@given(sizes, sizes)
def test_fit_lies_inside_and_touches(shape: Size, bounds: Size) -> None:
    fitted = to_fit(shape, bounds)
    assert bounds.covers(fitted)
    assert fitted.width == bounds.width or fitted.height == bounds.height


@given(sizes, sides)
def test_named_side_is_exact(shape: Size, side: int) -> None:
    assert to_width(shape, side).width == side
    assert to_height(shape, side).height == side


@given(sizes, st.integers(1, 10**9))
def test_area_is_kept(shape: Size, area: int) -> None:
    reduced = to_area(shape, area)
    assert shape.covers(reduced)
    # A side cannot go below one pixel, so the narrowest shapes may stay above.
    assert reduced.area <= area or reduced.width == 1


@given(st.sampled_from(list(Orientation)), sizes, st.data())
def test_orientation_maps_boxes_into_the_stored_picture(turn: Orientation, stored: Size, data: st.DataObject) -> None:
    upright = turn.upright(stored)
    x = data.draw(st.integers(0, upright.width - 1))
    y = data.draw(st.integers(0, upright.height - 1))
    box = Box.between(x, y, data.draw(st.integers(x + 1, upright.width)), data.draw(st.integers(y + 1, upright.height)))
    mapped = turn.to_stored(box, stored)
    assert mapped.within(stored) == mapped
    assert turn.upright(mapped.size) == box.size


def test_orientation_six_is_a_quarter_turn_clockwise() -> None:
    # The stored picture's left edge is its upright top: EXIF 6, as phones write it.
    top = Orientation.TURN_90.to_stored(Box(0, 0, 30, 1), Size(40, 30))
    assert top == Box(0, 0, 1, 30)
    left = Orientation.TURN_90.to_stored(Box(0, 0, 1, 40), Size(40, 30))
    assert left == Box(0, 29, 40, 1)


@pytest.mark.parametrize(
    ("angle", "bounds"),
    [
        pytest.param(0, Size(300, 200), id="none"),
        pytest.param(90, Size(200, 300), id="quarter"),
        pytest.param(180, Size(300, 200), id="half"),
        pytest.param(45, Size(354, 354), id="diagonal"),
        pytest.param(22.5, Size(354, 300), id="fraction"),
    ],
)
def test_rotated_bounds(angle: float, bounds: Size) -> None:
    assert rotated_bounds(Size(300, 200), angle) == bounds


def test_box_is_cropped_to_the_image() -> None:
    assert Box(90, 90, 50, 50).within(Size(100, 100)) == Box(90, 90, 10, 10)
    assert Box(100, 0, 1, 1).within(Size(100, 100)) is None


def test_frame_keeps_fractions() -> None:
    assert Frame.of(Box(3, 5, 10, 10), 0.25, 0.25) == Frame(0.75, 1.25, 2.5, 2.5)


def test_empty_sizes_and_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="0×5"):
        Size(0, 5)
    with pytest.raises(ValueError, match="5×0"):
        Box(1, 1, 5, 0)
