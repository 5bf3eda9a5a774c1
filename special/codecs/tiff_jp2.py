"""JPEG 2000 tiles of a TIFF: each is a codestream of its own, which no libtiff undoes.

Slide scanners write them. What the samples mean, the TIFF says: a codestream in it says it seldom, and
wrongly at times. Tiles are decoded at full: what a codestream keeps at half its size is not what halving
its pixels gives, and tiles of a pyramid's other levels are already small.
"""

from __future__ import annotations

import numpy as np

from special.codecs import colour, openjpeg
from special.codecs.colour import TIFF_COLOURS
from special.codecs.openjpeg import Samples
from special.codecs.raster import CHANNELS, INTERPRETATIONS, Raster, VipsImage, to_vips
from special.errors import Malformed
from special.formats.jp2 import read_whole
from special.formats.tiff import Compression, Page, Photometric, StoredTile


def decode(data: bytes, page: Page) -> Raster | VipsImage:
    """All pixels of the page: a raster where they are opaque 8-bit sRGB or grey, else an image that holds them.

    A tile that was never written is black. Raises `Malformed` for a tile of another size or other samples than the
    page's.
    """
    is_ycbcr = page.photometric is Photometric.YCBCR
    model = TIFF_COLOURS[Photometric.RGB if is_ycbcr else page.photometric]
    pixels: Samples = np.zeros(
        (page.size.height, page.size.width, page.samples), np.uint8 if page.bits == 8 else np.uint16
    )
    for stored in page.tiles():
        if stored.length:
            tile = _tile(data[stored.offset : stored.offset + stored.length], page, stored)
            box, channels = stored.box, slice(stored.plane, stored.plane + tile.shape[2])
            pixels[box.y : box.bottom, box.x : box.right, channels] = tile[: box.height, : box.width]
    if page.bits == 8 and page.samples == CHANNELS[model] and model != "cmyk":
        return colour.tagged(pixels.astype(np.uint8, copy=False), page.profile)
    image = to_vips(pixels).copy(interpretation=INTERPRETATIONS[model, page.bits // 8])
    return colour.with_profile(image, page.profile) if page.profile else image


def _tile(codestream: bytes, page: Page, stored: StoredTile) -> Samples:
    """One tile's samples, luma and chroma made RGB. At the page's edge it may be cut to what is shown."""
    head = read_whole(codestream)
    if not (head.bounds.size.covers(stored.box.size) and page.tile.covers(head.bounds.size)):
        raise Malformed(f"a JPEG 2000 tile of {head.bounds.size} pixels where the TIFF has tiles of {page.tile}")
    tile = openjpeg.decode_samples(codestream, head, bits=page.bits)
    if tile.shape[2] != page.samples // page.planes:
        raise Malformed(f"a JPEG 2000 tile of {tile.shape[2]} components, in a TIFF of {page.samples} samples")
    # Where components were mixed, OpenJPEG has made RGB of them, whatever the TIFF calls them.
    if page.compression is Compression.APERIO_JPEG_2000_YCBCR or (
        page.photometric is Photometric.YCBCR and not head.mixed
    ):
        if tile.shape[2] < 3:
            raise Malformed(f"a JPEG 2000 tile of {tile.shape[2]} components, in a TIFF that says they are YCbCr")
        grey = 1 << page.bits - 1
        openjpeg.ycc_to_rgb(tile, (grey, grey))
    return tile
