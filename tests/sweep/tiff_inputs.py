"""TIFF files of every kind, each written byte by byte: no TIFF library is asked."""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fixtures.tiff_pages import Page, put_together
from tests.sweep import pictures
from tests.sweep.pictures import SIZES, Input, Pixels, Sizes

Samples = npt.NDArray[Any]
WHITE_0, BLACK_0, RGB, PALETTE, INKS, YCC, LAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
COLOURS = {WHITE_0: 1, BLACK_0: 1, RGB: 3, PALETTE: 1, INKS: 4, YCC: 3, LAB: 3, ICCLAB: 3}
NONE, LZW, JPEG, DEFLATE, PACKBITS, LERC, LZMA, ZSTD, JXL = 1, 5, 7, 8, 32773, 34887, 34925, 50000, 50002
BYTES = (NONE, LZW, DEFLATE, 32946, PACKBITS, LZMA, ZSTD)
PROFILE, ORIENTATION, EXTRA, FORMAT = 34675, 274, 338, 339


def lzw(data: bytes) -> bytes:
    """LZW without any repetition: a Clear code before the codes would need more than 9 bits (TIFF 6.0 section 13)."""
    codes: list[int] = []
    for at in range(0, len(data), 250):
        codes += [256, *data[at : at + 250]]
    bits = (np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def packbits(rows: list[bytes]) -> bytes:
    """Rows as literal runs, and runs of equal bytes (TIFF 6.0 section 9)."""
    out = bytearray()
    for row in rows:
        for at in range(0, len(row), 128):
            part = row[at : at + 128]
            if len(part) > 1 and len(set(part)) == 1:
                out += bytes((257 - len(part), part[0]))
            else:
                out += bytes((len(part) - 1,)) + part
    return bytes(out)


def zstandard(data: bytes) -> bytes:
    """A frame of raw blocks (RFC 8878, sections 3.1.1 and 3.1.1.2)."""
    blocks = [data[at : at + 100_000] for at in range(0, len(data), 100_000)] or [b""]
    out = bytearray(struct.pack("<IBI", 0xFD2FB528, 0b10100000, len(data)))
    for number, block in enumerate(blocks):
        out += (len(block) << 3 | (number == len(blocks) - 1)).to_bytes(3, "little") + block
    return bytes(out)


def rows_of(samples: Samples, bits: int, order: str) -> list[bytes]:
    """The rows of (height, width, samples) as bytes, each row filled up to a whole one."""
    height = samples.shape[0]
    if bits in (8, 16, 32, 64):
        flat = samples.reshape(height, -1)
        return [row.tobytes() for row in flat.astype(flat.dtype.newbyteorder(order))]
    numbers = samples.reshape(height, -1)
    ones = (numbers[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return [row.tobytes() for row in np.packbits(ones.reshape(height, -1).astype(np.uint8), axis=1)]


def predicted(samples: Samples, predictor: int, order: str) -> list[bytes]:
    """Rows of bytes of differences (TIFF 6.0 section 14), or of floats by byte planes (Technical Note 3)."""
    height = samples.shape[0]
    if predictor == 2:
        unsigned = samples.view(f"u{samples.itemsize}")
        steps = unsigned.copy()
        steps[:, 1:] -= unsigned[:, :-1]
        return rows_of(steps, 8 * samples.itemsize, order)
    big = samples.reshape(height, -1).astype(samples.dtype.newbyteorder(">"))
    planes = big.view(np.uint8).reshape(height, -1, samples.itemsize).swapaxes(1, 2).reshape(height, -1).copy()
    stride = samples.shape[2]
    planes[:, stride:] = planes[:, stride:] - planes[:, :-stride].copy()
    return [row.tobytes() for row in planes]


def compressed(samples: Samples, bits: int, compression: int, predictor: int, order: str) -> bytes:
    """A tile or a strip."""
    if compression == JPEG:
        return jpeg(samples)
    if compression in (LERC, JXL):
        import imagecodecs

        plain = np.ascontiguousarray(samples.squeeze() if samples.shape[2] == 1 else samples)
        return bytes(
            imagecodecs.lerc_encode(plain) if compression == LERC else imagecodecs.jpegxl_encode(plain, lossless=True)
        )
    rows = predicted(samples, predictor, order) if predictor > 1 else rows_of(samples, bits, order)
    data = b"".join(rows)
    match compression:
        case 5:
            return lzw(data)
        case 8 | 32946:
            return zlib.compress(data)
        case 32773:
            return packbits(rows)
        case 34925:
            return lzma.compress(data)
        case 50000:
            return zstandard(data)
    return data


def jpeg(samples: Samples) -> bytes:
    """At the best quality, components as they are."""
    import imagecodecs

    count = samples.shape[2]
    space = {1: "GRAYSCALE", 2: "UNKNOWN", 3: "RGB", 4: "CMYK"}[count]
    plain = np.ascontiguousarray(samples.squeeze(axis=2) if count == 1 else samples)
    return bytes(imagecodecs.jpeg8_encode(plain, level=100, colorspace=space, outcolorspace=space, subsampling="444"))


def draw(number: int, profiles: dict[str, bytes], press: bytes, sizes: Sizes = SIZES) -> Input:
    """An input that must be shown: one of all combinations, by its number."""
    rng = np.random.default_rng([20, number])

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    photometric = pick(WHITE_0, BLACK_0, BLACK_0, RGB, RGB, RGB, PALETTE, INKS, YCC, LAB, ICCLAB)
    compression = pick(*BYTES, *BYTES, LERC, JXL, JPEG)
    if compression == JPEG and photometric in (WHITE_0, PALETTE, YCC):
        photometric = pick(BLACK_0, RGB)
    kind, bits = "u", 8
    if photometric in (YCC, LAB, ICCLAB):
        bits = 8 if compression == JPEG or photometric == YCC else pick(8, 16)
    elif photometric == PALETTE:
        bits = 8 if compression in (LERC, JXL) else pick(1, 2, 4, 8)
    elif compression != JPEG:
        whole = [("u", 8), ("u", 16), ("f", 32)]
        if compression in BYTES:
            whole += [("u", 32), ("i", 8), ("i", 16), ("i", 32), ("f", 16), ("f", 64)]
            whole += [("u", bits) for bits in (1, 2, 4, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15)]
            whole += [("u", 8), ("u", 8), ("u", 16), ("u", 16)]
        kind, bits = pick(*whole)
    colours = COLOURS[photometric]
    extra: tuple[int, ...] = ()
    if photometric != PALETTE or bits == 8:
        extra = pick((), (), (0,), (2,), (2,), (0, 2), (0, 0), (2, 0), (1,))
    if compression in (JPEG, LERC, JXL):
        extra = () if compression != JPEG or photometric in (INKS, LAB, ICCLAB) else pick((), (0,), (2,))
    if 1 in extra and (kind != "u" or photometric in (PALETTE, LAB, ICCLAB, YCC, INKS) or bits < 8):
        extra = (2,)
    declared = extra if rng.random() < 0.9 or any(extra) else ()  # samples of which nothing is said
    planar = 2 if colours + len(extra) > 1 and compression != JXL and rng.random() < 0.3 else 1
    if planar == 2 and compression == JPEG and photometric in (LAB, ICCLAB):
        planar = 1
    order = pick("<", "<", ">")
    predictor = 1
    if compression in (LZW, DEFLATE, 32946, LZMA, ZSTD) and bits in (8, 16, 32) and rng.random() < 0.4:
        predictor = 3 if kind == "f" else 2
    if kind == "f" and bits == 16:
        predictor = 1
    tile = pick(None, None, (64, 64), (256, 256), (48, 32), (50, 30), (128, 16))
    rows_per_strip = pick(1, 7, 64, 10_000)
    if compression in (LERC, JXL, JPEG) and rows_per_strip == 1:
        rows_per_strip = 16
    if compression == JPEG and tile is None and planar == 1:
        rows_per_strip = 64
    orientation = pick(1, 1, 1, *range(2, 9))
    profile = pick(None, None, None, "adobe", "junk", "grey", "inks")
    width, height = sizes[rng.integers(len(sizes))]

    # what it shows
    alpha_at = next((at for at, what in enumerate(extra) if what in (1, 2)), None)
    shown = pictures.shades(width, height, colours + len(extra), rng)
    if alpha_at is not None:  # no pixel is nearly transparent: there, colours cannot be told
        shown[..., colours + alpha_at] = 0.3 + 0.7 * shown[..., colours + alpha_at]
    samples, rgb = samples_of(photometric, kind, bits, shown, colours, profile, profiles, press)
    pixels = rgb
    if alpha_at is not None:
        opacity = samples_of(BLACK_0, kind, bits, shown[..., [colours + alpha_at]], 1, None, profiles, press)[1]
        if extra[alpha_at] == 1:
            part = samples[..., :colours].astype(np.float64) / ((1 << bits) - 1)
            multiplied = np.rint(part * samples[..., [colours + alpha_at]])
            if photometric == WHITE_0:
                multiplied = samples[..., :colours]
            samples[..., :colours] = multiplied.astype(samples.dtype)
        pixels = np.concatenate((rgb, opacity), axis=2)
    if 1 in extra and photometric == WHITE_0:
        return draw(number + 100_000, profiles, press, sizes)
    fields: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (0,)),
        257: (4, (0,)),
        258: (3, (bits,) * samples.shape[2]),
        259: (3, (compression,)),
        262: (3, (photometric,)),
        277: (3, (samples.shape[2],)),
        284: (3, (planar,)),
    }
    if declared:
        fields[EXTRA] = (3, declared)
    if kind != "u":
        fields[FORMAT] = (3, ({"i": 2, "f": 3}[kind],) * samples.shape[2])
    elif rng.random() < 0.1:
        fields[FORMAT] = (3, (4,) * samples.shape[2])
    if orientation > 1:
        fields[ORIENTATION] = (3, (orientation,))
    if predictor > 1:
        fields[317] = (3, (predictor,))
    if photometric == PALETTE:
        fields[320] = (3, tuple(palette(bits).T.ravel().tolist()))
    if photometric == YCC:
        fields[530] = (3, (1, 1))
    if compression == LERC:
        fields[50674] = (4, (4, 0))
    if profile:
        fields[PROFILE] = (7, tuple(profiles[profile]))
    raw = np.ascontiguousarray(pictures.stored(samples, orientation))
    fields[256], fields[257] = (4, (raw.shape[1],)), (4, (raw.shape[0],))
    chunks = [
        compressed(np.ascontiguousarray(part), bits, compression, predictor, order)
        for plane in (np.split(raw, raw.shape[2], axis=2) if planar == 2 else [raw])
        for part in (tiles(plane, tile) if tile else strips(plane, rows_per_strip))
    ]
    if tile:
        fields |= {322: (4, (tile[0],)), 323: (4, (tile[1],))}
    else:
        fields[278] = (4, (min(rows_per_strip, raw.shape[0]),))
    place = pick("front", "back", "between")
    data = put_together(
        [Page(fields, chunks, tiled=bool(tile))], order=order, big=bool(rng.random() < 0.15), place=place
    )
    lossy = compression == JPEG
    tolerance = 6.0 if lossy else 1.5
    mean = 1.2 if lossy else 0.6
    if photometric in (LAB, ICCLAB) or 1 in extra or profile == "adobe" or photometric == INKS:
        tolerance, mean = max(tolerance, 12.0 if lossy or 1 in extra else 4.0), max(mean, 1.0)
    if profile == "adobe" and (bits > 8 or lossy):  # the oracle's eight bits are coarse in the shades
        tolerance = 25.0
    if photometric in (LAB, ICCLAB):
        # JPEG rounds L*, a* and b*: libjpeg and LittleCMS alone show these files with differences of up to 9 levels
        tolerance, mean = (10.0 if lossy else 4.0), 1.0
    name = (
        f"{number}-p{photometric}-{kind}{bits}-c{compression}-{'planar' if planar == 2 else 'mixed'}-"
        f"{'tile' + 'x'.join(map(str, tile)) if tile else 'strip' + str(rows_per_strip)}-"
        f"e{''.join(map(str, extra)) or 'x'}-o{orientation}-q{predictor}-{profile or 'none'}-{width}x{height}.tif"
    )
    return Input(name, data, pixels, tolerance, mean)


def samples_of(
    photometric: int,
    kind: str,
    bits: int,
    shown: pictures.Real,
    colours: int,
    profile: str | None,
    profiles: dict[str, bytes],
    press: bytes,
) -> tuple[Samples, Pixels]:
    """Samples to store, and the colours that they mean at 8 bits."""
    if photometric in (LAB, ICCLAB):
        lab = pictures.to_lab(np.rint(shown[..., :3] * 255).astype(np.uint8))
        rgb = pictures.from_lab(lab)
        more = pictures.steps(shown[..., 3:], bits)
        signed = lab.copy() if photometric == LAB else lab ^ np.array([0, 128, 128], np.uint8)
        if bits == 16:
            wide = signed.astype(np.uint16)
            light = 257 if photometric == LAB else 256
            signed = np.stack((wide[..., 0] * light, wide[..., 1] << 8, wide[..., 2] << 8), axis=-1).astype(np.uint16)
        return np.concatenate((signed, more.astype(signed.dtype)), axis=2), rgb
    if photometric == YCC:
        ycc = pictures.to_ycc(np.rint(shown[..., :3] * 255).astype(np.uint8))
        rgb = pictures.from_ycc(ycc)
        if profile == "adobe":
            rgb = pictures.by_profile(rgb, profiles["adobe"])
        more = np.rint(shown[..., 3:] * 255).astype(np.uint8)
        return np.concatenate((ycc, more), axis=2), rgb
    if kind == "f":
        samples: Samples = shown.astype(f"f{bits // 8}")
        eight = np.rint(samples[..., :colours].astype(np.float64) * 255).astype(np.uint8)
    else:
        numbers = pictures.steps(shown, bits)
        eight = pictures.shown_8(numbers[..., :colours], bits)
        if kind == "i":
            numbers = numbers - (1 << bits - 1)
        samples = numbers.astype(f"{kind}{1 if bits <= 8 else 2 if bits <= 16 else 4}")
    if photometric == PALETTE:
        rgb = (palette(bits) >> 8).astype(np.uint8)[samples[..., 0]]
        return samples, pictures.by_profile(rgb, profiles["adobe"]) if profile == "adobe" else rgb
    if photometric == WHITE_0:
        eight = 255 - eight
    if photometric == INKS:
        own = profiles["inks"] if profile == "inks" else press
        return samples, pictures.by_profile(eight, own, "CMYK")
    if profile == "adobe" and colours == 3:
        eight = pictures.by_profile(eight, profiles["adobe"])
    if profile == "grey" and colours == 1:
        eight = pictures.by_profile(eight, profiles["grey"])[..., :1]
    return samples, eight


def palette(bits: int) -> npt.NDArray[np.int64]:
    """Red, green and blue of each index, of 16 bits: (entries, 3). No two are alike, none is grey."""
    index = np.arange(1 << bits)
    share = index / max(1, len(index) - 1)
    return np.stack((share * 255, (1 - share) * 255, 60 + share * 100), axis=-1).astype(np.int64) * 257


def strips(plane: Samples, rows: int) -> list[Samples]:
    return [plane[y : y + rows] for y in range(0, plane.shape[0], rows)]


def tiles(plane: Samples, tile: tuple[int, int]) -> list[Samples]:
    """Whole tiles, row by row; what is beyond the edge repeats the last column and row."""
    width, height = tile
    filled = np.pad(plane, ((0, -plane.shape[0] % height), (0, -plane.shape[1] % width), (0, 0)), mode="edge")
    return [
        filled[y : y + height, x : x + width]
        for y in range(0, filled.shape[0], height)
        for x in range(0, filled.shape[1], width)
    ]
