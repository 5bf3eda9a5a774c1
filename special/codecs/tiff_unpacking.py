"""Samples of a TIFF that libvips refuses or misreads, unpacked from the bytes of each tile.

These are samples of uncommon depths and formats, in tiles of uncommon sides, apart from each other, in L*a*b*, with a
palette and opacity, or in compressions that the libtiff inside libvips' wheel lacks. pillow's wheel has a libtiff with
more of them: it is given each tile as a grey picture whose pixels are the bytes of samples.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import (
    Image as PillowImage,
)
from PIL import (
    TiffImagePlugin,  # noqa: F401  pillow would import it with the first file, when none may be opened any more
)

from special.codecs import colour, lab
from special.codecs.raster import INTERPRETATIONS, Colour, Raster, VipsImage, to_vips
from special.errors import Malformed
from special.formats import has_extra, require_extra
from special.formats.tiff import (
    JPEG_BITS,
    LAB,
    PREDICTED,
    Compression,
    Field,
    Page,
    Photometric,
    SampleFormat,
    StoredTile,
    Tag,
    Type,
    rebuild_page,
)
from special.geometry import Size

Samples = npt.NDArray[np.uint8 | np.uint16]
Raw = npt.NDArray[Any]
"""Samples as they are stored: unsigned, signed or floats, of any byte order."""

MEANINGS: Final[dict[Photometric, Colour]] = {
    Photometric.MIN_IS_WHITE: "grey",
    Photometric.MIN_IS_BLACK: "grey",
    Photometric.RGB: "srgb",
    Photometric.PALETTE: "srgb",
    Photometric.SEPARATED: "cmyk",
    Photometric.YCBCR: "srgb",
    Photometric.CIELAB: "srgb",
    Photometric.ICCLAB: "srgb",
}
"""What the colours are once they are unpacked; YCbCr is converted later."""
GROUP_BYTES: Final = 16 << 20
"""How many bytes are unpacked at a time, unless one tile has more: each time costs 0.2 ms, and a strip may be a row."""
_BAND_SAMPLES: Final = 1 << 20
_KINDS: Final = {SampleFormat.UNSIGNED: "u", SampleFormat.SIGNED: "i", SampleFormat.FLOAT: "f"}
_PREDICT_PIXELS, _PREDICT_FLOATS = 2, 3  # Predictor (TIFF 6.0 section 14; TIFF Technical Note 3)


def prepare() -> None:
    """Load all that this needs: a sandbox may allow no file afterwards."""
    PillowImage.preinit()
    if has_extra("imagecodecs"):
        import imagecodecs

        for name in ("lerc_decode", "jpegxl_decode", "zstd_decode", "jpeg8_decode"):
            getattr(imagecodecs, name)  # its modules are loaded when they are first used


def decode(data: bytes, page: Page) -> VipsImage:
    """The page's samples as 8 or 16 bits at full range, colours as grey, RGB or CMYK, extra samples behind them.

    Floats count from 0 to 1, or between SMinSampleValue and SMaxSampleValue; others are clipped. Signed integers
    count from their least value. All of it is in memory. Raises `Malformed`.
    """
    is_coded = page.photometric in LAB or page.photometric is Photometric.PALETTE
    depth = np.uint8 if page.bits <= 8 else np.uint16
    pixels: Samples = np.empty((page.size.height, page.size.width, page.samples), depth)
    scale = (lambda raw: raw) if is_coded else _scaling(page)
    for tile, raw in _tiles(data, page):
        box, channels = tile.box, slice(tile.plane, tile.plane + raw.shape[2])
        pixels[box.y : box.bottom, box.x : box.right, channels] = scale(raw[: box.height, : box.width])
    match page.photometric:
        case Photometric.MIN_IS_WHITE:
            np.invert(pixels[..., 0], out=pixels[..., 0])
        case Photometric.PALETTE:
            pixels = _from_palette(pixels, page)
        case Photometric.CIELAB | Photometric.ICCLAB:
            pixels = _from_lab(pixels, page)
    image = to_vips(pixels).copy(interpretation=INTERPRETATIONS[MEANINGS[page.photometric], pixels.itemsize])
    return colour.with_profile(image, page.profile) if page.profile and page.photometric not in LAB else image


def _tiles(data: bytes, page: Page) -> Iterator[tuple[StoredTile, Raw]]:
    """Each tile of the page with its samples, (height, width, samples of a plane): those of a whole tile, or fewer."""
    group: list[StoredTile] = []
    for tile in page.tiles():
        if tile.length:
            group.append(tile)
            is_low = not page.tiled and tile.box.height < page.tile.height  # the last strip of a plane
            if is_low or len(group) * page.row_bytes * page.tile.height >= GROUP_BYTES:
                yield from zip(group, _unpacked(data, page, group), strict=True)
                group = []
        else:  # it was never written
            channels = page.samples // page.planes
            yield tile, np.zeros((tile.box.height, tile.box.width, channels), _stored_type(page))
    if group:
        yield from zip(group, _unpacked(data, page, group), strict=True)


def _unpacked(data: bytes, page: Page, group: Sequence[StoredTile]) -> Iterator[Raw]:
    """The samples of tiles that are stored."""
    encoded = [data[tile.offset : tile.offset + tile.length] for tile in group]
    heights = [page.tile.height if page.tiled else tile.box.height for tile in group]
    channels = page.samples // page.planes
    is_deep_jpeg = page.compression is Compression.JPEG and page.bits != JPEG_BITS
    if is_deep_jpeg or page.compression in (Compression.LERC, Compression.JPEG_XL, Compression.JPEG_XL_DNG):
        for body, height in zip(encoded, heights, strict=True):
            yield _by_imagecodecs(body, page, (height, page.tile.width, channels))
        return
    if page.compression is Compression.NONE:
        rows = _rows_as_they_are(encoded, heights, page)
    elif page.compression is Compression.JPEG:
        rows = _by_libtiff(encoded, heights, page.tile.width, channels, page)
    else:
        rows = _by_libtiff(encoded, heights, page.row_bytes, 1, page)[..., 0]
    at = 0
    for height in heights:
        part = rows[at : at + height]
        yield part if page.compression is Compression.JPEG else _samples(part, page)
        at += height


def _rows_as_they_are(encoded: Sequence[bytes], heights: Sequence[int], page: Page) -> npt.NDArray[np.uint8]:
    """Rows of bytes, (height, bytes), of tiles that are not compressed; what is behind their last rows is left out."""
    row_bytes = page.row_bytes
    for body, height in zip(encoded, heights, strict=True):
        if len(body) < height * row_bytes:
            raise Malformed(f"{len(body)} bytes of samples in a TIFF, where {height} rows take {height * row_bytes}")
    stored = b"".join(body[: height * row_bytes] for body, height in zip(encoded, heights, strict=True))
    rows = np.frombuffer(stored, np.uint8).reshape(sum(heights), row_bytes)
    if page.directory.number(Tag.FILL_ORDER, 1) == 2:  # of each byte, whatever it is part of
        return np.packbits(np.unpackbits(rows, axis=1, bitorder="little"), axis=1)
    return rows


def _by_libtiff(
    encoded: Sequence[bytes], heights: Sequence[int], width: int, channels: int, page: Page
) -> npt.NDArray[np.uint8]:
    """The tiles one above the other, (height, width, channels), as strips of bytes; only the last one may be lower."""
    size, strip = Size(width, sum(heights)), Size(width, heights[0])
    order, fields = page.directory.order, page.directory.fields

    def numbers(tag: Tag, *values: int) -> Field:
        return Field(tag, Type.SHORT, len(values), 0, struct.pack(f"{order}{len(values)}H", *values))

    photometric = Photometric.RGB if channels > 2 else Photometric.MIN_IS_BLACK
    copied = [
        numbers(Tag.BITS_PER_SAMPLE, *[8] * channels),
        numbers(Tag.PHOTOMETRIC, photometric),
        numbers(Tag.SAMPLES_PER_PIXEL, channels),
        *([numbers(Tag.EXTRA_SAMPLES, 2)] if channels in (2, 4) else []),
        *(fields[tag] for tag in (Tag.COMPRESSION, Tag.FILL_ORDER, Tag.JPEG_TABLES) if tag in fields),
    ]
    places, at = [], 0
    for body in encoded:
        places.append((at, len(body)))
        at += len(body)
    file = rebuild_page(order, copied, size=size, tile=strip, tiled=False, places=places, data=encoded)
    try:
        with PillowImage.open(io.BytesIO(file), formats=["TIFF"]) as image:
            rows = np.asarray(image)
    except (OSError, SyntaxError, ValueError, TypeError, PillowImage.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's fault, not the file's
        raise Malformed(f"libtiff does not undo {page.compression.name} in a TIFF: {error}") from error
    return rows.reshape(size.height, size.width, channels)


def _by_imagecodecs(body: bytes, page: Page, shape: tuple[int, int, int]) -> Raw:
    require_extra("imagecodecs", f"{page.compression.name} in a TIFF")
    import imagecodecs

    try:
        if page.compression is Compression.LERC:
            # LercParameters: the version, and by what the tile is compressed once more
            more = (*page.directory.numbers(Tag.LERC_PARAMETERS), 0, 0)[1]
            plain = zlib.decompress(body) if more == 1 else imagecodecs.zstd_decode(body) if more else body
            raw = imagecodecs.lerc_decode(plain)
        elif page.compression is Compression.JPEG:
            shown = "GRAYSCALE" if shape[2] == 1 else "RGB"
            stored = "YCBCR" if page.photometric is Photometric.YCBCR else shown
            raw = imagecodecs.jpeg8_decode(body, tables=page.tables or None, colorspace=stored, outcolorspace=shown)
        else:
            raw = imagecodecs.jpegxl_decode(body)
    except (RuntimeError, ValueError, zlib.error) as error:
        raise Malformed(f"imagecodecs does not undo {page.compression.name} in a TIFF: {error}") from error
    if raw.size != np.prod(shape) or raw.dtype != _stored_type(page).newbyteorder("="):
        raise Malformed(f"a tile of {raw.shape} samples of {raw.dtype} in a TIFF of {shape} of {page.bits} bits")
    return np.asarray(raw).reshape(shape)


def _stored_type(page: Page) -> np.dtype[Any]:
    """What a sample is once it has bytes of its own."""
    width = next(width for width in (1, 2, 4, 8) if page.bits <= 8 * width)
    return np.dtype(f"{page.directory.order}{_KINDS[page.sample_format]}{width}")


def _samples(rows: npt.NDArray[np.uint8], page: Page) -> Raw:
    """Rows of bytes, (height, bytes), as samples, (height, width, samples of a plane), with the predictor undone."""
    height, channels = rows.shape[0], page.samples // page.planes
    shape = (height, page.tile.width, channels)
    if page.bits % 8:
        return _from_bits(rows, page.bits, page.tile.width * channels).reshape(shape)
    predictor = page.directory.number(Tag.PREDICTOR, 1) if page.compression in PREDICTED else 1
    stored = _stored_type(page)
    if predictor == _PREDICT_FLOATS:
        steps = np.cumsum(rows.reshape(height, -1, channels), axis=1, dtype=np.uint8)
        planes = steps.reshape(height, page.bits // 8, -1)  # the highest bytes of all samples first
        return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(stored.newbyteorder(">")).reshape(shape)
    samples: Raw = np.ascontiguousarray(rows).view(stored).reshape(shape)
    if predictor == _PREDICT_PIXELS:
        unsigned = np.dtype(f"u{stored.itemsize}")
        steps = samples.view(unsigned.newbyteorder(page.directory.order))
        return np.cumsum(steps, axis=1, dtype=unsigned).view(stored.newbyteorder("="))
    return samples


def _from_bits(rows: npt.NDArray[np.uint8], bits: int, count: int) -> Samples:
    """`count` numbers of `bits` bits, the highest first, of each row (TIFF 6.0 section 2, FillOrder)."""
    numbers: Samples = np.empty((rows.shape[0], count), np.uint8 if bits <= 8 else np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(numbers.dtype)
    step = max(1, _BAND_SAMPLES // count)
    for at in range(0, len(rows), step):
        ones = np.unpackbits(rows[at : at + step], axis=1, count=count * bits)
        numbers[at : at + step] = (ones.reshape(-1, count, bits) * weights).sum(axis=2, dtype=numbers.dtype)
    return numbers


def _scaling(page: Page) -> Callable[[Raw], Samples]:
    """What makes samples of 8 or 16 bits at full range of the stored ones."""
    bits = page.bits
    if page.sample_format is SampleFormat.FLOAT:
        low, high = _range(page)
        return lambda raw: _clipped(raw, low, high)
    if bits not in (8, 16, 32):
        full = 255 if bits < 8 else 65535
        depth = np.uint8 if bits < 8 else np.uint16
        steps = np.rint(np.arange(1 << bits) * (full / ((1 << bits) - 1))).astype(depth)
        return lambda raw: steps[raw]
    middle = 1 << bits - 1 if page.sample_format is SampleFormat.SIGNED else 0

    def scaled(raw: Raw) -> Samples:
        native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        numbers: Samples = np.bitwise_xor(native.view(f"u{raw.itemsize}"), middle)
        return (numbers >> 16).astype(np.uint16) if bits == 32 else numbers

    return scaled


def _clipped(raw: Raw, low: float, high: float) -> Samples:
    scaled: Samples = np.nan_to_num((raw.astype(np.float64) - low) * (65535 / (high - low)), nan=0.0).clip(0, 65535)
    return np.rint(scaled).astype(np.uint16)


def _range(page: Page) -> tuple[float, float]:
    """Black and white of floats."""
    low, high = (
        min(page.directory.reals(Tag.S_MIN_SAMPLE_VALUE), default=0.0),
        max(page.directory.reals(Tag.S_MAX_SAMPLE_VALUE), default=1.0),
    )
    return (low, high) if low < high else (0.0, 1.0)


def _from_lab(pixels: Samples, page: Page) -> Samples:
    """L*, a* and b*, the first samples, as sRGB of 8 bits; other samples behind it."""
    shown = lab.to_srgb(pixels[..., :3], is_offset=page.photometric is Photometric.ICCLAB)
    extra = pixels[..., 3:] if page.bits == 8 else pixels[..., 3:] >> 8
    return np.concatenate((shown, extra.astype(np.uint8)), axis=2)


def _from_palette(pixels: Samples, page: Page) -> Samples:
    """Indices, the first samples, as RGB; other samples at 8 bits behind it."""
    entries = np.array(page.directory.numbers(Tag.COLOR_MAP), np.uint16)
    # Some writers fill the 16 bits of an entry from 0 to 255 only.
    colours: Raster = (entries >> 8 if entries.max() > 255 else entries).astype(np.uint8).reshape(3, -1).T
    extra = pixels[..., 1:] * (255 // ((1 << page.bits) - 1))
    return np.concatenate((colours[pixels[..., 0]], extra.astype(np.uint8)), axis=2)
