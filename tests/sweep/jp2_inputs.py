"""JPEG 2000 files of every kind: boxes by hand, codestreams without loss by OpenJPEG, through pillow, and by OpenJPH.

Encoding is the one thing that is not written here: what an encoder was given without loss is what must come back.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from tests.sweep import other_inputs, pictures
from tests.sweep.pictures import SIZES, Input, Pixels, Sizes

GREY, SRGB, SYCC, YCC, CMY, INKS, CIELAB, WHITE_0 = 17, 16, 18, 3, 11, 12, 14, 0
SOT, EOC = b"\xff\x90\0\x0a", b"\xff\xd9"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def enumerated(number: int, parameters: bytes = b"") -> bytes:
    return box(b"colr", struct.pack(">BBBI", 1, 0, 0, number) + parameters)


def profiled(profile: bytes, method: int = 2) -> bytes:
    return box(b"colr", bytes((method, 0, 0)) + profile)


def defined(*kinds: int) -> bytes:
    """A channel definition: 0 for colours, 1 for opacity."""
    entries = b"".join(
        struct.pack(">HHH", number, kind, number + 1 if kind == 0 else 0) for number, kind in enumerate(kinds)
    )
    return box(b"cdef", struct.pack(">H", len(kinds)) + entries)


def jp2(
    code: bytes,
    width: int,
    height: int,
    components: int,
    bits: int,
    colours: bytes,
    *,
    brand: bytes = b"jp2 ",
    more: bytes = b"",
) -> bytes:
    """A file; `more` are boxes between the header and the codestream."""
    head = box(b"ihdr", struct.pack(">IIHBBBB", height, width, components, bits - 1, 7, 0, 0)) + colours
    return b"".join(
        (
            box(b"jP  ", b"\r\n\x87\n"),
            box(b"ftyp", brand + b"\0\0\0\0" + brand),
            box(b"jp2h", head),
            more,
            box(b"jp2c", code),
        )
    )


def coded(samples: Pixels, **options: Any) -> bytes:
    """A codestream without loss and without mixing of components, of 1 to 4 components of 8 bits."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    plain = np.ascontiguousarray(samples.squeeze(axis=2) if mode == "L" else samples)
    file = io.BytesIO()
    Image.fromarray(plain, mode).save(file, "JPEG2000", no_jp2=True, irreversible=False, mct=0, **options)
    return file.getvalue()


def coded_deep(samples: np.ndarray[Any, Any], bits: int) -> bytes:
    """The same of other depths."""
    import imagecodecs

    plain = np.ascontiguousarray(samples.squeeze(axis=2) if samples.shape[2] == 1 else samples)
    return bytes(
        imagecodecs.jpeg2k_encode(
            plain, level=0, codecformat="j2k", bitspersample=bits, resolutions=5, reversible=True, mct=False
        )
    )


def high_throughput(samples: Pixels) -> bytes:
    """An HTJ2K codestream without loss."""
    import imagecodecs

    plain = np.ascontiguousarray(samples.squeeze(axis=2) if samples.shape[2] == 1 else samples)
    return bytes(imagecodecs.htj2k_encode(plain, reversible=True))


def miscounted(code: bytes) -> bytes:
    """Every SOT says one tile-part less than there are."""
    out = bytearray(code)
    at = code.index(SOT)
    while out[at : at + 4] == SOT:
        out[at + 11] -= out[at + 11] > 1
        at += struct.unpack_from(">I", code, at + 6)[0]
    return bytes(out)


def exif(orientation: int) -> bytes:
    """A box with an Exif block."""
    return box(b"uuid", b"JpgTiffExif->JP2" + other_inputs.exif(orientation, 3, "<"))


def draw(number: int, profiles: dict[str, bytes], press: bytes, sizes: Sizes = SIZES) -> Input:
    """An input that must be shown, by its number."""
    rng = np.random.default_rng([2000, number])

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    width, height = sizes[rng.integers(len(sizes))]
    space = pick(GREY, SRGB, SRGB, SYCC, YCC, CMY, INKS, CIELAB, WHITE_0, "icc", "any icc", "junk", "wrong", "raw")
    bits = pick(8, 8, 8, 1, 2, 4, 10, 12, 16) if space in (GREY, SRGB, WHITE_0) else 8
    kind = "usual" if bits == 8 else "deep"
    colours = {GREY: 1, WHITE_0: 1, INKS: 4}.get(space, 3)
    shown = pictures.shades(width, height, colours, rng)
    numbers = pictures.steps(shown, bits)
    eight = pictures.shown_8(numbers, bits)
    samples = numbers.astype(np.uint8 if bits <= 8 else np.uint16)
    said, pixels, tolerance, mean = b"", eight, 1.0, 0.6
    match space:
        case "icc" | "any icc":
            said, pixels = (
                profiled(profiles["adobe"], 2 if space == "icc" else 3),
                pictures.by_profile(eight, profiles["adobe"]),
            )
            tolerance, mean = 4.0, 1.0
        case "junk":
            said = profiled(profiles["junk"])
        case "wrong":
            said = profiled(profiles["grey"])
        case "raw":
            pass
        case _:
            said = enumerated(space)
    if space in (SYCC, YCC):
        samples = pictures.to_ycc(eight)
        pixels = pictures.from_ycc(samples)
    elif space == CIELAB:
        lab = pictures.to_lab(eight)
        pixels = pictures.from_lab(lab)
        samples = lab ^ np.array([0, 128, 128], np.uint8)
        said = enumerated(space, struct.pack(">7I", 100, 0, 255, 128, 255, 128, 0x00443530))
        tolerance, mean = 4.0, 1.0
    elif space in (CMY, WHITE_0):
        pixels = 255 - eight
    elif space == INKS:
        pixels = pictures.by_profile(eight, press, "CMYK")
        tolerance, mean = 4.0, 1.0
    alpha = pick("", "", "", "opacity", "something") if kind == "usual" and space not in (INKS, "raw") else ""
    if alpha:
        more = np.rint(80 + 175 * pictures.shades(width, height, 1, rng)).astype(np.uint8)
        samples = np.concatenate((samples, more), axis=2)
        if alpha == "opacity":
            said += defined(*[0] * colours, 1)
            pixels = np.concatenate((pixels, more), axis=2)
    orientation = 1 if space == "raw" else pick(1, 1, 1, *range(2, 9))
    samples = np.ascontiguousarray(pictures.stored(samples, orientation))
    if kind == "deep":
        code, how = coded_deep(samples, bits), "deep"
    elif not alpha and rng.random() < 0.15:
        code, how = high_throughput(samples), "ht"
    else:
        options: dict[str, Any] = {
            "num_resolutions": pick(1, 3, 6),
            "progression": pick("LRCP", "RLCP", "RPCL", "PCRL", "CPRL"),
        }
        if rng.random() < 0.4:
            options["tile_size"] = pick((256, 256), (200, 300), (64, 64))
        if rng.random() < 0.3:
            options["precinct_size"] = (128, 128)
            options["codeblock_size"] = (64, 64)
        if rng.random() < 0.3:
            options["plt"] = True
        code = coded(samples, **options)
        how = "-".join(str(value).replace(" ", "") for value in options.values())
    ending = pick("", "", "", "no end")
    if ending:
        code = code.removesuffix(EOC)
    high, wide, components = samples.shape
    turned = exif(orientation) if orientation > 1 else b""
    brand = pick(b"jp2 ", b"jpx ")
    data = code if space == "raw" else jp2(code, wide, high, components, bits, said, brand=brand, more=turned)
    name = (
        f"{number}-{space}-b{bits}-{how}-{alpha or 'opaque'}-o{orientation}{'-noeoc' * bool(ending)}-{width}x{height}"
    )
    return Input(f"{name}.jp2".replace(" ", "_"), data, pixels, tolerance, mean, is_wavelet=True)
