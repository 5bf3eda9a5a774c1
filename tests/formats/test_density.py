"""How many pixels an inch has, as masters of each format say it, and as other software has written it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from special import formats
from special.formats import density
from special.formats.parser import solve

MAP = Path(__file__).parents[2] / "fixtures" / "masters" / "map.jp2"
EXIF_300 = Image.Exif()
EXIF_300[282], EXIF_300[283], EXIF_300[296] = 300.0, 300.0, 2


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, kind, **options)
    return file.getvalue()


def tiff(across: float, down: float, unit: str = "inch") -> bytes:
    """A pyramid of tiles by libvips, which takes pixels per millimetre."""
    picture = pyvips.Image.new_from_array(np.zeros((600, 900, 3), np.uint8))
    return picture.tiffsave_buffer(
        tile=True, pyramid=True, resunit=unit, xres=across / 25.4, yres=down / 25.4, compression="jpeg"
    )


def jp2(*boxes: tuple[bytes, bytes]) -> bytes:
    """A master with boxes of resolution in its header."""
    data = MAP.read_bytes()
    at = data.index(b"jp2h") - 4
    length = int.from_bytes(data[at : at + 4])
    inside = b"".join(struct.pack(">I4s", 8 + len(body), kind) + body for kind, body in boxes)
    added = struct.pack(">I4s", 8 + len(inside), b"res ") + inside
    return data[:at] + struct.pack(">I", length + len(added)) + data[at + 4 : at + length] + added + data[at + length :]


def resolution(per_metre: int, power: int = 0) -> bytes:
    return struct.pack(">HHHHbb", per_metre, 1, per_metre, 1, power, power)


def stated(data: bytes) -> float | None:
    layout = solve(formats.parse(len(data)), data)
    assert formats.load(layout.dump()).density == layout.density
    return layout.density


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(tiff(300, 300), 300, id="TIFF"),
        pytest.param(tiff(300, 300, "cm"), 300, id="TIFF in centimetres"),
        pytest.param(tiff(300, 150), None, id="TIFF of a fax"),
        pytest.param(saved("TIFF"), None, id="TIFF without"),
        pytest.param(saved("TIFF", resolution=300, resolution_unit=1), None, id="TIFF of no unit"),
        pytest.param(saved("TIFF", resolution=300), 300, id="TIFF in strips"),
        pytest.param(saved("JPEG", dpi=(400, 400)), 400, id="JFIF"),
        pytest.param(saved("JPEG"), None, id="JFIF of no unit"),
        pytest.param(saved("JPEG", exif=EXIF_300), 300, id="JPEG with Exif"),
        pytest.param(saved("PNG", dpi=(600, 600)), 600, id="PNG"),
        pytest.param(saved("PNG", exif=EXIF_300), 300, id="PNG with Exif"),
        pytest.param(saved("PNG"), None, id="PNG without"),
        pytest.param(saved("WEBP", exif=EXIF_300), 300, id="WebP with Exif"),
        pytest.param(saved("BMP", dpi=(300, 300)), 300, id="BMP"),
        pytest.param(saved("GIF"), None, id="GIF"),
        pytest.param(jp2((b"resc", resolution(11811))), 300, id="JP2"),
        pytest.param(jp2((b"resd", resolution(2835)), (b"resc", resolution(2362, 1))), 600, id="JP2, that of the scan"),
        pytest.param(jp2((b"resd", resolution(2835))), 72, id="JP2, that of a screen"),
        pytest.param(jp2((b"resc", bytes(10))), None, id="JP2 divided by zero"),
        pytest.param(jp2((b"resc", b"\1")), None, id="JP2 cut short"),
        pytest.param(MAP.read_bytes(), None, id="JP2 without"),
    ],
)
def test_pixels_per_inch(data: bytes, expected: float | None) -> None:
    found = stated(data)
    assert found == (expected if expected is None else pytest.approx(expected, rel=0.001))


@pytest.mark.parametrize(
    ("across", "down"),
    [(0, 0), (-300, -300), (300, 310), (float("nan"), 300), (float("inf"), float("inf")), (1e7, 1e7)],
)
def test_what_makes_no_sense_is_not_said(across: float, down: float) -> None:
    assert density.per_inch(across, down, 1.0) is None


def test_a_broken_box_of_resolution_hides_no_picture() -> None:
    data = jp2((b"resc", resolution(11811)))
    at = data.index(b"resc") - 4
    broken = data[:at] + struct.pack(">I", 4000) + data[at + 4 :]
    assert stated(broken) is None
