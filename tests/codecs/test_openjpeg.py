import io
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fixtures import codestreams
from special.codecs import libopenjp2, openjpeg
from special.errors import ConfigurationError, Malformed, Unsupported
from special.geometry import Box, ceil_div

pytestmark = pytest.mark.service

SOC, SIZ, SOT, EOC = b"\xff\x4f", b"\xff\x51", b"\xff\x90", b"\xff\xd9"
WIDTH, HEIGHT = codestreams.WIDTH, codestreams.HEIGHT
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB, GREY, CMYK, CIELAB, SYCC, EYCC = 16, 17, 12, 14, 18, 24  # EnumCS, T.800 table I.10 and T.801 table M.25


BILEVEL, CMY, BILEVEL_2 = 0, 11, 15  # T.801 table M.25


def stored(name: str) -> bytes:
    return (codestreams.FOLDER / name).read_bytes()


def pillow_made(pixels: npt.NDArray[np.integer], *, raw: bool = True, **options: object) -> bytes:
    """Samples encoded by pillow: a raw codestream or a JP2, lossless unless told otherwise."""
    out = io.BytesIO()
    image = Image.fromarray(pixels.astype("u1"))
    image.save(out, "JPEG2000", no_jp2=raw, **{"num_resolutions": 4, "mct": 0} | options)
    return out.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def jp2(codestream: bytes, *described: bytes, components: int = 3, bits: int = 8) -> bytes:
    """A JP2 file around a codestream, with these boxes in its header."""
    ihdr = struct.pack(">IIHBBBB", HEIGHT, WIDTH, components, bits - 1, 7, 0, 0)
    return b"".join(
        (
            box(b"jP  ", b"\r\n\x87\n"),
            box(b"ftyp", b"jp2 \0\0\0\0jp2 "),
            box(b"jp2h", box(b"ihdr", ihdr) + b"".join(described)),
            box(b"jp2c", codestream),
        )
    )


def colr(space: int) -> bytes:
    return box(b"colr", struct.pack(">BBBI", 1, 0, 0, space))


def profile(icc: bytes) -> bytes:
    return box(b"colr", b"\2\0\0" + icc)


def cdef(*channels: tuple[int, int, int]) -> bytes:
    """Channel definitions: (channel, type, association)."""
    return box(b"cdef", struct.pack(">H", len(channels)) + b"".join(struct.pack(">3H", *each) for each in channels))


def rgba() -> npt.NDArray[np.int64]:
    return np.dstack((codestreams.rgb(), codestreams.waves(3.0, 255)))


def cropped(whole: npt.NDArray[np.integer], origin: tuple[int, int], area: Box, reduce: int) -> npt.NDArray[np.integer]:
    """The area's part of a whole reduced image, by T.800 equation B-15, written out."""
    scale, (x, y) = 2**reduce, origin
    columns = [n - ceil_div(x, scale) for n in range(ceil_div(x + area.x, scale), ceil_div(x + area.right, scale))]
    rows = [n - ceil_div(y, scale) for n in range(ceil_div(y + area.y, scale), ceil_div(y + area.bottom, scale))]
    return whole[np.ix_(rows, columns)]


WHOLE: dict[str, tuple[bytes, tuple[int, int]]] = {
    "lossless": (pillow_made(codestreams.rgb()), (0, 0)),
    "lossy": (
        pillow_made(codestreams.rgb(), irreversible=True, mct=1, quality_mode="rates", quality_layers=[40, 20]),
        (0, 0),
    ),
    "tiled": (pillow_made(codestreams.rgb(), tile_size=(64, 64)), (0, 0)),
    "precincts": (pillow_made(codestreams.rgb(), progression="RPCL", precinct_size=(64, 64)), (0, 0)),
    "offset": (stored("offset.jp2"), (37, 21)),
    "offset, tiled": (stored("offset-tiled.jp2"), (37, 21)),
    "12 bits": (stored("grey12.jp2"), (0, 0)),
    "signed": (stored("signed8.j2k"), (0, 0)),
    "subsampled": (stored("ycc420.jp2"), (0, 0)),
    "subsampled, offset, tiled": (stored("ycc420-offset-tiled.jp2"), (14, 6)),
    "HTJ2K": (stored("htj2k.jp2"), (0, 0)),
}


def test_a_library_is_found_and_is_new_enough():
    assert openjpeg.available()
    assert tuple(int(part) for part in openjpeg.version().split(".")[:2]) >= (2, 5)


def test_the_library_inside_pillows_wheel_is_asked_first():
    assert "pillow.libs" in libopenjp2.library_names()[0] or ".dylibs" in libopenjp2.library_names()[0]


def test_without_a_library_the_error_names_the_fix():
    with pytest.raises(ConfigurationError, match=r"pip install .* pillow.*libopenjp2.*tried /nowhere \("):
        libopenjp2.first_usable(["/nowhere"])


def test_a_library_without_strict_mode_is_not_used():
    with pytest.raises(ConfigurationError, match=r"tried libc\.so\.6 \(.*opj_version"):
        libopenjp2.first_usable(["libc.so.6"])


@pytest.mark.parametrize("threads", [1, 2])
def test_lossless_pixels_come_back(threads: int):
    planes = openjpeg.decode(WHOLE["lossless"][0], threads=threads)
    assert planes.pixels.dtype == np.uint8
    assert (planes.pixels == codestreams.rgb()).all()
    assert (planes.colour, planes.precision, planes.icc, planes.alpha) == ("srgb", 8, None, False)


def test_signed_samples_are_shifted():
    planes = openjpeg.decode(stored("signed8.j2k"))
    assert (planes.pixels[..., 0].astype(int) - 128 == codestreams.signed8()).all()
    assert planes.colour == "grey"


def test_twelve_bits_become_full_range_sixteen():
    planes = openjpeg.decode(stored("grey12.jp2"))
    assert planes.pixels.dtype == np.uint16
    assert planes.precision == 12
    assert (planes.pixels[..., 0] == np.rint(codestreams.grey12() * (65535 / 4095))).all()
    assert {0, 65535} <= set(planes.pixels.flat)


def test_sixteen_bits_stay_as_they_are():
    grey = codestreams.waves(0.0, 65535).astype("u2")
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "JPEG2000")
    assert (openjpeg.decode(out.getvalue()).pixels[..., 0] == grey).all()


def expected_ycc() -> npt.NDArray[np.float64]:
    luma, *chroma = codestreams.ycc420()
    blue, red = (plane.repeat(2, 0).repeat(2, 1) - 128.0 for plane in chroma)
    rgb = np.stack((luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), axis=-1)
    return np.rint(rgb).clip(0, 255)


@pytest.mark.parametrize("name", ["ycc420.jp2", "ycc420-offset-tiled.jp2"])
def test_subsampled_sycc_becomes_rgb(name: str):
    planes = openjpeg.decode(stored(name))
    assert planes.colour == "srgb"
    assert np.abs(planes.pixels - expected_ycc()).max() <= 1  # a half may be rounded either way
    assert (planes.pixels == expected_ycc()).mean() > 0.999


def test_subsampled_components_without_a_colour_space_are_ycc_too():
    data = stored("ycc420.jp2")
    raw = data[data.index(SOC + SIZ) :]
    assert (openjpeg.decode(raw).pixels == openjpeg.decode(data).pixels).all()


def test_a_palette_is_applied_and_never_averaged():
    indices = codestreams.waves(0.0, 3)
    colours = np.array([[250, 240, 220], [120, 30, 20], [20, 60, 120], [10, 10, 10]], "u1")
    pclr = box(b"pclr", struct.pack(">HB3B", 4, 3, 7, 7, 7) + colours.tobytes())
    cmap = box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3)))
    data = jp2(pillow_made(indices), colr(SRGB), pclr, cmap, components=1)
    planes = openjpeg.decode(data)
    assert (planes.pixels == colours[indices]).all()
    assert planes.colour == "srgb"
    assert (openjpeg.decode(data, reduce=2).pixels == colours[indices][::4, ::4]).all()
    area = Box(13, 5, 101, 77)
    assert (openjpeg.decode(data, reduce=1, area=area).pixels == colours[indices][6:82:2, 14:114:2]).all()


DEFINED = [
    pytest.param(cdef((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)), [0, 1, 2, 3], True, False, id="RGBA"),
    pytest.param(cdef((0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)), [1, 2, 3, 0], True, False, id="ARGB"),
    pytest.param(cdef((0, 0, 3), (1, 0, 2), (2, 0, 1), (3, 2, 0)), [2, 1, 0, 3], True, True, id="BGRA, premultiplied"),
    pytest.param(b"", [0, 1, 2], False, False, id="not defined"),
    pytest.param(
        cdef((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 65535, 65535)), [0, 1, 2], False, False, id="fourth of no meaning"
    ),
]


@pytest.mark.parametrize(("described", "order", "alpha", "premultiplied"), DEFINED)
def test_channels_are_ordered_by_their_definitions(
    described: bytes, order: list[int], alpha: bool, premultiplied: bool
):
    planes = openjpeg.decode(jp2(pillow_made(rgba()), colr(SRGB), described, components=4))
    assert (planes.pixels == rgba()[..., order]).all()
    assert (planes.colour, planes.alpha, planes.premultiplied) == ("srgb", alpha, premultiplied)


def test_grey_with_opacity():
    grey = rgba()[..., :2].astype("u1")
    out = io.BytesIO()
    Image.fromarray(grey, "LA").save(out, "JPEG2000", no_jp2=True)
    planes = openjpeg.decode(out.getvalue())
    assert (planes.pixels == grey).all()
    assert (planes.colour, planes.alpha) == ("grey", True)


def test_a_raw_codestream_of_four_components_is_rgb_with_opacity():
    planes = openjpeg.decode(pillow_made(rgba()))
    assert (planes.pixels == rgba()).all()
    assert (planes.colour, planes.alpha) == ("srgb", True)


def test_cmy_becomes_rgb():
    planes = openjpeg.decode(jp2(pillow_made(codestreams.rgb()), colr(CMY)))
    assert (planes.pixels == 255 - codestreams.rgb()).all()
    assert (planes.colour, planes.alpha) == ("srgb", False)


@pytest.mark.parametrize(("space", "is_inverted"), [(BILEVEL, True), (BILEVEL_2, False)])
def test_bilevel_pictures_have_black_and_white_as_their_colour_space_says(space: int, is_inverted: bool):
    dots = np.where(codestreams.waves(0.0, 255) > 99, 255, 0).astype("u1")
    planes = openjpeg.decode(jp2(pillow_made(dots), colr(space), components=1))
    assert (planes.pixels[..., 0] == (255 - dots if is_inverted else dots)).all()
    assert planes.colour == "grey"


def test_cmyk_stays_cmyk():
    planes = openjpeg.decode(jp2(pillow_made(rgba()), colr(CMYK), components=4))
    assert (planes.pixels == rgba()).all()
    assert (planes.colour, planes.alpha) == ("cmyk", False)


def test_a_profile_is_handed_on():
    planes = openjpeg.decode(jp2(pillow_made(codestreams.rgb()), profile(ICC)))
    assert (planes.colour, planes.icc) == ("srgb", ICC)


def test_a_profile_of_other_channels_is_not_handed_on():
    planes = openjpeg.decode(jp2(pillow_made(codestreams.waves(0.0, 255)), profile(ICC), components=1))
    assert (planes.colour, planes.icc) == ("grey", None)


REFUSED = [
    pytest.param(colr(EYCC), "e-sYCC", id="e-sYCC"),
    pytest.param(colr(1), "a video's range", id="YCbCr(1)"),
    pytest.param(colr(77), "77, an unknown one", id="unknown"),
    pytest.param(
        box(b"colr", struct.pack(">BBB8I", 1, 0, 0, CIELAB, 100, 0, 170, 128, 200, 96, 0)), "CIELab", id="Lab"
    ),
]


@pytest.mark.parametrize(
    ("described", "colour", "icc"),
    [
        pytest.param(profile(ICC[:16] + b"Lab " + ICC[20:]), "srgb", None, id="a Lab profile"),
        pytest.param(profile(b"junk" * 50), "srgb", None, id="junk"),
        pytest.param(profile(ICC[:16] + b"GRAY" + ICC[20:]), "srgb", None, id="a grey profile on RGB"),
        pytest.param(box(b"colr", b"\3\0\0" + ICC), "srgb", ICC, id="any profile"),
        pytest.param(box(b"colr", b"\4\0\0" + b"vendor") + profile(ICC), "srgb", ICC, id="a vendor's space first"),
        pytest.param(colr(77) + colr(16), "srgb", None, id="an unknown space first"),
        pytest.param(colr(77) + box(b"colr", b"\3\0\0" + ICC), "srgb", ICC, id="an unknown space, then a profile"),
        pytest.param(colr(16) + box(b"colr", b"\3\1\0" + ICC), "srgb", ICC, id="a profile that takes precedence"),
    ],
)
def test_the_first_usable_colour_specification_counts(described: bytes, colour: str, icc: bytes | None):
    planes = openjpeg.decode(jp2(pillow_made(codestreams.rgb()), described))
    assert (planes.colour, planes.icc) == (colour, icc)
    assert (planes.pixels == codestreams.rgb()).all()


@pytest.mark.parametrize(("described", "named"), REFUSED)
def test_colours_that_nobody_converts_are_refused_by_name(described: bytes, named: str):
    with pytest.raises(Unsupported, match=named):
        openjpeg.decode(jp2(pillow_made(codestreams.rgb()), described))


@pytest.mark.parametrize("reduce", range(4))
@pytest.mark.parametrize("name", ["lossless", "lossy", "tiled", "precincts", "signed", "HTJ2K"])
def test_reduced_pixels_equal_pillows(name: str, reduce: int):
    data, _ = WHOLE[name]
    ours, pillows = openjpeg.decode(data, reduce=reduce), openjpeg.decode_by_pillow(data, reduce=reduce)
    assert ours.pixels.shape[:2] == (ceil_div(HEIGHT, 2**reduce), ceil_div(WIDTH, 2**reduce))
    assert np.array_equal(ours.pixels, pillows.pixels)
    assert (ours.colour, ours.alpha, ours.icc) == (pillows.colour, pillows.alpha, pillows.icc)


# where subsampled components start at an odd pixel (14,6 halved or cut to an eighth), opj_decompress writes black
BEYOND_OPJ_DECOMPRESS = {("subsampled, offset, tiled", 1), ("subsampled, offset, tiled", 3)}


@pytest.mark.skipif(not shutil.which("opj_decompress"), reason="opj_decompress is not installed (libopenjp2-tools)")
@pytest.mark.parametrize(
    ("name", "reduce"),
    [case for name in WHOLE for case in ((name, n) for n in range(4)) if case not in BEYOND_OPJ_DECOMPRESS],
)
def test_reduced_pixels_equal_opj_decompress(name: str, reduce: int, tmp_path: Path):
    data, _ = WHOLE[name]
    source, result = tmp_path / ("a.jp2" if data[4:8] == b"jP  " else "a.j2k"), tmp_path / "a.ppm"
    source.write_bytes(data)
    subprocess.run(["opj_decompress", "-i", source, "-o", result, "-r", str(reduce)], check=True, capture_output=True)
    theirs = np.atleast_3d(np.asarray(Image.open(result))).astype(int)
    ours = openjpeg.decode(data, reduce=reduce).pixels.astype(int)
    tolerance = 1 if name.startswith("subsampled") else 0  # its YCC matrix cuts fractions off
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize("name", sorted(WHOLE))
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_area_equals_the_same_part_of_the_whole(name: str, draws: st.DataObject):
    data, origin = WHOLE[name]
    reduce = draws.draw(st.integers(0, 3))
    x, y = draws.draw(st.integers(0, WIDTH - 8)), draws.draw(st.integers(0, HEIGHT - 8))
    area = Box(x, y, draws.draw(st.integers(8, WIDTH - x)), draws.draw(st.integers(8, HEIGHT - y)))
    part = openjpeg.decode(data, reduce=reduce, area=area)
    whole = openjpeg.decode(data, reduce=reduce)
    assert np.array_equal(part.pixels, cropped(whole.pixels, origin, area, reduce))


@pytest.mark.parametrize("reduce", range(3))
def test_pillow_cuts_out_the_same_area(reduce: int):
    data, _ = WHOLE["tiled"]
    area = Box(33, 7, 101, 99)
    ours, pillows = (way(data, reduce=reduce, area=area) for way in (openjpeg.decode, openjpeg.decode_by_pillow))
    assert np.array_equal(ours.pixels, pillows.pixels)


def test_pillow_refuses_what_it_would_get_wrong():
    with pytest.raises(Unsupported, match="starts at 37,21"):
        openjpeg.decode_by_pillow(stored("offset.jp2"), reduce=1)


def test_pillow_keeps_grey_deep_and_opacity_last():
    assert openjpeg.decode_by_pillow(stored("grey12.jp2")).pixels.dtype == np.uint16
    planes = openjpeg.decode_by_pillow(pillow_made(rgba(), raw=False))
    assert (planes.pixels == rgba()).all()
    assert planes.alpha


def test_an_area_must_be_inside_and_hold_a_pixel():
    data, _ = WHOLE["lossless"]
    with pytest.raises(ValueError, match="not inside an image of 202,154"):
        openjpeg.decode(data, area=Box(200, 0, 3, 3))
    with pytest.raises(ValueError, match="at least 1×1"):
        openjpeg.decode(data, area=Box(1, 1, 2, 2), reduce=2)


@pytest.mark.parametrize("way", [openjpeg.decode, openjpeg.decode_by_pillow], ids=["OpenJPEG", "pillow"])
@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 not this one", stored("offset.jp2")[:60]], ids=len)
def test_what_is_no_jpeg_2000_is_malformed(way, data: bytes):
    with pytest.raises(Malformed):
        way(data)


@pytest.mark.parametrize("name", ["lossless", "tiled", "HTJ2K", "offset"])
def test_a_truncated_file_is_malformed_wherever_it_ends(name: str):
    data, _ = WHOLE[name]
    for stop in range(0, len(data), 97):
        with pytest.raises(Malformed):
            openjpeg.decode(data[:stop])


def test_a_codestream_that_misses_a_tile_is_malformed_even_with_its_end():
    data, _ = WHOLE["tiled"]
    last = data.rindex(SOT)
    with pytest.raises(Malformed, match="misses tile-parts: 11 of 11 of 12 tiles"):
        openjpeg.decode(data[:last] + EOC)


def test_a_tile_that_misses_a_tile_part_is_malformed():
    data = bytearray(WHOLE["lossless"][0])
    at = data.index(SOT)
    data[at + 11] = 2  # TNsot
    assert (openjpeg.decode(bytes(data)).pixels == codestreams.rgb()).all()  # all packets are there
    short = len(data) - 100
    data[at + 6 : at + 10] = (short - at).to_bytes(4)  # Psot
    with pytest.raises(Malformed, match="misses tile-parts: 1 of 1 of 1 tiles"):
        openjpeg.decode(bytes(data[:short]) + EOC)


def test_a_last_tile_part_without_a_length_reaches_to_the_end():
    data = bytearray(WHOLE["lossless"][0])
    at = data.index(SOT)
    data[at + 6 : at + 10] = bytes(4)  # Psot
    assert (openjpeg.decode(bytes(data)).pixels == codestreams.rgb()).all()


def test_bytes_after_the_end_do_no_harm():
    assert (openjpeg.decode(WHOLE["lossless"][0] + bytes(5)).pixels == codestreams.rgb()).all()


def test_damage_is_told_in_openjpegs_words():
    data = bytearray(WHOLE["lossless"][0])
    data[data.index(b"\xff\x52") + 5] = 9  # COD: a progression order that does not exist
    with pytest.raises(Malformed, match=r"OpenJPEG refuses the file: .*[Pp]rogression"):
        openjpeg.decode(bytes(data))


def test_more_reductions_than_the_file_has_are_malformed():
    with pytest.raises(Malformed, match="maximum resolution"):
        openjpeg.decode(WHOLE["lossless"][0], reduce=5)


def test_decoders_in_threads_do_not_disturb_each_other():
    data, _ = WHOLE["lossy"]
    areas = [Box(x, y, 60, 50) for x in range(0, 140, 20) for y in range(0, 100, 20)]
    whole = openjpeg.decode(data).pixels
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda area: openjpeg.decode(data, area=area).pixels, areas))
    for area, part in zip(areas, parts, strict=True):
        assert np.array_equal(part, cropped(whole, (0, 0), area, 0))


def test_nothing_is_left_behind_by_failures_and_successes():
    data, _ = WHOLE["lossless"]
    before = sys.getrefcount(data)
    for _ in range(50):
        openjpeg.decode(data)
        with pytest.raises(Malformed):
            openjpeg.decode(data, reduce=9)
    assert sys.getrefcount(data) == before
