"""JPEG tiles of a TIFF, decoded by libjpeg-turbo without libtiff in between.

The commonest master of all is a tiled TIFF with JPEG inside, and the commonest piece of it a few
tiles. Each of its tiles is a JPEG that lacks only its tables: with them it goes through simplejpeg.
(512² across nine tiles, decoded and encoded: 3.1 ms, by libvips 5.4.) Whatever is out of the ordinary is
left to libvips, which reads all of TIFF.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import simplejpeg

from special.codecs.jpeg import MAX_BYTES, read_head
from special.codecs.raster import Raster
from special.formats.tiff import Compression, Page, Photometric

MAX_TILES: Final = 256
"""Maximum number of tiles; a larger piece is left to libvips, which decodes only the part that is needed."""
_CHANNELS: Final = {Photometric.MIN_IS_BLACK: 1, Photometric.RGB: 3, Photometric.YCBCR: 3}
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"

# Adobe's APP14 says how three channels are meant, which TIFF says in a tag: its last byte is 0 for RGB, 1 for YCbCr.
_ADOBE: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_MEANING: Final = {
    Photometric.MIN_IS_BLACK: b"",
    Photometric.RGB: _ADOBE + b"\x00",
    Photometric.YCBCR: _ADOBE + b"\x01",
}


def is_ordinary(page: Page) -> bool:
    """Whether a page is a moderate number of 8-bit grey or colour JPEG tiles."""
    return (
        page.compression is Compression.JPEG
        and page.tiled
        and page.planes == 1
        and page.bits == 8
        and _CHANNELS.get(page.photometric) == page.samples
        and page.tile_count <= MAX_TILES
        and page.size.area * page.samples <= MAX_BYTES
    )


def decode(data: bytes, page: Page) -> Raster | None:
    """All pixels of an ordinary page, in the file's own colours; None where a tile is missing or has a fault.

    None also where a tile has several scans: libtiff decodes it, and bounds them. One copy, of each tile into its
    place, out of memory that is in the processor's cache; a page of one tile is not copied at all.
    """
    prefix = _SOI + _MEANING[page.photometric] + page.tables.removeprefix(_SOI).removesuffix(_EOI)
    colours = "GRAY" if page.samples == 1 else "RGB"
    one_tile = np.empty(page.tile.area * page.samples, np.uint8)
    raster = np.empty((page.size.height, page.size.width, page.samples), np.uint8)
    for stored in page.tiles():
        body = data[stored.offset : stored.offset + stored.length]
        head = read_head(body) if body.startswith(_SOI) else None
        if head is None or not head.is_one_scan:
            return None
        try:
            tile: Raster = simplejpeg.decode_jpeg(prefix + body[2:], colorspace=colours, buffer=one_tile)
        except ValueError:
            return None
        if tile.shape != (page.tile.height, page.tile.width, page.samples):
            return None
        if page.tile_count == 1:
            return tile[: page.size.height, : page.size.width]
        box = stored.box
        raster[box.y : box.bottom, box.x : box.right] = tile[: box.height, : box.width]
    return raster
