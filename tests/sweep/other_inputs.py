"""PNG and GIF written byte by byte; JPEG and WebP at their best by encoders that are not used here otherwise."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests.sweep import pictures, tiff_inputs
from tests.sweep.pictures import SIZES, Input, Pixels, Sizes

GREY, RGB, PALETTE, GREY_OPACITY, RGB_OPACITY = 0, 2, 3, 4, 6


def exif(orientation: int, kind: int, order: str) -> bytes:
    """An Exif block of an orientation as SHORT (3) or LONG (4)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *((orientation, 0) if kind == 3 else (orientation,)))
    return mark + struct.pack(order + "IHHHI", 8, 1, 274, kind, 1) + value + bytes(4)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(rows: list[bytes], pixel_bytes: int, rng: np.random.Generator) -> bytes:
    """Rows with filters by chance: none, the pixel to the left, the row above (W3C PNG section 9)."""
    out, above = bytearray(), np.zeros(len(rows[0]), np.uint8)
    for row in rows:
        numbers = np.frombuffer(row, np.uint8)
        kind = int(rng.integers(3))
        before = np.zeros_like(numbers)
        if kind == 1:
            before[pixel_bytes:] = numbers[:-pixel_bytes]
        elif kind == 2:
            before = above
        out += bytes((kind,)) + (numbers - before).tobytes()
        above = numbers
    return bytes(out)


def png(samples: np.ndarray[Any, Any], bits: int, color_type: int, rng: np.random.Generator, **chunks: bytes) -> bytes:
    height, width, count = samples.shape
    rows = tiff_inputs.rows_of(samples, bits, ">")
    data = zlib.compress(filtered(rows, max(1, count * bits // 8), rng))
    cuts = [data[at : at + 8192] for at in range(0, len(data), 8192)]
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            *(chunk(name.encode(), body) for name, body in chunks.items() if name != "late"),
            *(chunk(b"IDAT", cut) for cut in cuts),
            *([chunk(b"eXIf", chunks["late"])] if "late" in chunks else []),
            chunk(b"IEND", b""),
        )
    )


def gif(indices: Pixels, colours: Pixels) -> bytes:
    """A frame whose codes are all of 9 bits, or of one bit more than the indices (GIF89a appendix F)."""
    height, width, _ = indices.shape
    clear = 256
    codes: list[int] = []
    flat = indices.ravel().tolist()
    for at in range(0, len(flat), 250):
        codes += [clear, *flat[at : at + 250]]
    ones = (np.array([*codes, clear + 1])[:, None] >> np.arange(9)) & 1
    data = np.packbits(ones.astype(np.uint8).ravel(), bitorder="little").tobytes()
    blocks = b"".join(bytes((len(part),)) + part for part in (data[at : at + 255] for at in range(0, len(data), 255)))
    head = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0) + colours.tobytes()
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0)
    return head + frame + b"\x08" + blocks + b"\0;"


def draw(number: int, profiles: dict[str, bytes], press: bytes, sizes: Sizes = SIZES) -> Input:
    """An input that must be shown, by its number."""
    rng = np.random.default_rng([31, number])

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    width, height = sizes[rng.integers(len(sizes))]
    kind = pick("png", "png", "png", "gif", "jpg", "jpg", "webp")
    orientation = 1 if kind == "gif" else pick(1, 1, *range(2, 9))
    block = exif(orientation, pick(3, 4), pick("<", ">"))
    if kind == "png":
        color_type = pick(GREY, RGB, PALETTE, GREY_OPACITY, RGB_OPACITY)
        bits = pick(8, 16) if color_type in (RGB, GREY_OPACITY, RGB_OPACITY) else pick(1, 2, 4, 8)
        count = {GREY: 1, RGB: 3, PALETTE: 1, GREY_OPACITY: 2, RGB_OPACITY: 4}[color_type]
        shown = pictures.shades(width, height, count, rng)
        if count in (2, 4):
            shown[..., -1] = 0.3 + 0.7 * shown[..., -1]
        numbers = pictures.steps(shown, bits)
        pixels = pictures.shown_8(numbers, bits)
        chunks: dict[str, bytes] = {}
        if color_type == PALETTE:
            colours = (tiff_inputs.palette(bits) >> 8).astype(np.uint8)
            pixels = colours[numbers[..., 0]]
            chunks["PLTE"] = colours.tobytes()
        profile = pick("", "", "adobe") if color_type in (RGB, RGB_OPACITY) else ""
        if profile:
            chunks["iCCP"] = b"p\0\0" + zlib.compress(profiles["adobe"])
            rgb = pictures.by_profile(np.ascontiguousarray(pixels[..., :3]), profiles["adobe"])
            pixels = np.concatenate((rgb, pixels[..., 3:]), axis=2)
        place = pick("eXIf", "late")
        if orientation > 1:
            chunks[place] = block
        samples = np.ascontiguousarray(pictures.stored(numbers, orientation)).astype(
            np.uint16 if bits == 16 else np.uint8
        )
        data = png(samples, bits, color_type, rng, **chunks)
        name = f"{number}-t{color_type}-b{bits}-{profile or 'none'}-o{orientation}{place}"
        tolerance, mean = (20.0, 1.0) if profile else (1.0, 0.6)
    elif kind == "gif":
        indices = pictures.steps(pictures.shades(width, height, 1, rng), 8).astype(np.uint8)
        colours = (tiff_inputs.palette(8) >> 8).astype(np.uint8)
        data, pixels, name, tolerance, mean = gif(indices, colours), colours[indices[..., 0]], f"{number}", 1.0, 0.6
    elif kind == "webp":
        count = pick(3, 4)
        shown = pictures.shades(width, height, count, rng)
        shown[..., 3:] = 0.3 + 0.7 * shown[..., 3:]
        pixels = np.rint(shown * 255).astype(np.uint8)
        file = io.BytesIO()
        turned = Image.fromarray(np.ascontiguousarray(pictures.stored(pixels, orientation)))
        turned.save(file, "WEBP", lossless=True, exact=True, exif=b"Exif\0\0" + block)
        data, name, tolerance, mean = file.getvalue(), f"{number}-{count}-o{orientation}", 1.0, 0.6
    else:
        import imagecodecs

        space = pick("grey", "ycc", "inks")
        count = {"grey": 1, "ycc": 3, "inks": 4}[space]
        pixels = np.rint(pictures.shades(width, height, count, rng) * 255).astype(np.uint8)
        turned = np.ascontiguousarray(pictures.stored(pixels, orientation))
        if space == "inks":  # libjpeg adds Adobe's marker, with which they are stored inverted
            turned = 255 - turned
        model = {"grey": "GRAYSCALE", "ycc": "YCBCR", "inks": "CMYK"}[space]
        own = {"grey": "GRAYSCALE", "ycc": "RGB", "inks": "CMYK"}[space]
        data = bytes(
            imagecodecs.jpeg8_encode(
                turned.squeeze(axis=2) if count == 1 else turned,
                level=100,
                colorspace=own,
                outcolorspace=model,
                subsampling="444",
            )
        )
        if space == "inks":
            pixels = pictures.by_profile(pixels, press, "CMYK")
        segment = b"Exif\0\0" + block
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
        cut = pick("", "", "no end")
        data = data.removesuffix(b"\xff\xd9") if cut else data
        name = f"{number}-{space}-o{orientation}{'-noeoi' * bool(cut)}"
        tolerance, mean = 14.0, 1.5
    return Input(f"{name}-{width}x{height}.{kind}", data, pixels, tolerance, mean)
