"""The oracle of the viewers' tests tells right screens from wrong ones."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

from tests.support.seen import Seen, draw

SIZE = 2400, 1600


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Image.Image:
    path = tmp_path_factory.mktemp("seen") / "picture.png"
    draw(path, *SIZE)
    return Image.open(path)


def on_a_screen(*parts: tuple[Image.Image, tuple[int, int]]) -> Seen | None:
    screen = Image.new("RGB", (1000, 900), "#222")
    for part, place in parts:
        screen.paste(part, place)
    shot = io.BytesIO()
    screen.save(shot, "PNG")
    return Seen.of(shot.getvalue(), *SIZE)


def as_sent(picture: Image.Image) -> Image.Image:
    """As servers send it: JPEG, with colours at half the resolution."""
    sent = io.BytesIO()
    picture.save(sent, "JPEG", quality=80)
    return Image.open(sent)


def test_the_whole_picture(picture: Image.Image) -> None:
    shown = on_a_screen((picture.resize((960, 640)), (20, 130)))
    assert shown is not None
    assert (shown.is_right, shown.is_whole) == (True, True)
    assert shown.scale == pytest.approx(0.4, rel=0.01)


def test_a_part_at_full_resolution(picture: Image.Image) -> None:
    shown = on_a_screen((as_sent(picture).crop((700, 400, 1700, 1300)), (0, 0)))
    assert shown is not None
    assert (shown.is_right, shown.is_whole) == (True, False)
    assert shown.scale == pytest.approx(1, rel=0.01)
    assert shown.contrast > 0.6


def test_a_part_of_a_lower_level_is_not_sharp(picture: Image.Image) -> None:
    enlarged = as_sent(picture.resize((1200, 800))).resize(SIZE)
    shown = on_a_screen((enlarged.crop((700, 400, 1700, 1300)), (0, 0)))
    assert shown is not None
    assert shown.is_right
    assert shown.contrast < 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda it: it.resize((960, 500)), id="flattened"),
        pytest.param(lambda it: it.resize((960, 640)).crop((0, 0, 960, 400)), id="only its upper part"),
        pytest.param(lambda it: it.crop((0, 0, 960, 640)), id="only a corner"),
    ],
)
def test_what_is_wrong_is_seen(picture: Image.Image, wrong: Callable[[Image.Image], Image.Image]) -> None:
    shown = on_a_screen((wrong(picture), (20, 130)))
    assert shown is not None
    assert not (shown.is_right and shown.is_whole)


def test_tiles_of_one_level_in_the_place_of_another_are_seen(picture: Image.Image) -> None:
    """As OpenSeadragon 5.0.1 draws a picture whose stored sizes it takes for levels."""
    small = picture.resize((600, 400))
    shown = on_a_screen((picture.resize((960, 640)), (20, 130)), (small.crop((0, 0, 500, 400)), (20, 130)))
    assert shown is not None
    assert not shown.is_right


def test_a_screen_without_it() -> None:
    assert on_a_screen() is None
