"""JPEG 2000 tiles of a TIFF: each is a codestream of its own, which no libtiff undoes.

Slide scanners write them. What the samples mean, the TIFF says: a codestream in it says it seldom, and
wrongly at times. Tiles are decoded at full: what a codestream keeps at half its size is not what halving
its pixels gives, and tiles of a pyramid's other levels are already small.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from special.codecs import colour, openjpeg
from special.codecs.jp2_head import read_head
from special.codecs.openjpeg import Pixels
from special.codecs.raster import Image, Raster, to_vips
from special.codecs.tiff_page import COLOURS, INTERPRETATIONS, RGB, YCBCR, Page, Place
from special.errors import Malformed, Unsupported

APERIO_YCBCR: Final = 33003
COMPRESSIONS: Final = frozenset({APERIO_YCBCR, 33004, 33005, 34712})
"""Aperio's two, that of Bio-Formats with loss, and the registered one."""


def decode(data: bytes, page: Page) -> Raster | Image:
    """All pixels of the page: a raster where they are opaque 8-bit sRGB or grey, else an image that holds them.

    A tile that was never written is black. Raises `Malformed` for a tile of another size or other samples than the
    page's, `Unsupported` for what is no grey, RGB, YCbCr or CMYK of 8 or 16 bits.
    """
    model = RGB if page.photometric == YCBCR else page.photometric
    colours = COLOURS.get(model, 0)
    if page.bits not in (8, 16) or not 0 < colours <= page.samples <= colours + 1:
        raise Unsupported(
            f"JPEG 2000 tiles of {page.samples} samples of {page.bits} bits in TIFF colour model {page.photometric}"
        )
    pixels: Pixels = np.zeros(
        (page.size.height, page.size.width, page.samples), np.uint8 if page.bits == 8 else np.uint16
    )
    for place in page.grid():
        if place.length:
            tile = _tile(data[place.offset : place.offset + place.length], page, place)
            box, channels = place.box, slice(place.plane, place.plane + tile.shape[2])
            pixels[box.y : box.bottom, box.x : box.right, channels] = tile[: box.height, : box.width]
    if page.bits == 8 and page.samples == colours and colours in (1, 3):
        return colour.tagged(pixels.astype(np.uint8, copy=False), page.profile)
    image = to_vips(pixels).copy(interpretation=INTERPRETATIONS[model, page.bits])
    return colour.with_profile(image, page.profile) if page.profile else image


def _tile(codestream: bytes, page: Page, place: Place) -> Pixels:
    """One tile's samples, luma and chroma made RGB. At the page's edge it may be cut to what is shown."""
    head = read_head(codestream)
    if not (head.bounds.size.covers(place.box.size) and page.tile.covers(head.bounds.size)):
        raise Malformed(f"a JPEG 2000 tile of {head.bounds.size} pixels where the TIFF has tiles of {page.tile}")
    tile = openjpeg.decode_samples(codestream, bits=page.bits)
    if tile.shape[2] != page.samples // page.planes:
        raise Malformed(f"a JPEG 2000 tile of {tile.shape[2]} components, in a TIFF of {page.samples} samples")
    # Where components were mixed, OpenJPEG has made RGB of them, whatever the TIFF calls them.
    if page.compression == APERIO_YCBCR or (page.photometric == YCBCR and not head.mixed):
        if tile.shape[2] < 3:
            raise Malformed(f"a JPEG 2000 tile of {tile.shape[2]} components, in a TIFF that says they are YCbCr")
        grey = 1 << page.bits - 1
        openjpeg.ycc_to_rgb(tile, (grey, grey))
    return tile
