"""The masters are what their names promise, and the oracle reads them right."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from fixtures import codestreams, designs, make, profiles
from fixtures.brushes import bytes_of
from fixtures.validator import SQUARE, colours, validator_image
from special.geometry import Box, Size
from tests.support.oracle import mean_difference, rendered

MASTERS = make.FOLDER


def markers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker segments of a codestream's main header and of each tile-part's."""
    at = data.index(b"\xff\x4f\xff\x51") + 2
    while data[at : at + 2] != b"\xff\xd9":
        code, length = struct.unpack_from(">HH", data, at)
        yield code, data[at + 4 : at + 2 + length]
        if code == 0xFF90:
            next_part = at + struct.unpack_from(">I", data, at + 6)[0]
        at += 2 + length
        if data[at : at + 2] == b"\xff\x93":
            at = next_part


SOT, COD, PLT = 0xFF90, 0xFF52, 0xFF58


def test_every_master_is_there_and_no_other_file():
    assert {path.name for path in MASTERS.iterdir()} == set(make.MASTERS)


def test_masters_and_codestreams_stay_small():
    files = [*MASTERS.iterdir(), *codestreams.FOLDER.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 2_500_000


def test_the_map_follows_the_archives_recipe():
    segments = list(markers((MASTERS / "map.jp2").read_bytes()))
    [cod] = [body for code, body in segments if code == COD]
    assert cod[0] == 0b011  # precincts are given, SOP is used
    assert cod[1] == 2  # RPCL
    assert cod[5] == 7  # levels
    assert cod[6:8] == bytes((4, 4))  # code-blocks of 64 by 64
    assert cod[10:] == bytes((0x66, 0x66, 0x66, 0x77, 0x77, 0x88, 0x88, 0x88))  # precincts, the smallest level first
    parts = [body for code, body in segments if code == SOT]
    assert [(body[6], body[7]) for body in parts] == [(number, 8) for number in range(8)]
    assert sum(code == PLT for code, _ in segments) >= 8


def test_the_phases_are_tiled_deep_and_without_loss():
    segments = list(markers((MASTERS / "phases.jp2").read_bytes()))
    [cod] = [body for code, body in segments if code == COD]
    assert cod[9] == 1  # the reversible transform
    assert sum(code == SOT for code, _ in segments) == 4
    with Image.open(MASTERS / "phases.jp2") as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), designs.moon_phases())


def test_the_mosaic_has_a_palette():
    indices, entries = designs.penrose_mosaic()
    with Image.open(MASTERS / "mosaic.jp2") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image.convert("RGB")), bytes_of(np.array(entries, np.float32))[indices])


TIFFS = [
    pytest.param("herbarium.tif", False, 4, "JPEG", "YCBCR", (256, 256), 8, id="JPEG pyramid"),
    pytest.param("stars.tif", True, 3, "ADOBE_DEFLATE", "RGB", (256, 256), 16, id="deflated BigTIFF pyramid"),
    pytest.param("tiles.tif", False, 1, "ADOBE_DEFLATE", "SEPARATED", None, 8, id="strips of CMYK"),
]


@pytest.mark.parametrize(("name", "big", "at_least", "compression", "photometric", "tile", "bits"), TIFFS)
def test_a_tiff_is_laid_out_as_said(name, big, at_least, compression, photometric, tile, bits):
    with tifffile.TiffFile(MASTERS / name) as file:
        assert file.is_bigtiff is big
        assert len(file.pages) >= at_least
        for page in file.pages:
            assert page.compression.name == compression
            assert page.photometric.name == photometric
            assert page.bitspersample == bits
            assert (page.tile or None) == tile
        widths = [page.imagewidth for page in file.pages]
        assert widths == [widths[0] >> level for level in range(len(widths))]


def test_the_tiles_carry_the_press_profile():
    with Image.open(MASTERS / "tiles.tif") as image:
        assert image.mode == "CMYK"
        assert image.info["icc_profile"] == profiles.press()


def test_the_press_profile_says_what_its_formula_says():
    random = np.random.default_rng(5)
    knots = random.integers(0, profiles.STEPS, (40, 1, 4)) / (profiles.STEPS - 1)
    inks = pyvips.Image.new_from_array((knots * 255).astype(np.uint8)).copy(interpretation="cmyk")
    inks.set_type(pyvips.GValue.blob_type, "icc-profile-data", profiles.press())
    lab = inks.icc_import(embedded=True, intent="relative", pcs="lab").numpy()
    assert np.abs(lab - profiles.inks_to_lab(knots)).max() < 1.5  # steps of 8 bits, and 51 steps of ink are 51.0


def test_the_mountains_lie_on_their_side_in_display_p3():
    with Image.open(MASTERS / "mountains.jpg") as image:
        assert image.getexif()[0x0112] == make.TURN_90
        assert image.size == (2000, 3000)
        assert image.info["icc_profile"] == profiles.display_p3()


def test_the_manuscript_is_progressive_and_the_moon_grey():
    with Image.open(MASTERS / "manuscript.jpg") as manuscript, Image.open(MASTERS / "moon.jpg") as moon:
        assert manuscript.info["progressive"] == 1
        assert moon.mode == "L"
        assert "progressive" not in moon.info


def test_the_rest_are_what_their_suffixes_say():
    modes = {}
    for name in ("ammonite.webp", "dragon.gif", "rosette.png"):
        with Image.open(MASTERS / name) as image:
            modes[image.format] = (image.mode, image.info.get("transparency"))
    assert modes == {"WEBP": ("RGB", None), "GIF": ("P", 0), "PNG": ("RGBA", None)}
    deep = pyvips.Image.new_from_file(str(MASTERS / "seafloor.png"))
    assert (deep.format, deep.bands) == ("ushort", 3)
    assert np.array_equal(deep.numpy(), designs.sea_floor())


def test_the_validators_image_has_the_validators_colours():
    pixels = np.asarray(Image.open(io.BytesIO(validator_image())))
    assert pixels.shape == (1000, 1000, 3)
    for column in range(10):
        for row in range(10):
            square = pixels[row * SQUARE : (row + 1) * SQUARE, column * SQUARE : (column + 1) * SQUARE]
            assert (square == colours()[column][row]).all()


@pytest.mark.parametrize("name", sorted(make.MASTERS))
def test_the_oracle_reads_every_master_upright_in_8_bits(name: str):
    whole = rendered(MASTERS / name)
    assert whole.dtype == np.uint8
    assert whole.shape[2] == (4 if name in ("rosette.png", "dragon.gif") else 3)
    height, width = whole.shape[:2]
    half = rendered(MASTERS / name, size=Size(width // 2, height // 2))
    assert half.shape[:2] == (height // 2, width // 2)


def test_the_oracle_turns_photographs_upright_and_into_srgb():
    with Image.open(MASTERS / "mountains.jpg") as stored:
        unconverted = np.asarray(stored.transpose(Image.Transpose.ROTATE_270))[::7, ::7]
    to_srgb = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])  # from Display P3
    light = np.where(unconverted > 10, ((unconverted / 255 + 0.055) / 1.055) ** 2.4, unconverted / 255 / 12.92)
    light = (light @ to_srgb.T).clip(0, 1)
    converted = 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    assert mean_difference(rendered(MASTERS / "mountains.jpg")[::7, ::7], converted) < 0.5
    assert mean_difference(unconverted, converted) > 1.4


def test_the_oracle_cuts_then_shrinks_then_mirrors_then_turns():
    path = MASTERS / "rosette.png"
    part = rendered(path)[100:500, 40:340]
    assert np.array_equal(rendered(path, Box(40, 100, 300, 400)), part)
    turned = rendered(path, Box(40, 100, 300, 400), mirror=True, quarter_turns=1)
    assert np.array_equal(turned, np.rot90(part[:, ::-1], -1))
    small = rendered(path, Box(40, 100, 300, 400), Size(150, 200))
    with Image.open(path) as image:
        pillows = np.asarray(image.crop((40, 100, 340, 500)).resize((150, 200), Image.Resampling.LANCZOS))
    visible = (small[..., 3] > 8) & (pillows[..., 3] > 8)
    assert mean_difference(small[visible], pillows[visible]) < 1


def test_difference_of_pictures():
    black, white = np.zeros((2, 3), np.uint8), np.full((2, 3), 255, np.uint8)
    assert mean_difference(black, white) == 255
    with pytest.raises(AssertionError, match="is not"):
        mean_difference(black, white[:1])


def test_a_palette_entry_of_the_dragon_is_seen_through():
    dragon = rendered(MASTERS / "dragon.gif")
    assert set(np.unique(dragon[..., 3])) == {0, 255}


def test_the_folder_of_masters_is_the_one_that_is_served():
    assert Path("fixtures/masters") == MASTERS.relative_to(Path(__file__).parents[1])
