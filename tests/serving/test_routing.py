import pytest

from special.auth.access import Grant
from special.errors import NotFound, Unauthorised
from special.geometry import Box, Size
from special.iiif import Job, OutputFormat, Quality
from special.images.asset import Asset, Rendition
from special.serving.routing import Derivative, Stream, Thumb, Tile, plan, plan_thumb
from special.storage.blob import Blob

SIZE = Size(4000, 3001)
BLOB = Blob("s3://masters/", "x", '"1"', 10**8)
FULL = Grant()
LARGE = Rendition(Size(1024, 768), "auth", "x/auth/1024.jpg")
MIDDLE = Rendition(Size(400, 300), "open", "x/open/400.jpg")
SMALL = Rendition(Size(200, 150), "open", "x/open/200.jpg")
STORED = Asset("x", SIZE, BLOB, renditions=(LARGE, MIDDLE, SMALL))
BARE = Asset("x", SIZE, BLOB)
WEBP = Rendition(Size(400, 300), "open", "x/open/400.webp", "webp")
THUMBS = Asset("x", SIZE, None, renditions=(LARGE, MIDDLE, SMALL))


def job(
    size: Size,
    *,
    box: Box | None = None,
    mirror: bool = False,
    angle: float = 0,
    quality: Quality = "default",
    output: OutputFormat = "jpg",
) -> Job:
    return Job(box or Box.whole(SIZE), size, mirror, angle, quality, output)


@pytest.mark.parametrize(
    ("asked", "rendition"),
    [
        pytest.param(job(Size(400, 300)), MIDDLE, id="known size"),
        pytest.param(job(Size(1024, 768)), LARGE, id="restricted size, granted"),
        pytest.param(job(Size(200, 150), quality="color"), SMALL, id="color is default"),
    ],
)
def test_known_sizes_are_copied(asked: Job, rendition: Rendition) -> None:
    assert plan(STORED, asked, FULL) == Thumb(rendition)


@pytest.mark.parametrize(
    ("stored", "output", "expected"),
    [
        pytest.param((MIDDLE, WEBP), "jpg", Thumb(MIDDLE), id="both: jpg"),
        pytest.param((MIDDLE, WEBP), "webp", Thumb(WEBP), id="both: webp"),
        pytest.param((WEBP,), "webp", Thumb(WEBP), id="webp alone"),
        pytest.param((WEBP,), "jpg", Derivative(WEBP, job(Size(400, 300), box=Box(0, 0, 400, 300))), id="jpg of webp"),
        pytest.param(
            (MIDDLE,),
            "webp",
            Derivative(MIDDLE, job(Size(400, 300), box=Box(0, 0, 400, 300), output="webp")),
            id="webp of jpg",
        ),
    ],
)
def test_a_stored_format_is_copied_and_another_made_of_it(
    stored: tuple[Rendition, ...], output: OutputFormat, expected: Thumb | Derivative
) -> None:
    asset = Asset("x", SIZE, BLOB, renditions=stored)

    assert plan(asset, job(Size(400, 300), output=output), FULL) == expected
    assert plan_thumb(asset, job(Size(400, 300), output=output), FULL) == expected


@pytest.mark.parametrize(
    ("asked", "rendition"),
    [
        pytest.param(job(Size(399, 299)), MIDDLE, id="one pixel less is another size on /iiif"),
        pytest.param(job(Size(150, 113)), SMALL, id="smallest that is large enough"),
        pytest.param(job(Size(201, 151)), SMALL, id="a pixel more than another tool made"),
        pytest.param(job(Size(202, 152)), MIDDLE, id="two pixels more"),
        pytest.param(job(Size(200, 150), quality="gray"), SMALL, id="gray"),
        pytest.param(job(Size(200, 150), output="png"), SMALL, id="png"),
        pytest.param(job(Size(200, 150), angle=90), SMALL, id="turned"),
        pytest.param(job(Size(200, 150), mirror=True), SMALL, id="mirrored"),
        pytest.param(job(Size(500, 10)), LARGE, id="distorted: both sides count"),
    ],
)
def test_smaller_sizes_are_shrunk(asked: Job, rendition: Rendition) -> None:
    made = plan(STORED, asked, FULL)
    assert isinstance(made, Derivative)
    assert made.rendition == rendition
    assert made.job.box == Box.whole(rendition.size)
    assert made.job.size == asked.size


def test_the_rest_comes_from_the_master() -> None:
    large = job(Size(2000, 1501))
    assert plan(STORED, large, FULL) == Stream(BLOB, large)
    part = job(Size(100, 100), box=Box(0, 0, 100, 100))
    assert plan(STORED, part, FULL) == Tile(BLOB, part)
    small = job(Size(100, 75))
    assert plan(BARE, small, FULL) == Stream(BLOB, small)


def test_restricted_renditions_stay_hidden() -> None:
    # Granted up to 1,024 px, but what lies under auth/ is not for those without an unlimited grant.
    asked = job(Size(800, 600))
    assert plan(STORED, asked, Grant(1024)) == Stream(BLOB, asked)
    with pytest.raises(Unauthorised):
        plan(STORED, job(Size(1024, 768)), Grant(400))
    with pytest.raises(NotFound):
        plan_thumb(THUMBS, asked, Grant(1024))


@pytest.mark.parametrize("size", [Size(400, 300), Size(399, 299), Size(401, 301), Size(400, 299)], ids=str)
def test_thumbs_forgive_one_pixel(size: Size) -> None:
    assert plan_thumb(THUMBS, job(size), FULL) == Thumb(MIDDLE)


def test_thumbs_shrink_but_do_not_enlarge() -> None:
    made = plan_thumb(THUMBS, job(Size(300, 225)), FULL)
    assert isinstance(made, Derivative)
    assert made.rendition == MIDDLE
    with pytest.raises(NotFound):
        plan_thumb(THUMBS, job(Size(1100, 825)), FULL)
    enlarged = plan_thumb(THUMBS, job(Size(1100, 825)), FULL, upscale_percent=10)
    assert isinstance(enlarged, Derivative)
    assert enlarged.rendition == LARGE
    with pytest.raises(NotFound):
        plan_thumb(THUMBS, job(Size(1200, 900)), FULL, upscale_percent=10)


def test_without_a_master_only_stored_sizes_can_be_had() -> None:
    with pytest.raises(NotFound):
        plan(THUMBS, job(Size(100, 100), box=Box(0, 0, 100, 100)), FULL)
