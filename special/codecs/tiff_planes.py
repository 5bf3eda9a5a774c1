"""Tiles of a TIFF that hold one sample each: libvips reads such strips, but no such tiles.

Each plane by itself is a grey picture in ordinary tiles. So a directory for each is put behind the file, and
libvips reads them as pages.
"""

from __future__ import annotations

import struct

from special.codecs import colour, tiff_page, vips
from special.codecs.raster import Image
from special.codecs.tiff_page import COLOURS, GREY, INTERPRETATIONS, Page
from special.errors import Unsupported

FILL_ORDER, PREDICTOR = 266, 317
LONG, UNDEFINED = 4, 7


def decode(data: bytes, page: Page) -> Image:
    """The page with its samples joined, all of it decoded. One copy of `data`. Raises `Unsupported`, `pyvips.Error`."""
    colours = COLOURS.get(page.photometric, 0)
    interpretation = INTERPRETATIONS.get((page.photometric, page.bits))
    if interpretation is None or not colours <= page.samples <= colours + 1:
        raise Unsupported(
            f"{page.samples} samples of {page.bits} bits in separate tiles, in TIFF colour model {page.photometric}"
        )
    pages = _as_pages(data, page)
    first, *others = (vips.load(pages, "tiff", page=plane) for plane in range(page.planes))
    # Decoded here and now: libvips does not keep the bytes of `pages` alive.
    image = first.bandjoin(others).copy(interpretation=interpretation).copy_memory()
    return colour.with_profile(image, page.profile) if page.profile else image


def _as_pages(data: bytes, page: Page) -> bytes:
    """The same classic TIFF with a grey page for each plane."""
    at = len(data) + len(data) % 2
    count = len(page.places) // page.planes
    directories: list[bytes] = []
    for plane in range(page.planes):
        places = page.places[plane * count : (plane + 1) * count]
        fields: dict[int, tuple[int, ...]] = {
            tiff_page.WIDTH: (page.size.width,),
            tiff_page.HEIGHT: (page.size.height,),
            tiff_page.BITS: (page.bits,),
            tiff_page.COMPRESSION: (page.compression,),
            tiff_page.PHOTOMETRIC: (GREY,),
            tiff_page.SAMPLES: (1,),
            tiff_page.TILE_WIDTH: (page.tile.width,),
            tiff_page.TILE_HEIGHT: (page.tile.height,),
            tiff_page.TILE_OFFSETS: tuple(offset for offset, _ in places),
            tiff_page.TILE_COUNTS: tuple(length for _, length in places),
        }
        kept = (FILL_ORDER, PREDICTOR, tiff_page.JPEG_TABLES)
        fields |= {tag: page.tags[tag] for tag in kept if tag in page.tags}
        directory = _directory(page.order, fields, at, is_last=plane == page.planes - 1)
        directories.append(directory)
        at += len(directory)
    first = struct.pack(page.order + "I", len(data) + len(data) % 2)
    return b"".join((data[:4], first, data[8:], bytes(len(data) % 2), *directories))


def _directory(order: tiff_page.Order, fields: dict[int, tuple[int, ...]], at: int, *, is_last: bool) -> bytes:
    """A directory to lie at byte `at`, its long values behind it, and the next one behind those (section 2)."""
    values_at = at + 2 + 12 * len(fields) + 4
    entries, values = [struct.pack(order + "H", len(fields))], b""
    for tag, numbers in sorted(fields.items()):
        kind = UNDEFINED if tag == tiff_page.JPEG_TABLES else LONG
        raw = struct.pack(f"{order}{len(numbers)}{'B' if kind == UNDEFINED else 'I'}", *numbers)
        inline = raw.ljust(4, b"\0")
        if len(raw) > 4:
            inline = struct.pack(order + "I", values_at + len(values))
            values += raw + bytes(len(raw) % 2)
        entries.append(struct.pack(order + "HHI4s", tag, kind, len(numbers), inline))
    following = 0 if is_last else values_at + len(values)
    return b"".join((*entries, struct.pack(order + "I", following), values))
