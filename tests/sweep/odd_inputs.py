"""Masters that are valid and rare, each with one thing that readers get wrong, and the array that they show."""

from __future__ import annotations

import io
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from fixtures.tiff_pages import Page, put_together
from tests.sweep import jp2_inputs, other_inputs, pictures, tiff_inputs
from tests.sweep.pictures import Input, Pixels
from tests.sweep.profiles import ADOBE, GREY_18

WIDTH, HEIGHT = 133, 90
RGB: Pixels = np.rint(pictures.shades(WIDTH, HEIGHT, 3, np.random.default_rng(7)) * 255).astype(np.uint8)
GREY: Pixels = np.ascontiguousarray(RGB[..., :1])
OPACITY: Pixels = (90 + np.ascontiguousarray(RGB[..., 2:]) // 2).astype(np.uint8)
BILEVEL: Pixels = np.where(GREY > 127, np.uint8(255), np.uint8(0))
SMOOTH: Pixels = (
    (RGB.mean(axis=(0, 1)) // 2 + np.linspace(0, 100, WIDTH)[None, :, None]).astype(np.uint8).repeat(HEIGHT, 0)
)
"""Of hardly different colours, so that coarse chroma is seen nowhere."""
Fields = dict[int, tuple[int, tuple[float, ...]]]
LOSSY = {"tolerance": 14.0, "mean_tolerance": 1.5}
ALL_ROWS = 2**32 - 1


def inputs() -> Iterator[Input]:
    """All of them."""
    yield from tiffs()
    yield from fax()
    yield from old_jpegs()
    yield from jpegs()
    yield from pngs()
    yield from gifs_and_webps()
    yield from bmps()
    yield from avifs()
    yield from jp2s()


# TIFF


def fields(samples: np.ndarray[Any, Any], photometric: int, bits: int, compression: int = 1, **more: Any) -> Fields:
    """The fields of a page of one strip; others as t258=(3, (8,)), None to leave one out."""
    height, width, count = samples.shape
    found: Fields = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (bits,) * count),
        259: (3, (compression,)),
        262: (3, (photometric,)),
        277: (3, (count,)),
        278: (4, (height,)),
    }
    changed = {int(name[1:]): value for name, value in more.items()}
    return {tag: value for tag, value in (found | changed).items() if value is not None}


def tiff(page: Fields, chunks: Sequence[bytes], **how: Any) -> bytes:
    return put_together([Page(page, list(chunks), tiled=322 in page)], **how)


def backwards(data: bytes) -> bytes:
    """Entries of the first directory of a big-endian BigTIFF in descending order of their tags."""
    at = int.from_bytes(data[8:16], "big") + 8
    count = int.from_bytes(data[at - 8 : at], "big")
    entries = [data[at + 20 * n : at + 20 * n + 20] for n in range(count)]
    return data[:at] + b"".join(reversed(entries)) + data[at + 20 * count :]


def tiffs() -> Iterator[Input]:
    deep = RGB.astype(np.uint16) * 257
    raw = RGB.tobytes()
    yield Input("bigtiff-tags-backwards.tif", backwards(tiff(fields(RGB, 2, 8), [raw], order=">", big=True)), RGB)
    yield Input("rows-per-strip-all.tif", tiff(fields(RGB, 2, 8, t278=(4, (ALL_ROWS,))), [raw]), RGB)
    yield Input("rows-per-strip-none.tif", tiff(fields(RGB, 2, 8, t278=None), [raw]), RGB)
    yield Input("rows-per-strip-0.tif", tiff(fields(RGB, 2, 8, t278=(4, (0,))), [raw]), RGB)
    yield Input("sides-signed.tif", tiff(fields(RGB, 2, 8, t256=(9, (WIDTH,)), t274=(8, (1,))), [raw]), RGB)
    upside_down = np.ascontiguousarray(RGB[::-1])
    yield Input("orientation-signed.tif", tiff(fields(RGB, 2, 8, t274=(8, (4,))), [upside_down.tobytes()]), RGB)
    yield Input("bits-once.tif", tiff(fields(RGB, 2, 8, t258=(3, (8,))), [raw]), RGB)
    for order in ("<", ">"):
        planes = [
            tiff_inputs.compressed(np.ascontiguousarray(plane), 16, 8, 2, order) for plane in np.split(deep, 3, axis=2)
        ]
        page = fields(deep, 2, 16, 8, t284=(3, (2,)), t317=(3, (2,)))
        yield Input(f"planes-16-predictor-2{'le' if order == '<' else 'be'}.tif", tiff(page, planes, order=order), RGB)
    floats = (RGB / 255).astype(np.float32)
    planes = [tiff_inputs.compressed(np.ascontiguousarray(plane), 32, 8, 3, ">") for plane in np.split(floats, 3, 2)]
    page = fields(floats, 2, 32, 8, t284=(3, (2,)), t317=(3, (3,)), t339=(3, (3, 3, 3)))
    yield Input("planes-float-predictor-3.tif", tiff(page, planes, order=">"), RGB)
    tiles = [tiff_inputs.compressed(tile, 8, 5, 1, "<") for tile in tiff_inputs.tiles(RGB, (41, 23))]
    yield Input("tiles-41x23.tif", tiff(fields(RGB, 2, 8, 5, t278=None, t322=(4, (41,)), t323=(4, (23,))), tiles), RGB)
    tiles = [tile.tobytes() for tile in tiff_inputs.tiles(RGB, (64, 32))]
    page = fields(RGB, 2, 8, t278=None, t322=(3, (64,)), t323=(3, (32,)))
    named = bytearray(tiff(page, tiles))
    for old, new in ((324, 273), (325, 279)):  # tiles where strips are listed
        at = named.rindex(struct.pack("<HH", old, 4))
        named[at : at + 2] = struct.pack("<H", new)
    yield Input("tiles-listed-as-strips.tif", bytes(named), RGB)
    longer = [tile.tobytes() + b"more" * 9 for tile in tiff_inputs.tiles(RGB, (41, 23))]
    page = fields(RGB, 2, 8, t278=None, t322=(4, (41,)), t323=(4, (23,)))
    yield Input("tiles-longer-than-their-pixels.tif", tiff(page, longer), RGB)
    for name, compression in (("jpeg", 7), ("deflate", 8)):
        strips = [tiff_inputs.compressed(RGB[y : y + 16], 8, compression, 1, "<") for y in range(0, HEIGHT, 16)]
        page = fields(RGB, 2, 8, compression, t278=(3, (16,)))
        long = tiff(page, strips, place="front")
        long = long.replace(struct.pack("<I", len(strips[-1])), struct.pack("<I", len(strips[-1]) + 500), 1)
        yield Input(f"last-strip-too-long-{name}.tif", long, RGB, **LOSSY)
    for photometric in (0, 1):
        ones = (BILEVEL[..., 0] > 0) ^ (photometric == 0)
        rows = np.packbits(ones, axis=1)
        turned = np.packbits(np.unpackbits(rows, axis=1), axis=1, bitorder="little")
        page = fields(BILEVEL, photometric, 1, t266=(3, (2,)))
        yield Input(f"fill-order-2-p{photometric}.tif", tiff(page, [turned.tobytes()]), BILEVEL)
    for order, bits in (("<", 12), (">", 16)):
        numbers = pictures.steps(GREY / 255, bits).astype(order + "u2")
        planes = np.concatenate((numbers, numbers), axis=2)  # in planes, so that libvips does not unpack them
        stored = [b"".join(tiff_inputs.rows_of(plane, bits, order)) for plane in np.split(planes, 2, axis=2)]
        page = fields(planes, 1, bits, t284=(3, (2,)), t266=(3, (2,)))
        turned = [np.packbits(np.unpackbits(np.frombuffer(plane, np.uint8)), bitorder="little") for plane in stored]
        yield Input(f"fill-order-2-b{bits}.tif", tiff(page, [plane.tobytes() for plane in turned], order=order), GREY)
    yield Input("fill-order-0.tif", tiff(fields(RGB, 2, 8, t266=(3, (0,))), [raw]), RGB)
    with_more = np.concatenate((RGB, OPACITY), axis=2)
    for kind, wanted in ((99, RGB), (999, with_more)):  # one without a meaning, and Corel's for opacity
        data = tiff(fields(with_more, 2, 8, t338=(3, (kind,))), [with_more.tobytes()])
        yield Input(f"extra-samples-{kind}.tif", data, wanted)
    yield Input("extra-samples-none-there.tif", tiff(fields(RGB, 2, 8, t338=(3, (2, 0))), [raw]), RGB)
    yield Input(
        "extra-samples-fractions.tif", tiff(fields(with_more, 2, 8, t338=(11, (2.0,))), [with_more.tobytes()]), RGB
    )
    yield Input("photometric-twice.tif", tiff(fields(RGB, 2, 8, t262=(3, (2, 1)), t284=(3, (1, 2))), [raw]), RGB)
    packed_bits = tiff_inputs.packbits([raw])
    yield Input("packbits-with-predictor.tif", tiff(fields(RGB, 2, 8, 32773, t317=(3, (2,))), [packed_bits]), RGB)
    for said in ((1, 1), (2, 2), (4, 1)):  # the JPEG has 4:2:0
        page = fields(SMOOTH, 6, 8, 7, t530=(3, said))
        yield Input(
            f"jpeg-said-to-be-{said[0]}x{said[1]}.tif", tiff(page, [jpeg(SMOOTH, subsampling=2)]), SMOOTH, **LOSSY
        )
    index = (GREY // 16).astype(np.uint8)
    colours = (np.arange(48).reshape(16, 3) * 1365).astype(np.int64)
    packed = b"".join(tiff_inputs.rows_of(index, 4, "<"))
    page = fields(index, 3, 4, t320=(3, tuple(colours.T.ravel().tolist())))
    yield Input("palette-of-16-bits.tif", tiff(page, [packed]), (colours >> 8).astype(np.uint8)[index[..., 0]])
    page = fields(index, 3, 4, t320=(3, tuple((colours >> 8).T.ravel().tolist())))
    yield Input("palette-of-8-bits.tif", tiff(page, [packed]), (colours >> 8).astype(np.uint8)[index[..., 0]])
    for orientation in range(1, 9):
        stored = np.ascontiguousarray(pictures.stored(RGB, orientation))
        tiles = [tile.tobytes() for tile in tiff_inputs.tiles(stored, (32, 48))]
        page = fields(stored, 2, 8, t278=None, t322=(4, (32,)), t323=(4, (48,)), t274=(3, (orientation,)))
        yield Input(f"orientation-{orientation}-tiles.tif", tiff(page, tiles), RGB)
    small = np.ascontiguousarray(255 - RGB[::4, ::4])
    thumbnail = Page(fields(small, 2, 8, t254=(4, (1,))), [small.tobytes()], tiled=False)
    full = Page(fields(RGB, 2, 8), [raw], tiled=False)
    yield Input("thumbnail-first.tif", put_together([thumbnail, full]), RGB)
    nested = Page(fields(RGB, 2, 8), [raw], tiled=False, subs=[thumbnail])
    yield Input("thumbnail-in-subifd.tif", put_together([nested]), RGB)
    both = np.concatenate((255 - GREY, OPACITY), axis=2)
    page = fields(both, 0, 8, t338=(3, (2,)))
    yield Input("white-0-opacity.tif", tiff(page, [both.tobytes()]), np.concatenate((GREY, OPACITY), axis=2))
    strips = [RGB[y : y + 7].tobytes() for y in range(0, HEIGHT, 7)]
    yield Input("strips-last-first.tif", tiff(fields(RGB, 2, 8, t278=(3, (7,))), strips, backwards=True), RGB)
    inks = np.concatenate((255 - RGB, np.zeros_like(GREY)), axis=2)
    press = bytes(pyvips.Image.profile_load("cmyk"))
    planes = [zlib.compress((inks[..., n].astype("<u2") * 257).tobytes()) for n in range(4)]
    page = fields(inks, 5, 16, 8, t284=(3, (2,)))
    yield Input("inks-16-planes.tif", tiff(page, planes), pictures.by_profile(inks, press, "CMYK"), 4.0, 1.0)
    bits = tiff_inputs.packbits([raw])  # runs go on across rows
    yield Input("packbits-across-rows.tif", tiff(fields(RGB, 2, 8, 32773), [bits]), RGB)
    ycc = pictures.to_ycc(RGB)
    for across, down in ((2, 1), (2, 2), (4, 1)):
        units, wanted = subsampled(ycc, across, down)
        page = fields(RGB, 6, 8, t530=(3, (across, down)), t532=(5, (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)))
        # libtiff repeats chroma or mixes it
        yield Input(f"ycbcr-{across}x{down}.tif", tiff(page, [units]), wanted, 60.0, 1.5)


def subsampled(ycc: Pixels, across: int, down: int) -> tuple[bytes, Pixels]:
    """Data units of luma and chroma (TIFF 6.0 section 21), and the picture with repeated chroma."""
    filled = np.pad(ycc, ((0, -HEIGHT % down), (0, -WIDTH % across), (0, 0)), mode="edge")
    chroma = filled[::down, ::across, 1:]
    units = bytearray()
    for y in range(0, filled.shape[0], down):
        for x in range(0, filled.shape[1], across):
            units += filled[y : y + down, x : x + across, 0].tobytes() + chroma[y // down, x // across].tobytes()
    whole = np.repeat(np.repeat(chroma, down, axis=0), across, axis=1)
    joined = np.concatenate((filled[..., :1], whole), axis=2)[:HEIGHT, :WIDTH]
    return bytes(units), pictures.from_ycc(np.ascontiguousarray(joined))


def fax() -> Iterator[Input]:
    """As pillow's libtiff encodes it: what it was given is what must come back."""
    for name in ("tiff_ccitt", "group3", "group4"):
        file = io.BytesIO()
        Image.fromarray(BILEVEL[..., 0]).convert("1").save(file, "TIFF", compression=name)
        data = file.getvalue()
        with Image.open(io.BytesIO(data)) as written:
            photometric = written.tag_v2[262]
        yield Input(f"{name}.tif", data, BILEVEL)
        entry = struct.pack("<HHIH", 262, 3, 1, photometric)
        other = data.replace(entry, struct.pack("<HHIH", 262, 3, 1, 1 - photometric), 1)
        yield Input(f"{name}-inverse.tif", other, 255 - BILEVEL)


def old_jpegs() -> Iterator[Input]:
    """JPEG in TIFF as TIFF 6.0 section 22 had it, and of 12 bits."""
    import imagecodecs

    for name, samples, photometric in (("grey", GREY, 1), ("ycc", RGB, 6)):
        stream = jpeg(samples)
        scan = stream.index(b"\xff\xda")
        pixels_at = scan + 2 + int.from_bytes(stream[scan + 2 : scan + 4])
        for length in (len(stream), pixels_at):
            page = fields(samples, photometric, 8, 6, t512=(3, (1,)), t513=(4, (8,)), t514=(4, (length,)))
            data = tiff(page, [stream])
            for tag, old, new in ((273, 8, 8 + pixels_at), (279, len(stream), len(stream) - pixels_at)):
                data = data.replace(struct.pack("<HHII", tag, 4, 1, old), struct.pack("<HHII", tag, 4, 1, new), 1)
            yield Input(f"old-jpeg-{name}-{length}.tif", data, samples, **LOSSY)
    for name, samples, photometric in (("grey", GREY, 1), ("rgb", RGB, 2), ("ycc", RGB, 6)):
        deep = samples.astype(np.uint16) << 4 | samples >> 4
        own = "GRAYSCALE" if photometric == 1 else "RGB"
        stored = {1: "GRAYSCALE", 2: "RGB", 6: "YCBCR"}[photometric]
        stream = imagecodecs.jpeg8_encode(
            deep.squeeze(),
            level=100,
            bitspersample=12,
            colorspace=own,
            outcolorspace=stored,
            subsampling="444",
        )
        more = {"t530": (3, (1, 1))} if photometric == 6 else {}
        yield Input(
            f"jpeg-12-{name}.tif", tiff(fields(samples, photometric, 12, 7, **more), [bytes(stream)]), samples, **LOSSY
        )
        if photometric != 2:
            yield Input(f"12-bits-{name}.jpg", bytes(stream), samples, **LOSSY)
    yield Input("lossless-8.jpg", bytes(imagecodecs.ljpeg_encode(GREY[..., 0])), GREY)
    yield Input("lossless-16.jpg", bytes(imagecodecs.ljpeg_encode(GREY[..., 0].astype(np.uint16) * 257)), GREY)


# JPEG


def jpeg(samples: Pixels, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"quality": 98, "subsampling": 0} | options
    Image.fromarray(samples.squeeze()).save(file, "JPEG", **options)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def behind_soi(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def jpegs() -> Iterator[Input]:
    import imagecodecs

    yield Input("restarts.jpg", jpeg(RGB, restart_marker_rows=1), RGB, **LOSSY)
    yield Input("restarts-progressive.jpg", jpeg(RGB, restart_marker_blocks=3, progressive=True), RGB, **LOSSY)
    for sampling in ("411", "440", "422", "420"):
        data = imagecodecs.jpeg8_encode(SMOOTH, level=98, subsampling=sampling)
        yield Input(f"sampled-{sampling}.jpg", bytes(data), SMOOTH, **LOSSY)
    pieces = [ADOBE[at : at + 100] for at in range(0, len(ADOBE), 100)]
    chunks = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes((number + 1, len(pieces))) + piece)
        for number, piece in enumerate(pieces)
    ]
    converted = pictures.by_profile(RGB, ADOBE)
    yield Input("profile-in-chunks.jpg", behind_soi(jpeg(RGB), *chunks), converted, 40.0, 2.0)
    yield Input("profile-chunks-backwards.jpg", behind_soi(jpeg(RGB), *reversed(chunks)), converted, 40.0, 2.0)
    whole = segment(0xE2, b"ICC_PROFILE\0\1\1" + ADOBE)
    yield Input("rgb-profile-on-grey.jpg", behind_soi(jpeg(GREY), whole), GREY, **LOSSY)
    grey = segment(0xE2, b"ICC_PROFILE\0\1\1" + GREY_18)
    yield Input("grey-profile-on-rgb.jpg", behind_soi(jpeg(RGB), grey), RGB, **LOSSY)
    yield Input("grey-profile.jpg", behind_soi(jpeg(GREY), grey), pictures.by_profile(GREY, GREY_18)[..., :1], **LOSSY)
    for orientation in range(1, 9):
        block = segment(0xE1, b"Exif\0\0" + other_inputs.exif(orientation, 3, ">"))
        stored = np.ascontiguousarray(pictures.stored(RGB, orientation))
        yield Input(f"turned-{orientation}.jpg", behind_soi(jpeg(stored), block), RGB, **LOSSY)
    first = segment(0xE1, b"Exif\0\0" + other_inputs.exif(3, 3, "<"))
    second = segment(0xE1, b"Exif\0\0" + other_inputs.exif(6, 3, "<"))
    upside_down = np.ascontiguousarray(RGB[::-1, ::-1])
    yield Input("exif-twice.jpg", behind_soi(jpeg(upside_down), first, second), RGB, **LOSSY)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<x:xmpmeta/>" * 100)
    yield Input("exif-behind-xmp.jpg", behind_soi(jpeg(upside_down), xmp, first), RGB, **LOSSY)
    yield Input("comments.jpg", behind_soi(jpeg(RGB), *[segment(0xFE, b"a note" * 50)] * 200), RGB, **LOSSY)
    yield Input("fill-bytes.jpg", behind_soi(jpeg(RGB), b"\xff\xff\xff"), RGB, **LOSSY)
    yield Input("picture-behind.jpg", jpeg(RGB) + jpeg(255 - RGB), RGB, **LOSSY)
    preview = segment(0xE1, b"Exif\0\0" + other_inputs.exif(1, 3, ">") + jpeg(255 - RGB[::4, ::4]))
    yield Input("preview-inside.jpg", behind_soi(jpeg(RGB), preview), RGB, **LOSSY)
    for space in ("RGB", "YCBCR"):
        data = imagecodecs.jpeg8_encode(RGB, level=98, colorspace="RGB", outcolorspace=space, subsampling="444")
        yield Input(f"space-{space.lower()}.jpg", bytes(data), RGB, **LOSSY)
    press = bytes(pyvips.Image.profile_load("cmyk"))
    inks = np.concatenate((255 - RGB, np.zeros_like(GREY)), axis=2)
    shown = pictures.by_profile(inks, press, "CMYK")
    for space in ("CMYK", "YCCK"):  # with Adobe's marker, inverted
        data = imagecodecs.jpeg8_encode(255 - inks, level=98, colorspace="CMYK", outcolorspace=space, subsampling="444")
        yield Input(f"inks-{space.lower()}.jpg", bytes(data), shown, 60.0, 2.0)
        # Without it they are inverted as well: so pillow, libvips and Chromium read it. libjpeg itself inverts nothing.
        marker = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 2 if space == "YCCK" else 0))
        assert marker in data
        if space == "CMYK":  # nothing else would say that it is YCCK
            yield Input("inks-without-marker.jpg", bytes(data).replace(marker, b"", 1), shown, **LOSSY)


# PNG


def interlaced(samples: np.ndarray[Any, Any], bits: int, color_type: int, **chunks: bytes) -> bytes:
    """A PNG in seven passes (W3C PNG section 8.2), without filters."""
    height, width, _ = samples.shape
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    data = bytearray()
    for x, y, across, down in passes:
        part = np.ascontiguousarray(samples[y::down, x::across])
        if part.size:
            data += b"".join(b"\0" + row for row in tiff_inputs.rows_of(part, bits, ">"))
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 1)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            other_inputs.chunk(b"IHDR", head),
            *(other_inputs.chunk(name.encode(), body) for name, body in chunks.items()),
            other_inputs.chunk(b"IDAT", zlib.compress(bytes(data))),
            other_inputs.chunk(b"IEND", b""),
        )
    )


def pngs() -> Iterator[Input]:
    rng = np.random.default_rng(3)
    for bits in (1, 2, 4, 8):
        numbers = (GREY >> (8 - bits)).astype(np.uint8)
        shown = pictures.shown_8(numbers.astype(np.int64), bits)
        yield Input(f"interlaced-grey-{bits}.png", interlaced(numbers, bits, 0), shown)
        see_through = int(numbers[HEIGHT // 2, WIDTH // 2, 0])
        hidden = np.where(numbers == see_through, np.uint8(0), np.uint8(255))
        key = struct.pack(">H", see_through)
        data = other_inputs.png(numbers, bits, 0, rng, tRNS=key)
        yield Input(f"key-grey-{bits}.png", data, np.concatenate((shown, hidden), axis=2))
        colours = (tiff_inputs.palette(bits) >> 8).astype(np.uint8)
        data = other_inputs.png(
            numbers, bits, 3, rng, PLTE=colours.tobytes(), tRNS=bytes(range(120, 120 + min(len(colours), 100)))
        )
        opacity = np.full(len(colours), 255, np.uint8)
        opacity[: min(len(colours), 100)] = np.arange(120, 120 + min(len(colours), 100))
        entries = np.concatenate((colours, opacity[:, None]), axis=1)
        yield Input(f"palette-opacity-{bits}.png", data, entries[numbers[..., 0]])
    deep = RGB.astype(np.uint16) * 257
    yield Input("interlaced-rgb-16.png", interlaced(deep, 16, 2), RGB)
    yield Input(
        "interlaced-rgba.png", interlaced(np.concatenate((RGB, OPACITY), axis=2), 8, 6), np.dstack((RGB, OPACITY))
    )
    corner = RGB[-1, -1]
    hidden = np.where((corner == RGB).all(axis=2, keepdims=True), np.uint8(0), np.uint8(255))
    key = struct.pack(">HHH", *corner.tolist())
    yield Input("key-rgb.png", other_inputs.png(RGB, 8, 2, rng, tRNS=key), np.dstack((RGB, hidden)))
    key = struct.pack(">HHH", *(corner.astype(int) * 257).tolist())
    yield Input("key-rgb-16.png", other_inputs.png(deep, 16, 2, rng, tRNS=key), np.dstack((RGB, hidden)))
    yield Input("gamma.png", other_inputs.png(RGB, 8, 2, rng, gAMA=struct.pack(">I", 45455)), RGB)
    yield Input("cicp-srgb.png", other_inputs.png(RGB, 8, 2, rng, cICP=bytes((1, 13, 0, 1))), RGB)
    few = (GREY // 64).astype(np.uint8)  # a palette of fewer colours than 8 bits can name
    colours = (tiff_inputs.palette(2) >> 8).astype(np.uint8)
    yield Input("palette-short.png", other_inputs.png(few, 8, 3, rng, PLTE=colours.tobytes()), colours[few[..., 0]])
    one = np.ascontiguousarray(RGB[:1, :1])
    yield Input("one-pixel.png", other_inputs.png(one, 8, 2, rng), one)
    plain = other_inputs.png(RGB, 8, 2, rng)
    at = plain.index(b"IDAT") - 4
    yield Input("empty-idat.png", plain[:at] + other_inputs.chunk(b"IDAT", b"") + plain[at:], RGB)
    yield Input("bytes-behind.png", plain + b"film" * 100, RGB)


# GIF and WebP


def gif_frame(indices: Pixels, left: int, top: int, *, interlace: bool = False, own: Pixels | None = None) -> bytes:
    """A frame whose codes are all of 9 bits (GIF89a appendix F)."""
    height, width, _ = indices.shape
    if interlace:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
        indices = indices[order]
    flat = indices.ravel().tolist()
    codes = [code for at in range(0, len(flat), 250) for code in (256, *flat[at : at + 250])]
    ones = (np.array([*codes, 257])[:, None] >> np.arange(9)) & 1
    data = np.packbits(ones.astype(np.uint8).ravel(), bitorder="little").tobytes()
    blocks = b"".join(bytes((len(part),)) + part for part in (data[at : at + 255] for at in range(0, len(data), 255)))
    flags = 0x40 * interlace | (0x87 if own is not None else 0)
    head = struct.pack("<BHHHHB", 0x2C, left, top, width, height, flags)
    return head + (own.tobytes() if own is not None else b"") + b"\x08" + blocks + b"\0"


def gif(width: int, height: int, colours: Pixels, *blocks: bytes) -> bytes:
    return struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0) + colours.tobytes() + b"".join(blocks) + b";"


def control(see_through: int | None = None, disposal: int = 0) -> bytes:
    flags = disposal << 2 | (see_through is not None)
    return struct.pack("<BBBBHBB", 0x21, 0xF9, 4, flags, 10, see_through or 0, 0)


def gifs_and_webps() -> Iterator[Input]:
    colours = (tiff_inputs.palette(8) >> 8).astype(np.uint8)
    shown = colours[GREY[..., 0]]
    frame = gif_frame(GREY, 0, 0)
    yield Input("interlaced.gif", gif(WIDTH, HEIGHT, colours, gif_frame(GREY, 0, 0, interlace=True)), shown)
    own = np.ascontiguousarray(colours[::-1])
    yield Input("own-palette.gif", gif(WIDTH, HEIGHT, colours, gif_frame(GREY, 0, 0, own=own)), own[GREY[..., 0]])
    second = gif_frame(255 - GREY, 0, 0)
    yield Input("animated.gif", gif(WIDTH, HEIGHT, colours, control(), frame, control(), second), shown)
    middle = int(GREY[HEIGHT // 2, WIDTH // 2, 0])
    hidden = np.where(middle == GREY, np.uint8(0), np.uint8(255))
    see_through = gif(WIDTH, HEIGHT, colours, control(middle), frame)
    yield Input("see-through.gif", see_through, np.concatenate((shown, hidden), axis=2))
    canvas = np.zeros((HEIGHT + 30, WIDTH + 40, 4), np.uint8)
    canvas[10 : 10 + HEIGHT, 25 : 25 + WIDTH] = np.dstack((shown, np.full((HEIGHT, WIDTH), 255, np.uint8)))
    yield Input("frame-inside.gif", gif(WIDTH + 40, HEIGHT + 30, colours, gif_frame(GREY, 25, 10)), canvas)
    opaque = Image.fromarray(RGB)
    both = Image.fromarray(np.dstack((RGB, OPACITY)))
    profiled = pictures.by_profile(RGB, ADOBE)
    for name, image, options, wanted in (
        ("lossy", opaque, {"quality": 98}, RGB),
        ("lossy-opacity", both, {"quality": 98}, np.dstack((RGB, OPACITY))),
        ("animated", opaque, {"lossless": True, "save_all": True, "append_images": [Image.fromarray(255 - RGB)]}, RGB),
        ("profile", opaque, {"lossless": True, "icc_profile": ADOBE}, profiled),
    ):
        file = io.BytesIO()
        image.save(file, "WEBP", **options)
        tolerance = (60.0, 3.0) if name.startswith("lossy") else (25.0, 1.0) if name == "profile" else (1.0, 0.6)
        yield Input(f"{name}.webp", file.getvalue(), wanted, *tolerance)


# BMP and AVIF


def bmp(rows: bytes, bits: int, *, height: int = HEIGHT, compression: int = 0, behind: bytes = b"") -> bytes:
    """With a header of 40 bytes; what comes behind it are colours or bit fields."""
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(rows), 2835, 2835, 0, 0)
    at = 14 + len(head) + len(behind)
    return struct.pack("<2sIII", b"BM", at + len(rows), 0, at) + head + behind + rows


def bmp_rows(rows: np.ndarray[Any, Any]) -> bytes:
    """Bytes of rows, the last row first, each filled up to whole words of 32 bits."""
    length = rows.shape[1]
    return b"".join(row.tobytes() + bytes(-length % 4) for row in rows[::-1])


def bmps() -> Iterator[Input]:
    blue_first = np.ascontiguousarray(RGB[..., ::-1])
    rows = bmp_rows(blue_first.reshape(HEIGHT, -1))
    yield Input("true-colour.bmp", bmp(rows, 24), RGB)
    upright = bmp_rows(blue_first[::-1].reshape(HEIGHT, -1))
    yield Input("top-down.bmp", bmp(upright, 24, height=-HEIGHT), RGB)
    core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    yield Input("os2.bmp", struct.pack("<2sIII", b"BM", 26 + len(rows), 0, 26) + core + rows, RGB)
    unused = np.dstack((blue_first, np.zeros_like(GREY)))
    yield Input("unused-byte.bmp", bmp(bmp_rows(unused.reshape(HEIGHT, -1)), 32), RGB)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    both = bmp_rows(np.dstack((blue_first, OPACITY)).reshape(HEIGHT, -1))
    head = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, len(both), 0, 0, 0, 0) + masks + bytes(52)
    yield Input(
        "opacity.bmp",
        struct.pack("<2sIII", b"BM", 122 + len(both), 0, 122) + head + both,
        np.dstack((RGB, OPACITY)),
    )
    five = RGB.astype(np.uint16) >> 3
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    yield Input("five-bits.bmp", bmp(bmp_rows(words.view(np.uint8).reshape(HEIGHT, -1)), 16), RGB, 8.0, 5.0)
    colours = (tiff_inputs.palette(8) >> 8).astype(np.uint8)
    table = np.dstack((colours[None, :, ::-1], np.zeros((1, 256, 1), np.uint8))).tobytes()
    shown = colours[GREY[..., 0]]
    yield Input("palette.bmp", bmp(bmp_rows(GREY[..., 0]), 8, behind=table), shown)
    runs = b"".join(
        b"".join(bytes((1, index)) for index in row.tolist()) + b"\0\0" for row in GREY[::-1, :, 0]
    )  # each run is of one pixel
    yield Input("runs.bmp", bmp(runs + b"\0\1", 8, compression=1, behind=table), shown)
    bits = np.packbits(BILEVEL[..., 0] > 0, axis=1)
    yield Input("bilevel.bmp", bmp(bmp_rows(bits), 1, behind=bytes((0, 0, 0, 0, 255, 255, 255, 0))), BILEVEL)


def avifs() -> Iterator[Input]:
    def packed(pixels: Pixels, **options: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(file, "AVIF", quality=100, subsampling="4:4:4", **options)
        return file.getvalue()

    close = {"tolerance": 8.0, "mean_tolerance": 1.5}
    yield Input("plain.avif", packed(RGB), RGB, **close)
    yield Input("grey.avif", packed(GREY), GREY, **close)
    yield Input("opacity.avif", packed(np.dstack((RGB, OPACITY))), np.dstack((RGB, OPACITY)), **close)
    profiled = pictures.by_profile(RGB, ADOBE)
    yield Input("profile.avif", packed(RGB, icc_profile=ADOBE), profiled, 30.0, 3.0)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[274] = orientation
        data = packed(np.ascontiguousarray(pictures.stored(RGB, orientation)), exif=exif)
        yield Input(f"turned-{orientation}.avif", data, RGB, **close)
    deep = pyvips.Image.new_from_array(RGB.astype(np.uint16) * 257).copy(interpretation="rgb16")
    for bits in (10, 12):
        data = deep.heifsave_buffer(compression="av1", lossless=True, bitdepth=bits, effort=0)
        yield Input(f"bits-{bits}.avif", data, RGB, **close)


# JPEG 2000


def opj(samples: Pixels, *options: str, bits: int = 8, signed: bool = False) -> bytes:
    """A codestream without loss by opj_compress."""
    height, width, count = samples.shape
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "a.raw"), Path(folder, "a.j2k")
        source.write_bytes(np.moveaxis(samples, -1, 0).tobytes())
        size = f"{width},{height},{count},{bits},{'s' if signed else 'u'}"
        command = ["opj_compress", "-i", source, "-o", result, "-F", size, "-n", "4", *options]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return result.read_bytes()


def raised(code: bytes, more: int) -> bytes:
    """Every SOT says that there are more tile-parts than there are."""
    out = bytearray(code)
    at = code.index(jp2_inputs.SOT)
    while out[at : at + 4] == jp2_inputs.SOT:
        out[at + 11] += more
        at += struct.unpack_from(">I", code, at + 6)[0]
    return bytes(out)


def packed(code: bytes, *, is_main: bool) -> bytes:
    """The packet headers of a codestream with SOP and EPH moved to its main header, or to those of its tile-parts.

    In marker segments PPM or PPT (T.800 A.7.4, A.7.5).
    """
    at = code.index(jp2_inputs.SOT)
    main, tiles, lists = code[:at], b"", b""
    while code[at : at + 4] == jp2_inputs.SOT:
        (length,) = struct.unpack_from(">I", code, at + 6)
        part, at = code[at : at + length], at + length
        start, stream = part.split(b"\xff\x93", 1)
        packets = [packet.split(b"\xff\x92", 1) for packet in stream.split(b"\xff\x91\0\4")[1:]]
        headers = b"".join(head[2:] + b"\xff\x92" for head, _ in packets)
        bodies = b"".join(b"\xff\x91\0\4" + head[:2] + body for head, body in packets)
        lists += struct.pack(">I", len(headers)) + headers
        own = b"" if is_main else segment(0x61, b"\0" + headers)
        length = len(start) + len(own) + 2 + len(bodies)
        tiles += start[:6] + struct.pack(">I", length) + start[10:] + own + b"\xff\x93" + bodies
    return main + (segment(0x60, b"\0" + lists) if is_main else b"") + tiles + code[at:]


def jp2(code: bytes, samples: Pixels, colours: bytes = jp2_inputs.enumerated(16), **more: Any) -> bytes:
    height, width, count = samples.shape
    return jp2_inputs.jp2(code, width, height, count, 8, colours, **more)


def jp2s() -> Iterator[Input]:
    ways = {
        "origin": ("-d", "37,21"),
        "tile-origin": ("-d", "37,21", "-T", "20,10", "-t", "50,40"),
        "precincts": ("-c", "[64,64],[32,32],[16,16]", "-b", "16,16"),
        "precincts-tiles": ("-c", "[32,32],[16,16]", "-b", "8,8", "-t", "47,31", "-p", "PCRL"),
        "changes-of-order": ("-POC", "T1=0,0,1,4,3,RLCP/T1=0,0,1,4,3,CPRL"),
        "region-of-interest": ("-ROI", "c=0,U=12"),
        "layers": ("-r", "40,10,1", "-p", "RLCP"),
        "markers": ("-SOP", "-EPH", "-p", "CPRL"),
        "bypass": ("-M", "1"),
        "all-modes": ("-M", "62"),
        "parts-by-layer": ("-r", "20,1", "-TP", "L", "-p", "LRCP", "-t", "64,64", "-TLM", "-PLT"),
    }
    for name, options in ways.items():
        yield Input(f"{name}.jp2", jp2(opj(RGB, *options), RGB), RGB)
        yield Input(f"{name}.j2k", opj(RGB, *options), RGB)
    for name, options in {"one": (), "tiles": ("-t", "50,40")}.items():
        code = opj(RGB, "-SOP", "-EPH", *options)
        yield Input(f"headers-in-main-{name}.jp2", jp2(packed(code, is_main=True), RGB), RGB)
        yield Input(f"headers-in-parts-{name}.jp2", jp2(packed(code, is_main=False), RGB), RGB)
    plain = opj(RGB)
    for name, options in {
        "one": ("-TP", "R", "-p", "RPCL"),
        "tiles": ("-t", "64,64", "-TP", "R", "-p", "RPCL"),
        "listed": ("-t", "64,64", "-TP", "R", "-p", "RPCL", "-PLT", "-TLM"),
    }.items():
        code = opj(RGB, *options)
        yield Input(f"parts-too-many-{name}.jp2", jp2(raised(code, 1), RGB), RGB)
        yield Input(f"parts-too-few-{name}.jp2", jp2(jp2_inputs.miscounted(code), RGB), RGB)
    whole = jp2(plain, RGB)
    at = whole.index(b"jp2c") - 4
    yield Input("to-the-end.jp2", whole[:at] + bytes(4) + whole[at + 4 :], RGB)
    long = struct.pack(">I4sQ", 1, b"jp2c", len(plain) + 16) + plain
    yield Input("long-box.jp2", whole[:at] + long, RGB)
    yield Input("box-behind.jp2", whole + jp2_inputs.box(b"xml ", b"<a/>"), RGB)
    lying = whole.replace(struct.pack(">II", HEIGHT, WIDTH), struct.pack(">II", HEIGHT - 3, WIDTH + 5), 1)
    yield Input("header-of-other-size.jp2", lying, RGB)
    yield Input("two-codestreams.jp2", whole + jp2_inputs.box(b"jp2c", opj(255 - RGB)), RGB)
    turned = np.ascontiguousarray(RGB[..., ::-1])
    order = struct.pack(">HHHHHHHHHH", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1)
    said = jp2_inputs.enumerated(16) + jp2_inputs.box(b"cdef", order)
    yield Input("blue-first.jp2", jp2(opj(turned), RGB, said), RGB)
    both = np.concatenate((OPACITY, RGB), axis=2)
    order = struct.pack(">HHHHHHHHHHHHH", 4, 0, 1, 0, 1, 0, 1, 2, 0, 2, 3, 0, 3)
    said = jp2_inputs.enumerated(16) + jp2_inputs.box(b"cdef", order)
    yield Input("opacity-first.jp2", jp2(opj(both, "-mct", "0"), both, said), np.concatenate((RGB, OPACITY), axis=2))
    reserved = struct.pack(">HHHHHHHHHHHHH", 4, 0, 0x7F00, 1, 1, 0, 2, 2, 0, 3, 3, 1, 0)
    said = jp2_inputs.enumerated(16) + jp2_inputs.box(b"cdef", reserved)
    last = np.concatenate((RGB, OPACITY), axis=2)
    yield Input("reserved-type.jp2", jp2(opj(last, "-mct", "0"), last, said), last)
    index = (GREY // 16).astype(np.uint8)
    colours = (tiff_inputs.palette(4) >> 8).astype(np.uint8)
    entries = struct.pack(">HB", len(colours), 3) + bytes((7, 7, 7)) + colours.tobytes()
    mapped = struct.pack(">HBBHBBHBB", 0, 1, 0, 0, 1, 1, 0, 1, 2)
    said = jp2_inputs.enumerated(16) + jp2_inputs.box(b"pclr", entries) + jp2_inputs.box(b"cmap", mapped)
    yield Input("palette.jp2", jp2(opj(index), index, said), colours[index[..., 0]])
    for bits in (1, 2, 4):  # dots between the two shades that are nearest, which greys are seen of from further away
        full = (1 << bits) - 1
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        dots = (GREY / 255 * full + ((3 * x + 5 * y) % 8 / 8)[..., None]).astype(np.uint8).clip(max=full)
        data = jp2(opj(dots, bits=bits), dots, jp2_inputs.enumerated(17))
        data = data.replace(b"\0\1\7\7\0\0", bytes((0, 1, bits - 1, 7, 0, 0)), 1)
        yield Input(f"dots-{bits}.jp2", data, pictures.shown_8(dots, bits))
    signed = (GREY.astype(np.int16) - 128).astype(np.int8)
    code = opj(signed.view(np.uint8), signed=True)
    data = jp2(code, GREY, jp2_inputs.enumerated(17)).replace(b"\0\1\7\7\0\0", b"\0\1\x87\7\0\0", 1)
    yield Input("signed.jp2", data, GREY)
