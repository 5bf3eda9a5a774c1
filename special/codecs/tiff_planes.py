"""Tiles of a TIFF that hold one sample each, which libvips does not read: plane by plane, then joined."""

from __future__ import annotations

from special.codecs import colour, vips
from special.codecs.colour import TIFF_COLOURS
from special.codecs.raster import INTERPRETATIONS, VipsImage
from special.formats.tiff import Page, as_grey_pages


def decode(data: bytes, page: Page) -> VipsImage:
    """The page with its samples joined, all of it decoded. One copy of `data`. Raises `pyvips.Error`."""
    pages = as_grey_pages(data, page)
    first, *others = (vips.load(pages, "tiff", page=plane) for plane in range(page.planes))
    interpretation = INTERPRETATIONS[TIFF_COLOURS[page.photometric], page.bits // 8]
    # Decoded here and now: libvips does not keep the bytes of `pages` alive.
    image = first.bandjoin(others).copy(interpretation=interpretation).copy_memory()
    return colour.with_profile(image, page.profile) if page.profile else image
