"""Colours of every sort of master, beside libvips' and littleCMS' own."""

from __future__ import annotations

import io

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from special.codecs import colour
from special.codecs.colour import Effect
from special.codecs.raster import from_vips, to_vips
from special.errors import Unsupported
from tests.support.pieces import mean_difference, smooth

P3 = bytes(pyvips.Image.profile_load("p3"))
SRGB = bytes(pyvips.Image.profile_load("srgb"))
PILLOW_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PRESS = bytes(pyvips.Image.profile_load("cmyk"))


def as_image(pixels: np.ndarray, interpretation: str, profile: bytes | None = None) -> pyvips.Image:
    height, width, bands = pixels.shape
    kind = {"uint8": "uchar", "uint16": "ushort", "float32": "float", "uint32": "uint"}[pixels.dtype.name]
    image = pyvips.Image.new_from_memory(pixels.tobytes(), width, height, bands, kind)
    image = image.copy(interpretation=interpretation)
    return image if profile is None else colour.with_profile(image, profile)


def grey_profile(gamma: float) -> bytes:
    """A grey profile of a power curve, laid out by ICC.1:2022, section 7 and 10.6."""

    def s15(value: float) -> bytes:
        return round(value * 65536).to_bytes(4, "big", signed=True)

    white = b"XYZ \0\0\0\0" + s15(0.9642) + s15(1.0) + s15(0.8249)
    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + b"\0\0"
    words = b"desc\0\0\0\0" + (2).to_bytes(4, "big") + b"g\0" + bytes(4 + 4 + 2 + 1 + 67)
    words += bytes(-len(words) % 4)
    tags, body = b"", b""
    start = 128 + 4 + 3 * 12
    for name, data in ((b"wtpt", white), (b"kTRC", curve), (b"desc", words)):
        tags += name + (start + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    head = bytearray(128)
    head[0:4] = (start + len(body)).to_bytes(4, "big")
    head[8:12] = bytes([2, 0x40, 0, 0])
    head[12:24] = b"mntrGRAYXYZ "
    head[36:40] = b"acsp"
    head[68:80] = s15(0.9642) + s15(1.0) + s15(0.8249)
    return bytes(head) + (3).to_bytes(4, "big") + tags + body


@pytest.mark.parametrize(
    ("profile", "channels", "effect"),
    [
        pytest.param(SRGB, 3, Effect.NONE, id="sRGB"),
        pytest.param(PILLOW_SRGB, 3, Effect.NONE, id="sRGB of littleCMS"),
        pytest.param(P3, 3, Effect.SOME, id="Display P3"),
        pytest.param(PRESS, 4, Effect.SOME, id="a press"),
        pytest.param(grey_profile(1.0), 1, Effect.SOME, id="linear grey"),
        pytest.param(grey_profile(2.2), 1, Effect.SOME, id="grey of gamma 2.2"),
        pytest.param(P3, 1, Effect.BROKEN, id="RGB profile of a grey picture"),
        pytest.param(PRESS, 3, Effect.BROKEN, id="press profile of an RGB picture"),
        pytest.param(P3[:200], 3, Effect.NONE, id="truncated, so libvips puts sRGB in its place"),
        pytest.param(b"", 3, Effect.BROKEN, id="empty"),
    ],
)
def test_effect(profile: bytes, channels: int, effect: Effect) -> None:
    assert colour.effect(profile, channels) is effect


def test_rgb_profiles_are_applied_as_littlecms_does() -> None:
    picture = smooth(80, 60)
    ours = from_vips(colour.to_srgb(as_image(picture, "srgb", P3)))
    p3, srgb = (ImageCms.ImageCmsProfile(io.BytesIO(profile)) for profile in (P3, PILLOW_SRGB))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    theirs = ImageCms.profileToProfile(Image.fromarray(picture), p3, srgb, renderingIntent=intent)
    assert mean_difference(ours, np.asarray(theirs)) < 1.0
    assert mean_difference(ours, picture) > 2.0  # so the profile does something


def test_a_profile_that_is_srgb_changes_nothing_and_one_that_is_broken_neither() -> None:
    picture = smooth(80, 60)
    for profile in (SRGB, PILLOW_SRGB, P3[:300]):
        assert np.array_equal(from_vips(colour.to_srgb(as_image(picture, "srgb", profile))), picture)


def test_grey_profiles_are_applied_and_stay_grey() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    ours = from_vips(colour.to_srgb(as_image(ramp, "b-w", grey_profile(1.0))))
    assert ours.shape == (1, 256, 1)
    linear = np.arange(256) / 255
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert mean_difference(ours[0, :, 0], np.round(255 * srgb).astype(np.uint8)) < 1.0


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(channels: int) -> None:
    picture = smooth(60, 40, channels)
    deep = picture.astype(np.uint16) * 257
    ours = from_vips(colour.to_srgb(as_image(deep, "grey16" if channels == 1 else "rgb16")))
    assert np.array_equal(ours, picture)


def test_sixteen_bits_with_a_profile() -> None:
    picture = smooth(60, 40)
    ours = from_vips(colour.to_srgb(as_image(picture.astype(np.uint16) * 257, "rgb16", P3)))
    assert mean_difference(ours, from_vips(colour.to_srgb(as_image(picture, "srgb", P3)))) < 0.5


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(None, id="untagged"),
        pytest.param(PRESS, id="tagged"),
        pytest.param(PRESS[:5000], id="with half a profile"),
        pytest.param(P3, id="with a profile of lights"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_become_colours(profile: bytes | None, dtype: type) -> None:
    picture = smooth(60, 40, 4)
    inks = picture.astype(dtype) * (257 if dtype is np.uint16 else 1)
    image = as_image(inks, "cmyk", profile)
    assert colour.is_ink(image)
    theirs = as_image(picture, "cmyk").icc_transform("srgb", input_profile="cmyk").numpy()
    for ours in (colour.from_inks(image), from_vips(colour.to_srgb(image))):
        assert ours.dtype == np.uint8
        assert mean_difference(ours, theirs) < 1.0


def test_no_ink_is_white_paper() -> None:
    blank = from_vips(colour.to_srgb(as_image(np.zeros((4, 4, 4), np.uint8), "cmyk")))
    assert blank.min() >= 250


@pytest.mark.parametrize("interpretation", ["lab", "xyz", "scrgb", "labq", "labs"])
def test_spaces_that_say_what_they_mean(interpretation: str) -> None:
    picture = smooth(60, 40)
    ours = from_vips(colour.to_srgb(to_vips(picture).colourspace(interpretation)))
    assert mean_difference(ours, picture) < 1.0


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_alpha_is_kept(channels: int, deep: bool) -> None:
    picture = smooth(60, 40, channels)
    samples = picture.astype(np.uint16) * 257 if deep else picture
    name = {(2, False): "b-w", (4, False): "srgb", (2, True): "grey16", (4, True): "rgb16"}[channels, deep]
    assert np.array_equal(from_vips(colour.to_srgb(as_image(samples, name))), picture)


def test_alpha_beside_a_profile() -> None:
    picture = smooth(60, 40, 4)
    ours = from_vips(colour.to_srgb(as_image(picture, "srgb", P3)))
    assert np.array_equal(ours[..., 3], picture[..., 3])
    opaque = from_vips(colour.to_srgb(as_image(np.ascontiguousarray(picture[..., :3]), "srgb", P3)))
    assert np.array_equal(ours[..., :3], opaque)


@pytest.mark.parametrize(
    ("dtype", "interpretation"),
    [pytest.param(np.float32, "b-w", id="floats of no known range"), pytest.param(np.uint32, "b-w", id="32 bits")],
)
def test_samples_without_a_range_are_refused(dtype: type, interpretation: str) -> None:
    with pytest.raises(Unsupported, match="no agreed range"):
        colour.to_srgb(as_image(np.zeros((4, 4, 1), dtype), interpretation))
