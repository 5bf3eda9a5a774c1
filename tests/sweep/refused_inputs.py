"""Masters that are not shown, and what their refusal must name."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fixtures.tiff_pages import Page, put_together
from tests.support import pdfs
from tests.sweep import jp2_inputs
from tests.sweep.pictures import Input

SIDE = 16


def page(**fields: tuple[int, tuple[float, ...]]) -> bytes:
    """A TIFF of one grey strip, with other fields: t259=(3, (34661,))."""
    usual: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (SIDE,)),
        257: (4, (SIDE,)),
        258: (3, (8,)),
        259: (3, (1,)),
        262: (3, (1,)),
        277: (3, (1,)),
        278: (4, (SIDE,)),
    }
    usual |= {int(name[1:]): value for name, value in fields.items()}
    return put_together([Page(usual, [bytes(SIDE * SIDE * 16)], tiled=False)])


def inputs() -> Iterator[Input]:
    tiffs = {
        "jbig": ("34661 (JBIG)", page(t259=(3, (34661,)))),
        "logluv": ("32845 (LogLuv)", page(t262=(3, (32845,)))),
        "camera": ("camera raw", page(t262=(3, (32803,)))),
        "complex": ("complex fractions", page(t339=(3, (6,)), t258=(3, (64,)))),
        "float8": ("fractions", page(t339=(3, (3,)))),
        "inks": ("inks other than CMYK", page(t262=(3, (5,)), t277=(3, (4,)), t258=(3, (8,) * 4), t332=(3, (2,)))),
        "depths": ("of one depth", page(t262=(3, (2,)), t277=(3, (3,)), t258=(3, (5, 6, 5)))),
        "few": ("1 samples in the colour model RGB", page(t262=(3, (2,)))),
        "fax": ("compressed as fax", page(t259=(3, (4,)))),
        "jpeg10": ("up to 4 of 8 bits", page(t259=(3, (7,)), t258=(3, (10,)))),
        "old jpeg": ("6 (old-style JPEG)", page(t259=(3, (6,)))),
        "deep palette": ("colour model PALETTE", page(t262=(3, (3,)), t258=(3, (16,)))),
        "predictor": ("predictor 3", page(t259=(3, (8,)), t317=(3, (3,)), t258=(3, (32,)))),
        "predictor 9": ("predictor 9", page(t259=(3, (8,)), t317=(3, (9,)))),
        "no palette": ("a palette of 0 values; 8 bits need 768", page(t262=(3, (3,)))),
        "long palette": (
            "16 bits in the colour model PALETTE",
            page(t262=(3, (3,)), t258=(3, (16,)), t320=(3, (0,) * 196608)),
        ),
        "planar 3": ("planar configuration 3", page(t284=(3, (3,)))),
        "lerc of 4 bits": ("4 bits in LERC", page(t259=(3, (34887,)), t258=(3, (4,)))),
        "lab in webp": ("CIELAB, compressed as WebP", page(t259=(3, (50001,)), t262=(3, (8,)), t277=(3, (3,)))),
        "subsampled 3": ("subsampled by 3×3", page(t262=(3, (6,)), t277=(3, (3,)), t530=(3, (3, 3)))),
        "no offsets": ("no STRIP_OFFSETS", page().replace(struct.pack("<H", 273), struct.pack("<H", 275), 1)),
    }
    for name, (reason, data) in tiffs.items():
        yield Input(f"{name.replace(' ', '-')}.tif", data, None, refusal=reason)
    code = jp2_inputs.coded(np.zeros((SIDE, SIDE, 3), np.uint8))
    for number, reason in {1: "YCbCr(1)", 13: "YCCK", 24: "e-sYCC", 99: "99, an unknown one"}.items():
        data = jp2_inputs.jp2(code, SIDE, SIDE, 3, 8, jp2_inputs.enumerated(number))
        yield Input(f"space-{number}.jp2", data, None, refusal=reason)
    srgb = jp2_inputs.enumerated(16)
    whole = jp2_inputs.jp2(code, SIDE, SIDE, 3, 8, srgb)
    cod = code.index(b"\xff\x52")
    wavelet = code[: cod + 13] + b"\2" + code[cod + 14 :]
    of_four = jp2_inputs.jp2(code, SIDE, SIDE, 3, 8, srgb + jp2_inputs.defined(0, 0, 0, 1))
    for name, reason, data in (
        ("wavelet", "a transformation beyond part 1", jp2_inputs.jp2(wavelet, SIDE, SIDE, 3, 8, srgb)),
        ("four-channels-defined", "of 4 entries does not fit 3 channels", of_four),
        ("no-file-type", "where the file type box", whole.replace(b"ftyp", b"free", 1)),
        ("deep", "samples of 128 bits", whole.replace(b"\0\3\7\1\1\7", b"\0\3\x7f\1\1\7", 1)),
    ):
        yield Input(f"{name}.jp2", data, None, refusal=reason)
    picture = Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8))
    file = io.BytesIO()
    picture.save(file, "PPM")
    yield Input("other.ppm", file.getvalue(), None, refusal="starts with b'P6")
    yield Input("other.psd", b"8BPS\0\1" + bytes(100), None, refusal="Photoshop")
    locked = pdfs.written(pdfs.document([pdfs.Page()]), trailer="/Encrypt 9 0 R")
    yield Input("locked.pdf", locked, None, refusal="the PDF is encrypted")
    file = io.BytesIO()
    picture.save(file, "JPEG")
    arithmetic = file.getvalue().replace(b"\xff\xc0", b"\xff\xc9")
    yield Input("arithmetic.jpg", arithmetic, None, refusal="arithmetic-coded")
    yield Input("letter.txt", b"Dear Sir or Madam, " * 10, None, refusal="starts with b'Dear")
