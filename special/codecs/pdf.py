"""Pages of PDFs by PDFium, an extra: `pip install 'special-iiif[pdf]'`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np

from special.codecs.raster import Raster
from special.errors import Malformed, Unsupported
from special.formats import Sheet, has_extra, require_extra
from special.geometry import Box

PAPER: Final = 255
"""White, where a page has nothing."""
TOLERANCE: Final = 1.5
"""By how many pixels a page's sides may differ from what they should be: both were rounded."""


def prepare() -> None:
    """Load the library where it is installed: a sandbox allows no file afterwards."""
    if has_extra("pdf"):
        import pypdfium2_raw as pdfium

        pdfium.FPDF_InitLibrary()


def decode(data: bytes, sheet: Sheet, *, area: Box, reduce: int) -> Raster:
    """A part of a page, `area` in pixels of the whole, drawn at 1/2**reduce on white paper, annotations included.

    The raster has 3 channels and the size of `area.size.reduced(reduce)`.

    Raises `Malformed`, `Unsupported`. Fonts that are not in the file are replaced by those that PDFium brings.
    """
    require_extra("pdf", "PDF")  # its layout may have come from a machine that has it
    import pypdfium2_raw as pdfium

    size = area.size.reduced(reduce)
    pixels: Raster = np.full((size.height, size.width, 3), PAPER, np.uint8)
    with _page(pdfium, data, sheet.page) as page:
        wide, high = pdfium.FPDF_GetPageWidthF(page), pdfium.FPDF_GetPageHeightF(page)
        if not (wide > 0 and high > 0):
            raise Malformed(f"PDFium finds a page of {wide:g}×{high:g} points")
        across, down = sheet.size.width / wide, sheet.size.height / high
        if abs(across * high - sheet.size.height) > max(TOLERANCE, TOLERANCE * high / wide):
            raise Malformed(f"PDFium finds a page of {wide:g}×{high:g} points, the PDF's tree of pages another")
        scale = 1 / (1 << reduce)
        matrix = pdfium.FS_MATRIX(across * scale, 0, 0, down * scale, -area.x * scale, -area.y * scale)
        clip = pdfium.FS_RECTF(0, 0, size.width, size.height)
        bitmap = pdfium.FPDFBitmap_CreateEx(
            size.width, size.height, pdfium.FPDFBitmap_BGR, pixels.ctypes.data_as(ctypes.c_void_p), pixels.strides[0]
        )
        if not bitmap:
            raise Malformed(f"PDFium has no place for {size.width}×{size.height} pixels")
        try:
            flags = pdfium.FPDF_ANNOT | pdfium.FPDF_REVERSE_BYTE_ORDER
            pdfium.FPDF_RenderPageBitmapWithMatrix(bitmap, page, matrix, clip, flags)
        finally:
            pdfium.FPDFBitmap_Destroy(bitmap)
    return pixels


@contextmanager
def _page(pdfium: Any, data: bytes, number: int) -> Iterator[Any]:
    with ExitStack() as stack:
        document = pdfium.FPDF_LoadMemDocument64(data, len(data), None)
        if not document:
            code = pdfium.FPDF_GetLastError()
            if code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
                raise Unsupported("the PDF is encrypted")
            raise Malformed(f"PDFium does not open the PDF (error {code})")
        stack.callback(pdfium.FPDF_CloseDocument, document)
        page = pdfium.FPDF_LoadPage(document, number - 1)
        if not page:
            raise Malformed(f"PDFium does not open page {number} of the PDF")
        stack.callback(pdfium.FPDF_ClosePage, page)
        yield page
