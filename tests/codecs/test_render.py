"""Pieces to answers: exact sizes, exact pixels where nothing is resampled, right colours everywhere."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageOps

from special.codecs import TileCut, cut_tiles
from special.codecs import raster as rasters
from special.codecs.render import Encoding, prepare, render, render_all
from special.concurrency import Deadline
from special.errors import BadRequest, MasterError, TooExpensive, Unsupported
from special.formats.layout import Format
from special.geometry import Box, Frame, Orientation, Size
from special.iiif import MEDIA, QUALITIES, Job, Mark, OutputFormat, Quality
from special.workers import Workers
from tests.support.pieces import Pixels, encoded, job, mean_difference, opened, piece, pixels_of, smooth

ENCODING = Encoding()
PICTURE = smooth(300, 200)


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> None:
    prepare()


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("output", MEDIA)
@pytest.mark.parametrize("angle", [0, 90, 180, 270, 22.5, 359.9])
def test_the_size_is_exact_and_the_format_as_asked(output: OutputFormat, quality: Quality, angle: float) -> None:
    wanted = job(151, 67, angle=angle, quality=quality, output=output)
    data = render(piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), wanted, ENCODING).data
    image = opened(data)
    assert image.size == (wanted.output.width, wanted.output.height)
    assert (
        image.format
        == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "avif": "AVIF"}[output]
    )


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
    data = render(
        piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), job(100, 67, quality=quality, output=output), ENCODING
    ).data
    assert opened(data).mode == mode


def test_a_piece_as_large_as_asked_is_not_resampled() -> None:
    answer = render(piece(encoded(PICTURE, "png"), "png", (20, 30, 100, 80)), job(100, 80), ENCODING)
    assert np.array_equal(pixels_of(answer.data), PICTURE[30:110, 20:120])


GREY, DEEP = smooth(300, 200, 1), smooth(300, 200, 1).astype(np.uint16) * 257
PALETTE = Image.fromarray(PICTURE).quantize(200)
BILEVEL = Image.fromarray(GREY[..., 0]).point(lambda tone: 255 * (tone > 127)).convert("1", dither=Image.Dither.NONE)


@pytest.mark.parametrize(
    ("kind", "data", "shown"),
    [
        pytest.param("png", encoded(PICTURE, "png"), PICTURE, id="png"),
        pytest.param("png", encoded(GREY, "png"), GREY, id="grey png"),
        pytest.param("png", encoded(Image.fromarray(DEEP[..., 0]), "png"), GREY, id="16-bit grey png"),
        pytest.param("png", encoded(PALETTE, "png"), np.asarray(PALETTE.convert("RGB")), id="palette png"),
        pytest.param("png", encoded(BILEVEL, "png"), np.asarray(BILEVEL.convert("L"))[..., None], id="bilevel png"),
        pytest.param("gif", encoded(PALETTE, "gif"), np.asarray(PALETTE.convert("RGB")), id="gif"),
        pytest.param("webp", encoded(PICTURE, "webp", lossless=True), PICTURE, id="webp"),
        pytest.param("bmp", encoded(PICTURE, "bmp"), PICTURE, id="bmp"),
        pytest.param("bmp", encoded(GREY, "bmp"), GREY, id="grey bmp"),
        pytest.param("bmp", encoded(PALETTE, "bmp"), np.asarray(PALETTE.convert("RGB")), id="palette bmp"),
        pytest.param("bmp", encoded(BILEVEL, "bmp"), np.asarray(BILEVEL.convert("L"))[..., None], id="bilevel bmp"),
        pytest.param("tiff", encoded(PICTURE, "tiff"), PICTURE, id="tiff"),
        pytest.param("tiff", encoded(PICTURE, "tiff", compression="tiff_lzw"), PICTURE, id="lzw tiff"),
        pytest.param("tiff", encoded(PICTURE, "tiff", compression="packbits"), PICTURE, id="packbits tiff"),
        pytest.param("tiff", encoded(GREY, "tiff"), GREY, id="grey tiff"),
        pytest.param("tiff", encoded(Image.fromarray(DEEP[..., 0]), "tiff"), GREY, id="16-bit grey tiff"),
        pytest.param("tiff", encoded(PALETTE, "tiff"), np.asarray(PALETTE.convert("RGB")), id="palette tiff"),
        pytest.param(
            "tiff",
            encoded(BILEVEL, "tiff", compression="group4"),
            np.asarray(BILEVEL.convert("L"))[..., None],
            id="fax tiff",
        ),
        pytest.param("jp2", encoded(PICTURE, "jpeg2000", irreversible=False), PICTURE, id="jp2"),
        pytest.param("jp2", encoded(GREY, "jpeg2000", irreversible=False), GREY, id="grey jp2"),
    ],
)
def test_lossless_masters_come_out_as_they_are(kind: Format, data: bytes, shown: Pixels) -> None:
    answer = render(piece(data, kind, (7, 9, 200, 150)), job(200, 150), ENCODING)
    image = opened(answer.data)
    assert image.mode == ("L" if shown.shape[2] == 1 else "RGB")
    assert np.array_equal(np.asarray(image).reshape(150, 200, -1), shown[9:159, 7:207])


@pytest.mark.parametrize("reduce", [0, 1, 2])
def test_jp2_reductions(reduce: int) -> None:
    data = encoded(PICTURE, "jpeg2000", irreversible=False)
    theirs = Image.open(io.BytesIO(data))
    theirs.reduce = reduce
    frame = Frame.whole(Size(300 >> reduce, 200 >> reduce))
    answer = render(piece(data, "jp2", frame, reduce=reduce), job(300 >> reduce, 200 >> reduce), ENCODING)
    assert np.array_equal(pixels_of(answer.data), np.asarray(theirs))


@pytest.mark.parametrize("reduce", [0, 1, 2, 3])
def test_jpeg_reductions(reduce: int) -> None:
    picture = smooth(301, 203)
    data = encoded(picture, "jpeg", quality=95, subsampling=0)
    frame = Frame(0, 0, 301 / 2**reduce, 203 / 2**reduce)
    answer = render(piece(data, "jpeg", frame, reduce=reduce), job(30, 20), ENCODING)
    theirs = np.asarray(Image.fromarray(picture).resize((30, 20), Image.Resampling.LANCZOS))
    assert mean_difference(pixels_of(answer.data), theirs) <= 1


@pytest.mark.parametrize("reduce", [0, 1, 3])
def test_jpegs_of_inks_are_shrunk_too(reduce: int) -> None:
    inks = Image.fromarray(smooth(301, 203, 4), "CMYK")
    data = encoded(inks, "jpeg", quality=95)
    frame = Frame(0, 0, 301 / 2**reduce, 203 / 2**reduce)
    ours = render(piece(data, "jpeg", frame, reduce=reduce), job(30, 20), ENCODING)
    image = pyvips.Image.jpegload_buffer(data)
    theirs = image.icc_transform("srgb", input_profile="cmyk").resize(30 / 301, vscale=20 / 203).numpy()
    assert mean_difference(pixels_of(ours.data), theirs) <= 2


@pytest.mark.parametrize("side", [16, 50, 97])
def test_inks_are_shrunk_as_the_colours_that_they_make(side: int) -> None:
    # Hard edges between inks are where averages of inks and of colours differ most.
    few = np.random.default_rng(3).integers(0, 256, (12, 12, 4), dtype=np.uint8)
    inks = np.kron(few, np.ones((25, 25, 1), np.uint8))
    data = encoded(Image.fromarray(inks, "CMYK"), "tiff")
    ours = render(piece(data, "tiff", (0, 0, 300, 300)), job(side, side), ENCODING)
    theirs = pyvips.Image.tiffload_buffer(data).icc_transform("srgb", input_profile="cmyk").resize(side / 300).numpy()
    assert mean_difference(pixels_of(ours.data), theirs) <= 2


P3 = bytes(pyvips.Image.profile_load("p3"))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param("jpeg", encoded(PICTURE, "jpeg", quality=98, subsampling=0, icc_profile=P3), id="jpeg"),
        pytest.param("png", encoded(PICTURE, "png", icc_profile=P3), id="png"),
        pytest.param("webp", encoded(PICTURE, "webp", lossless=True, icc_profile=P3), id="webp"),
        pytest.param("avif", encoded(PICTURE, "avif", quality=100, subsampling="4:4:4", icc_profile=P3), id="avif"),
        pytest.param("tiff", encoded(PICTURE, "tiff", icc_profile=P3), id="tiff"),
        pytest.param(
            "tiff",
            rasters.to_vips(PICTURE).tiffsave_buffer(compression="jpeg", Q=98, tile=True, profile="p3"),
            id="jpeg tiles",
        ),
    ],
)
@pytest.mark.parametrize("size", [Size(300, 200), Size(120, 80), Size(450, 300)], ids=str)
def test_profiles_are_applied_and_dropped(kind: Format, data: bytes, size: Size) -> None:
    answer = render(piece(data, kind, (0, 0, 300, 200)), job(size.width, size.height), ENCODING)
    p3, srgb = ImageCms.ImageCmsProfile(io.BytesIO(P3)), ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    upright = ImageCms.profileToProfile(Image.fromarray(PICTURE), p3, srgb, renderingIntent=intent)
    theirs = np.asarray(upright.resize((size.width, size.height), Image.Resampling.LANCZOS))
    assert mean_difference(pixels_of(answer.data), theirs) <= 2
    assert "icc_profile" not in opened(answer.data).info


KEEPING = replace(ENCODING, keep_profile=True)
LONG = (len(P3) + 40_000).to_bytes(4) + P3[4:] + bytes(40_000)


@pytest.mark.parametrize("output", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("size", [Size(300, 200), Size(120, 80), Size(450, 300)], ids=str)
def test_profiles_are_kept_where_that_is_asked(size: Size, output: OutputFormat) -> None:
    master = piece(encoded(PICTURE, "png", icc_profile=P3), "png", (0, 0, 300, 200))
    careful = replace(KEEPING, jpeg_quality=98, webp_quality=98, avif_quality=95)
    answer = render(master, job(size.width, size.height, output=output), careful)
    theirs = np.asarray(Image.fromarray(PICTURE).resize((size.width, size.height), Image.Resampling.LANCZOS))
    assert mean_difference(pixels_of(answer.data), theirs) <= (
        1 if output in ("png", "tif") else 4
    )  # transformed, they would be 13 off
    assert opened(answer.data).info["icc_profile"] == P3


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param("jpeg", encoded(PICTURE, "jpeg", quality=98, subsampling=0, icc_profile=P3), id="jpeg"),
        pytest.param("png", encoded(smooth(300, 200, 4), "png", icc_profile=P3), id="opacity"),
        pytest.param("tiff", encoded(PICTURE, "tiff", icc_profile=P3), id="tiff"),
    ],
)
def test_profiles_of_other_masters_are_kept(kind: Format, data: bytes) -> None:
    answer = render(piece(data, kind, (0, 0, 300, 200)), job(300, 200), KEEPING)
    theirs = np.asarray(Image.open(io.BytesIO(data)))
    assert mean_difference(pixels_of(answer.data, opened(answer.data).mode), theirs) <= 2
    assert opened(answer.data).info["icc_profile"] == P3


@pytest.mark.parametrize(
    ("output", "quality"),
    [
        ("jpg", "default"),
        ("png", "default"),
        ("tif", "gray"),
        ("jpg", "bitonal"),
        ("png", "bitonal"),
        ("tif", "bitonal"),
    ],
)
@pytest.mark.parametrize(
    ("size", "density"),
    [(Size(300, 200), 400), (Size(75, 50), 100), (Size(76, 50), 100), (Size(3, 2), 4), (Size(150, 50), None)],
    ids=str,
)
def test_the_resolution_is_kept_too(output: OutputFormat, quality: Quality, size: Size, density: int | None) -> None:
    master = replace(piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), density=400.0)
    asked = replace(job(size.width, size.height, output=output, quality=quality), box=Box(0, 0, 300, 200))
    kept, plain = (opened(render(master, asked, it).data).info.get("dpi") for it in (KEEPING, ENCODING))
    if density is None:
        assert kept == plain
    else:
        assert kept is not None
        assert kept == pytest.approx((density, density), rel=0.02)
        assert kept != plain


@pytest.mark.parametrize(
    ("profile", "asked"),
    [
        pytest.param(P3, job(300, 200, quality="gray"), id="gray"),
        pytest.param(P3, job(300, 200, quality="bitonal"), id="bitonal"),
        pytest.param(P3, job(300, 200, output="gif"), id="GIF"),
        pytest.param(P3, replace(job(300, 200), marks=(Mark(0, 0, 5, 5),)), id="marks"),
        pytest.param(LONG, job(300, 200), id="a long profile"),
        pytest.param(bytes(pyvips.Image.profile_load("srgb")), job(300, 200), id="sRGB"),
        pytest.param(b"no profile at all", job(300, 200), id="broken"),
    ],
)
def test_what_is_made_in_srgb_has_no_profile(profile: bytes, asked: Job) -> None:
    master = piece(encoded(PICTURE, "png", icc_profile=profile), "png", (0, 0, 300, 200))
    kept, plain = render(master, asked, KEEPING), render(master, asked, ENCODING)
    assert "icc_profile" not in opened(kept.data).info
    modes = [opened(it.data).convert("RGB") for it in (kept, plain)]
    assert mean_difference(np.asarray(modes[0]), np.asarray(modes[1])) <= 1


def test_no_tile_of_a_pyramid_has_a_profile() -> None:
    master = piece(encoded(PICTURE, "png", icc_profile=P3), "png", (0, 0, 300, 200))
    cuts = [TileCut(master.crop, Size(300, 200))]
    assert cut_tiles(master, cuts, 512, ENCODING, 1 << 20).channels == 3
    with pytest.raises(Unsupported, match="keep_profile"):
        cut_tiles(master, cuts, 512, KEEPING, 1 << 20)
    plain = piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200))
    assert cut_tiles(plain, cuts, 512, KEEPING, 1 << 20).channels == 3


@pytest.mark.parametrize("orientation", Orientation)
@pytest.mark.parametrize("size", [Size(60, 90), Size(30, 45)], ids=str)
def test_pieces_are_turned_upright(orientation: Orientation, size: Size) -> None:
    if not orientation.swaps_sides:
        size = size.turned
    cut = piece(encoded(PICTURE, "png"), "png", (10, 20, 90, 60), orientation=orientation)
    answer = render(cut, job(size.width, size.height), ENCODING)
    stored = Image.fromarray(PICTURE[20:80, 10:100])
    stored.getexif()[274] = int(orientation)
    theirs = ImageOps.exif_transpose(stored).resize((size.width, size.height), Image.Resampling.LANCZOS)
    assert mean_difference(pixels_of(answer.data), np.asarray(theirs)) <= 0.5


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_mirroring_comes_before_rotation(mirror: bool, quarters: int) -> None:
    asked = job(300, 200, mirror=mirror, angle=90.0 * quarters)
    answer = render(piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), asked, ENCODING)
    first = PICTURE[:, ::-1] if mirror else PICTURE
    assert np.array_equal(pixels_of(answer.data), np.rot90(first, -quarters))


@pytest.mark.parametrize(
    ("output", "mode", "corner"),
    [
        ("jpg", "RGB", 255),
        ("png", "RGBA", 0),
        ("webp", "RGBA", 0),
        ("tif", "RGBA", 0),
        ("gif", "RGBA", 0),
        ("avif", "RGBA", 0),
    ],
)
def test_corners_are_transparent_or_white(output: OutputFormat, mode: str, corner: int) -> None:
    asked = job(300, 200, angle=30, output=output)
    answer = render(piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), asked, ENCODING)
    pixels = pixels_of(answer.data, mode)
    assert (np.abs(pixels[[0, 0, -1, -1], [0, -1, 0, -1]][:, -1].astype(int) - corner) <= 2).all()
    assert (pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, 3:] == 255).all()


@pytest.mark.parametrize("size", [Size(300, 200), Size(101, 67)], ids=str)
def test_transparency_is_kept_or_laid_on_white(size: Size) -> None:
    picture = smooth(300, 200, 4)
    cut = piece(encoded(picture, "png"), "png", (0, 0, 300, 200))
    kept = render(cut, job(size.width, size.height), ENCODING)
    theirs = Image.fromarray(picture).resize((size.width, size.height), Image.Resampling.LANCZOS)
    visible = np.asarray(theirs)[..., 3] > 32
    assert mean_difference(pixels_of(kept.data, "RGBA")[visible], np.asarray(theirs)[visible]) <= 2
    flat = render(cut, job(size.width, size.height, output="jpg"), Encoding(jpeg_quality=98))
    white = Image.new("RGBA", theirs.size, "white")
    white.alpha_composite(theirs)
    assert mean_difference(pixels_of(flat.data), np.asarray(white.convert("RGB"))) <= 2


def test_bitonal_is_black_and_white() -> None:
    asked = job(300, 200, quality="bitonal")
    answer = render(piece(encoded(GREY, "png"), "png", (0, 0, 300, 200)), asked, ENCODING)
    assert np.array_equal(np.asarray(opened(answer.data)), GREY[..., 0] >= 128)


def test_gray_is_the_lightness_that_libvips_sees() -> None:
    asked = job(300, 200, quality="gray")
    answer = render(piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), asked, ENCODING)
    theirs = rasters.to_vips(PICTURE).colourspace("b-w").numpy()
    assert mean_difference(np.asarray(opened(answer.data)), theirs) <= 1


MASTERS = [
    pytest.param("jpeg", encoded(smooth(640, 480), "jpeg", quality=95), id="jpeg"),
    pytest.param("png", encoded(smooth(640, 480), "png"), id="png"),
    pytest.param("png", encoded(smooth(640, 480, 4), "png"), id="png with alpha"),
    pytest.param("tiff", encoded(smooth(640, 480), "tiff"), id="tiff"),
    pytest.param("jp2", encoded(smooth(640, 480), "jpeg2000"), id="jp2"),
    pytest.param("avif", encoded(smooth(640, 480), "avif"), id="avif"),
    pytest.param("bmp", encoded(smooth(640, 480), "bmp"), id="bmp"),
]


@pytest.mark.parametrize(("kind", "data"), MASTERS)
@pytest.mark.parametrize("orientation", [Orientation.UPRIGHT, Orientation.TURN_90])
def test_several_sizes_of_one_decode_are_like_single_ones(kind: Format, data: bytes, orientation: Orientation) -> None:
    sizes = [Size(100, 75), Size(400, 300), Size(300, 225), Size(32, 24), Size(200, 150), Size(100, 75)]
    jobs = [job(size.width, size.height) for size in sizes]
    if orientation.swaps_sides:
        jobs = [job(size.height, size.width) for size in sizes]
    master = piece(data, kind, (0, 0, 640, 480), orientation=orientation)
    together = render_all(master, jobs, ENCODING)
    assert [opened(answer.data).size for answer in together] == [(it.size.width, it.size.height) for it in jobs]
    for one, wanted in zip(together, jobs, strict=True):
        alone = render(master, wanted, ENCODING)
        ours, theirs = (opened(answer.data).convert("RGBA").convert("RGBa") for answer in (one, alone))
        assert mean_difference(np.asarray(ours), np.asarray(theirs)) <= 1


def test_a_size_that_the_format_cannot_hold_is_the_callers_mistake() -> None:
    with pytest.raises(BadRequest, match="at most 16383 pixels a side"):
        render(piece(b"never looked at", "png", (0, 0, 1, 1)), job(16384, 1, output="webp"), ENCODING)
    with pytest.raises(BadRequest, match="at most 16384 pixels a side"):
        render(piece(b"never looked at", "png", (0, 0, 1, 1)), job(16385, 1, output="avif"), ENCODING)


@pytest.mark.parametrize(("kind", "data"), MASTERS)
def test_too_many_pixels_are_refused_by_the_header(kind: Format, data: bytes) -> None:
    with pytest.raises(TooExpensive, match="640×480 pixels to decode"):
        render(piece(data[: len(data) * 3 // 4], kind, (0, 0, 640, 480)), job(10, 10), ENCODING, 640 * 480 - 1)


@pytest.mark.parametrize(("kind", "data"), MASTERS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_torn_masters_are_refused(kind: Format, data: bytes, share: float) -> None:
    with pytest.raises(MasterError):
        render(piece(data[: int(len(data) * share)], kind, (0, 0, 640, 480)), job(64, 48), ENCODING)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "jp2", "webp", "gif", "avif", "bmp"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 1000, id="zeros"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", id="svg"),
        pytest.param(bytes(range(256)) * 20, id="anything"),
    ],
)
def test_what_is_no_picture_is_refused(kind: Format, data: bytes) -> None:
    with pytest.raises(MasterError):
        render(piece(data, kind, (0, 0, 64, 48)), job(64, 48), ENCODING)


@pytest.mark.parametrize(("kind", "data"), MASTERS)
def test_damaged_masters_give_pixels_or_a_typed_error(kind: Format, data: bytes) -> None:
    random = np.random.default_rng(20)
    for _ in range(20):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 1 + random.integers(8)):
            damaged[at] = random.integers(256)
        with contextlib.suppress(MasterError):
            answer = render(piece(bytes(damaged), kind, (0, 0, 640, 480)), job(64, 48), ENCODING, 10_000_000)
            assert opened(answer.data).size == (64, 48)


@pytest.mark.service
async def test_a_decoder_process_renders() -> None:
    master, asked = piece(encoded(PICTURE, "png"), "png", (0, 0, 300, 200)), job(30, 20)
    async with Workers(1, memory_bytes=2 << 30, spare=0) as workers:
        answer = await workers.run(render, master, asked, ENCODING, deadline=Deadline.after(60))
        assert answer.data == render(master, asked, ENCODING).data
        empty = piece(b"", "png", (0, 0, 1, 1))
        with pytest.raises(MasterError):
            await workers.run(render, empty, asked, ENCODING, deadline=Deadline.after(60))
    assert answer.decode_ms > 0
    assert answer.encode_ms > 0
