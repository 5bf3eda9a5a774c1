"""Pages of a TIFF whose samples are stored apart, where libvips does not read them: plane by plane, then joined."""

from __future__ import annotations

from special.codecs import colour, vips
from special.codecs.colour import TIFF_COLOURS
from special.codecs.raster import INTERPRETATIONS, VipsImage
from special.formats.tiff import Page, Photometric, as_grey_pages
from special.geometry import ceil_div

GREYS = {Photometric.MIN_IS_BLACK, Photometric.MIN_IS_WHITE}


def is_needed(page: Page) -> bool:
    """Whether libvips refuses the page's planes (tiles), or takes them for interleaved samples (strips of grey)."""
    return page.planes > 1 and (page.tiled or page.photometric in GREYS)


def decode(data: bytes, page: Page) -> VipsImage:
    """The page with its samples joined, all of it decoded. One copy of `data`. Raises `pyvips.Error`."""
    pages = as_grey_pages(data, page)
    first, *others = (vips.load(pages, "tiff", page=plane) for plane in range(page.planes))
    meaning = "grey" if page.photometric in GREYS else TIFF_COLOURS[page.photometric]
    interpretation = INTERPRETATIONS[meaning, ceil_div(page.bits, 8)]
    # Decoded here and now: libvips does not keep the bytes of `pages` alive.
    image = first.bandjoin(others).copy(interpretation=interpretation).copy_memory()
    return colour.with_profile(image, page.profile) if page.profile else image
