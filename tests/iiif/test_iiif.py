import contextlib
import os
import string
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from special import iiif
from special.errors import BadRequest, NotFound, NotOffered, RequestError
from special.geometry import Box, Size
from special.iiif import (
    BaseRequest,
    IdentifierForm,
    ImageRequest,
    InfoRequest,
    Limits,
    Spelling,
    Version,
    canonical,
    parse,
    resolve,
)

IMAGE = Size(1000, 800)
UP = Limits(upscaling=True)


def image(path: str, id_segments: int = 1) -> ImageRequest:
    request = parse(path, id_segments=id_segments)
    assert isinstance(request, ImageRequest)
    return request


def sized(size: str, version: Version, limits: Limits = UP, region: str = "full") -> Size:
    return resolve(image(f"x/{region}/{size}/0/default.jpg"), IMAGE, version=version, limits=limits).size


@pytest.mark.parametrize(
    ("path", "segments", "request_"),
    [
        pytest.param("a", 1, BaseRequest("a", None), id="base"),
        pytest.param("a/", 1, BaseRequest("a", None), id="base with slash"),
        pytest.param("a/info.json", 1, InfoRequest("a", None), id="info"),
        pytest.param("a%2Fb/info.json", 1, InfoRequest("a/b", None), id="escaped slash"),
        pytest.param("a%252Fb/info.json", 1, InfoRequest("a%2Fb", None), id="decoded exactly once"),
        pytest.param("3/a/info.json", 1, InfoRequest("a", 3), id="version number"),
        pytest.param("v2/a/info.json", 1, InfoRequest("a", 2), id="version segment"),
        pytest.param("2/info.json", 1, InfoRequest("2", None), id="identifier that looks like a version"),
        pytest.param("1/2/foo/info.json", 3, InfoRequest("1/2/foo", None), id="DLCS"),
        pytest.param("v2/1/2/foo", 3, BaseRequest("1/2/foo", 2), id="DLCS with version"),
        pytest.param("2/1/foo/info.json", 3, InfoRequest("2/1/foo", None), id="customer 2 is no version"),
        pytest.param("ark:%2F12025%2F654xz321/info.json", 1, InfoRequest("ark:/12025/654xz321", None), id="ark"),
        pytest.param("%C3%A9/info.json", 1, InfoRequest("é", None), id="UTF-8"),
    ],
)
def test_paths(path: str, segments: int, request_: object) -> None:
    assert parse(path, id_segments=segments) == request_


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("a/b/info.json", NotFound, id="unescaped slash"),
        pytest.param("", NotFound, id="empty"),
        pytest.param("a/full/max/0", NotFound, id="too short"),
        pytest.param("../info.json", NotFound, id="parent"),
        pytest.param("a%2F..%2Fb/info.json", NotFound, id="parent inside"),
        pytest.param("%2e%2e%2fetc/info.json", NotFound, id="encoded parent"),
        pytest.param("a%2F%2Fb/info.json", NotFound, id="empty segment"),
        pytest.param("%2Fa/info.json", NotFound, id="leading slash"),
        pytest.param("a%2f/info.json", NotFound, id="trailing slash"),
        pytest.param("a%2F%2E%2Fb/info.json", NotFound, id="dot segment"),
        pytest.param("a%5Cb/info.json", BadRequest, id="backslash"),
        pytest.param("a%00/info.json", BadRequest, id="NUL"),
        pytest.param("a%0D%0AX:/info.json", BadRequest, id="CR LF"),
        pytest.param("a%C2%85/info.json", BadRequest, id="C1 control"),
        pytest.param("%FF/info.json", BadRequest, id="not UTF-8"),
        pytest.param("a" * 1025 + "/info.json", BadRequest, id="too long"),
        pytest.param("x/full/max/0/default", BadRequest, id="no format"),
        pytest.param("x/full/max/0/default.exe", BadRequest, id="unknown format"),
        pytest.param("x/full/max/0/native.jpg", BadRequest, id="unknown quality"),
        pytest.param("x/full/max/361/default.jpg", BadRequest, id="rotation above 360"),
        pytest.param("x/full/max/-1/default.jpg", BadRequest, id="negative rotation"),
        pytest.param("x/full/max/1e2/default.jpg", BadRequest, id="exponent"),
        pytest.param("x/full/max/!/default.jpg", BadRequest, id="mirror alone"),
        pytest.param("x/0,0,0,10/max/0/default.jpg", BadRequest, id="no width"),
        pytest.param("x/pct:0,0,0,10/max/0/default.jpg", BadRequest, id="no width in percent"),
        pytest.param("x/1,2,3/max/0/default.jpg", BadRequest, id="three numbers"),
        pytest.param("x/1.5,2,3,4/max/0/default.jpg", BadRequest, id="fractional pixels"),
        pytest.param("x/0,0,12345678901,1/max/0/default.jpg", BadRequest, id="eleven digits"),
        pytest.param("x/full/0,/0/default.jpg", BadRequest, id="size zero"),
        pytest.param("x/full/,/0/default.jpg", BadRequest, id="no side"),
        pytest.param("x/full/!5,/0/default.jpg", BadRequest, id="confined to one side"),
        pytest.param("x/full/pct:0/0/default.jpg", BadRequest, id="zero percent"),
        pytest.param("x/full/-5,/0/default.jpg", BadRequest, id="negative size"),
        pytest.param("x/full/١,/0/default.jpg", BadRequest, id="digits of another script"),
        pytest.param("x/full%2Fmax/max/0/default.jpg", BadRequest, id="slash inside region"),
    ],
)
def test_bad_paths(path: str, error: type[RequestError]) -> None:
    with pytest.raises(error):
        parse(path)


@pytest.mark.parametrize(
    ("region", "box"),
    [
        pytest.param("full", Box(0, 0, 1000, 800), id="full"),
        pytest.param("square", Box(100, 0, 800, 800), id="square"),
        pytest.param("900,700,500,500", Box(900, 700, 100, 100), id="cropped"),
        pytest.param("pct:10,10,50,50", Box(100, 80, 500, 400), id="percent"),
        pytest.param("pct:99.99,0,10,10", Box(1000, 0, 1, 1), id="percent rounds outside"),
        pytest.param("pct:0,0,0.01,100", Box(0, 0, 1, 800), id="at least a pixel"),
    ],
)
def test_regions(region: str, box: Box) -> None:
    request = image(f"x/{region}/max/0/default.jpg")
    if box.x >= IMAGE.width:
        with pytest.raises(BadRequest, match="outside"):
            resolve(request, IMAGE, version=3, limits=UP)
    else:
        assert resolve(request, IMAGE, version=3, limits=UP).box == box


@pytest.mark.parametrize("region", ["1000,0,10,10", "0,800,10,10"])
def test_region_outside(region: str) -> None:
    with pytest.raises(BadRequest, match="outside"):
        resolve(image(f"x/{region}/max/0/default.jpg"), IMAGE, version=3, limits=UP)


@pytest.mark.parametrize(
    ("size", "version", "expected"),
    [
        pytest.param("max", 3, Size(1000, 800), id="3 max"),
        pytest.param("max", 2, Size(1000, 800), id="2 max"),
        pytest.param("full", 2, Size(1000, 800), id="2 full"),
        pytest.param("333,", 3, Size(333, 266), id="width, 266.4 down"),
        pytest.param("335,", 3, Size(335, 268), id="width exact"),
        pytest.param(",333", 3, Size(416, 333), id="height, 416.25 down"),
        pytest.param("pct:50", 3, Size(500, 400), id="percent"),
        pytest.param("pct:33.333", 3, Size(333, 267), id="percent rounds each side"),
        pytest.param("10,700", 3, Size(10, 700), id="distorted"),
        pytest.param("!500,500", 3, Size(500, 400), id="confined"),
        pytest.param("!2000,3000", 3, Size(1000, 800), id="3 confined is clamped to the region"),
        pytest.param("^!2000,3000", 3, Size(2000, 1600), id="3 confined with caret enlarges"),
        pytest.param("!2000,3000", 2, Size(2000, 1600), id="2 confined enlarges"),
        pytest.param("^2000,", 3, Size(2000, 1600), id="caret width"),
        pytest.param("^500,", 3, Size(500, 400), id="caret need not enlarge"),
        pytest.param("2000,", 2, Size(2000, 1600), id="2 width enlarges"),
        pytest.param("^pct:200", 3, Size(2000, 1600), id="caret percent"),
    ],
)
def test_sizes(size: str, version: Version, expected: Size) -> None:
    assert sized(size, version) == expected


@pytest.mark.parametrize(
    ("size", "version", "limits", "error"),
    [
        pytest.param("full", 3, UP, BadRequest, id="3 has no full"),
        pytest.param("^max", 2, UP, BadRequest, id="2 has no caret"),
        pytest.param("1001,", 3, UP, BadRequest, id="3 width above the region"),
        pytest.param(",801", 3, UP, BadRequest, id="3 height above the region"),
        pytest.param("pct:101", 3, UP, BadRequest, id="3 percent above 100"),
        pytest.param("500,900", 3, UP, BadRequest, id="3 one side above the region"),
        pytest.param("pct:0.01", 3, UP, BadRequest, id="below a pixel"),
        pytest.param("^1001,", 3, Limits(), NotOffered, id="enlarging is off"),
        pytest.param("1001,", 2, Limits(), NotOffered, id="2 enlarging is off"),
        pytest.param("^2000,", 3, Limits(max_width=1500, upscaling=True), BadRequest, id="above maxWidth"),
        pytest.param("800,", 3, Limits(max_area=100_000), BadRequest, id="above maxArea"),
        pytest.param("full", 2, Limits(max_width=500), BadRequest, id="2 full above maxWidth"),
        pytest.param("^9999999999,", 3, Limits(max_area=10**8, upscaling=True), BadRequest, id="huge"),
    ],
)
def test_refused_sizes(size: str, version: Version, limits: Limits, error: type[RequestError]) -> None:
    with pytest.raises(error):
        sized(size, version, limits)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        pytest.param("max", Limits(max_width=500), Size(500, 400), id="max is reduced to maxWidth"),
        pytest.param("max", Limits(max_width=500, max_height=200), Size(250, 200), id="max is reduced to maxHeight"),
        pytest.param("max", Limits(max_area=200_000), Size(500, 400), id="max is reduced to maxArea"),
        pytest.param("max", Limits(max_width=5000, upscaling=True), Size(1000, 800), id="max never enlarges"),
        pytest.param("^max", Limits(max_width=5000, upscaling=True), Size(5000, 4000), id="^max enlarges to maxWidth"),
        pytest.param(
            "^max", Limits(max_area=3_200_000, upscaling=True), Size(2000, 1600), id="^max enlarges to maxArea"
        ),
        pytest.param("^max", UP, Size(1000, 800), id="^max without limits"),
        pytest.param("^max", Limits(), Size(1000, 800), id="^max that need not enlarge"),
    ],
)
def test_max_and_limits(size: str, limits: Limits, expected: Size) -> None:
    assert sized(size, 3, limits) == expected


@pytest.mark.parametrize(
    ("path", "version", "expected"),
    [
        pytest.param("full/max/0/default.jpg", 3, "full/max/0/default.jpg", id="3 as it is"),
        pytest.param("0,0,1000,800/1000,/0/color.jpg", 3, "full/max/0/default.jpg", id="3 all of it"),
        pytest.param("full/500,/90.0/gray.png", 3, "full/500,400/90/gray.png", id="3 w,h and a short rotation"),
        pytest.param(
            "10,10,100,100/^200,/!22.50/default.jpg", 3, "10,10,100,100/^200,200/!22.5/default.jpg", id="3 caret"
        ),
        pytest.param("full/full/0/default.jpg", 2, "full/full/0/default.jpg", id="2 full"),
        pytest.param("full/max/360/default.jpg", 2, "full/full/0/default.jpg", id="2 max is full"),
        pytest.param("full/!500,500/0/default.jpg", 2, "full/500,/0/default.jpg", id="2 w,"),
        pytest.param("full/500,500/0/default.jpg", 2, "full/500,500/0/default.jpg", id="2 distorted"),
        pytest.param("pct:0,0,50,50/pct:100/0/bitonal.tif", 2, "0,0,500,400/full/0/bitonal.tif", id="2 percent"),
    ],
)
def test_canonical(path: str, version: Version, expected: str) -> None:
    job = resolve(image(f"x/{path}"), IMAGE, version=version, limits=UP)
    assert canonical(job, IMAGE, version=version, limits=UP, has_color=True) == expected


def test_canonical_gray_of_a_grey_image() -> None:
    job = resolve(image("x/full/max/0/gray.jpg"), IMAGE, version=3, limits=UP)
    assert canonical(job, IMAGE, version=3, limits=UP, has_color=False) == "full/max/0/default.jpg"


numbers = st.integers(0, 2000).map(str) | st.fractions(0, 200).map(lambda f: f"{float(f):.3f}")
regions = st.sampled_from(["full", "square"]) | st.tuples(*[st.integers(0, 1100)] * 4).map(
    lambda it: ",".join(map(str, it))
)
caret = st.sampled_from(["", "^"])
wanted = st.sampled_from(["max", "full", "^max"]) | st.builds(
    lambda up, bang, w, h: f"{up}{bang}{w},{h}",
    caret,
    st.sampled_from(["", "!"]),
    numbers | st.just(""),
    numbers | st.just(""),
)
rotations = st.builds(lambda bang, n: f"{bang}{n}", st.sampled_from(["", "!"]), numbers)
lasts = st.builds(lambda q, f: f"{q}.{f}", st.sampled_from(iiif.QUALITIES), st.sampled_from(list(iiif.MEDIA)))


@given(regions, wanted, rotations, lasts, st.sampled_from([2, 3]))
def test_canonical_is_a_fixed_point(region: str, size: str, rotation: str, last: str, version: Version) -> None:
    limits = Limits(max_area=4_000_000, upscaling=True)
    try:
        job = resolve(image(f"x/{region}/{size}/{rotation}/{last}"), IMAGE, version=version, limits=limits)
    except BadRequest:
        return
    path = canonical(job, IMAGE, version=version, limits=limits, has_color=True)
    again = resolve(image(f"x/{path}"), IMAGE, version=version, limits=limits)
    assert (again.box, again.size, again.mirror) == (job.box, job.size, job.mirror)
    assert canonical(again, IMAGE, version=version, limits=limits, has_color=True) == path
    assert limits.allow(job.size)
    assert job.box.within(IMAGE) == job.box


@given(st.text(string.printable + "é٣\x85%", max_size=60), st.integers(1, 3))
def test_any_text_is_understood_or_refused(text: str, id_segments: int) -> None:
    with contextlib.suppress(BadRequest, NotFound):
        parse(text, id_segments=id_segments)


ODD = ["/a", "a/", "a//b", "//a/b", ".", "./a", "a/.", "a/./b", "/"]
UPWARD = ["..", "a/../b", "../a", "a/.."]
DECOMPOSED = "cafe\u0301"


@pytest.mark.parametrize(
    ("form", "identifiers", "served"),
    [
        pytest.param(IdentifierForm.NORMAL, ["a", "a/b", "a.b", "...", ".a", "a/..b", DECOMPOSED], True, id="normal"),
        pytest.param(IdentifierForm.NORMAL, ODD, False, id="odd"),
        pytest.param(IdentifierForm.NORMAL_NFC, ["a/b", "caf\u00e9"], True, id="normal in a folder"),
        pytest.param(IdentifierForm.NORMAL_NFC, [*ODD, DECOMPOSED, "\u212bngstr\u00f6m"], False, id="odd in a folder"),
        pytest.param(IdentifierForm.ODD, [*ODD, "a/b", DECOMPOSED], True, id="all of a bucket with odd keys"),
        *(pytest.param(IdentifierForm(it), UPWARD, False, id=f"upward, {it.value}") for it in Spelling),
    ],
)
def test_one_spelling_of_an_identifier_is_served(form: IdentifierForm, identifiers: list[str], served: bool) -> None:
    for identifier in identifiers:
        path = f"{iiif.quote_identifier(identifier)}/info.json"
        if served:
            assert parse(path, form=form) == InfoRequest(identifier, None)
        else:
            with pytest.raises(NotFound):
                parse(path, form=form)


@pytest.mark.parametrize(
    ("quoted", "expected", "split"),
    [
        ("a.tif;3", "a.tif;3", ("a.tif", 3)),
        ("a.tif%3B3", "a.tif;3", ("a.tif", 3)),
        ("a%2Fb;12", "a/b;12", ("a/b", 12)),
        ("a;1", "a", ("a", 1)),
        ("a;3;1", "a;3;1", ("a;3", 1)),
        ("a;3;2", "a;3;2", ("a;3", 2)),
        ("a;0;1", "a;0;1", ("a;0", 1)),
        ("a;1;1", "a;1;1", ("a;1", 1)),
        ("a;x", "a;x", ("a;x", 1)),
        ("a;3%2Fb", "a;3/b", ("a;3/b", 1)),
        (";3", ";3", (";3", 1)),
        ("a;", "a;", ("a;", 1)),
        ("a;\u0663", "a;\u0663", ("a;\u0663", 1)),
    ],
)
def test_a_page_has_one_identifier(quoted: str, expected: str, split: tuple[str, int]) -> None:
    form = IdentifierForm.NORMAL
    assert iiif.parse_identifier(quoted) == expected
    assert form.split(expected) == split
    assert form.join(*split) == expected
    assert form.names(expected) == tuple(dict.fromkeys((expected, split[0])))


@pytest.mark.parametrize("identifier", ["a;0", "a;03", "a;100000", "a;3;0"])
def test_what_cannot_be_a_page_is_refused(identifier: str) -> None:
    with pytest.raises(BadRequest, match="A page is a number"):
        iiif.parse_identifier(identifier)
    assert iiif.parse_identifier(identifier, IdentifierForm(pages=False)) == identifier


@pytest.mark.parametrize("identifier", ["a/..;3", "..;3", "a//b;3", "./a;3", "a/;3"])
def test_no_page_leads_to_another_spelling(identifier: str) -> None:
    with pytest.raises(NotFound):
        iiif.parse_identifier(identifier)


def test_without_pages_a_semicolon_is_a_letter() -> None:
    form = IdentifierForm(pages=False)
    for identifier in ("a;3", "a;1", "a;3;1"):
        assert iiif.parse_identifier(identifier, form) == identifier
        assert form.split(identifier) == (identifier, 1)
        assert form.names(identifier) == (identifier,)


def test_a_folder_has_no_pages() -> None:
    assert iiif.parse_manifest("manifest/volume;3/") == iiif.FolderManifest("volume;3/")
    assert iiif.parse_manifest("manifest/volume;1/") == iiif.FolderManifest("volume;1/")
    assert iiif.parse_manifest("manifest/a.tif;3") == iiif.ImageManifest("a.tif;3")


def test_a_folded_identifier_is_what_a_path_of_that_spelling_leads_to() -> None:
    for parts in product(["private", "x", "", "."], repeat=4):
        spelling = "/".join(parts)
        # POSIX lets a pair of slashes at the start stand, but not three.
        assert iiif.fold_identifier(spelling) == os.path.normpath(f"///{spelling}").lstrip("/")
    assert iiif.fold_identifier(DECOMPOSED) == "caf\u00e9"


def test_percent_is_exact() -> None:
    region = image("x/pct:0.1,0.1,33.3,33.3/max/0/default.jpg").region
    assert isinstance(region, iiif.Percent)
    assert region.width == Fraction(333, 10)


@pytest.mark.parametrize(
    ("identifier", "segments", "quoted"),
    [
        pytest.param("a/b", 1, "a%2Fb", id="one segment"),
        pytest.param("1/2/foo bar", 3, "1/2/foo%20bar", id="three segments"),
        pytest.param("a?b#c%", 1, "a%3Fb%23c%25", id="reserved"),
    ],
)
def test_quoted_identifiers_come_back(identifier: str, segments: int, quoted: str) -> None:
    assert iiif.quote_identifier(identifier, id_segments=segments) == quoted
    assert parse(f"{quoted}/info.json", id_segments=segments) == InfoRequest(identifier, None)
