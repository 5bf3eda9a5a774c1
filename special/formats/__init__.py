"""Formats of masters: from a file's first bytes to its `Layout`. Sans-I/O, pure.

A format is recognised by the content alone; names and media types are ignored.
"""

from __future__ import annotations

from special.errors import Malformed, NoSuchPage, NotAnImage, Unsupported
from special.formats import avif, jp2, jpeg, pdf, tiff, whole
from special.formats.extras import has_extra, require_extra
from special.formats.layout import Extract, Format, Layout, Piece, Sheet, Stored, Tiling
from special.formats.parser import Parser, drive, solve
from special.formats.tiff import PageIndex
from special.formats.whole import PNG_DEPTHS, WholeLayout, first_frame
from special.storage import Span

__all__ = [
    "PDF_DPI",
    "PNG_DEPTHS",
    "Extract",
    "Format",
    "Layout",
    "PageIndex",
    "Parser",
    "Piece",
    "Sheet",
    "Stored",
    "Tiling",
    "WholeLayout",
    "drive",
    "ends_matter",
    "first_frame",
    "has_extra",
    "load",
    "parse",
    "require_extra",
    "solve",
]

PDF_DPI = 300
"""Pixels per inch of a page of a PDF, where nothing else is said: what books are scanned at."""
SNIFF_BYTES = 32
"""Enough to tell all formats apart."""
PARSERS = (
    (jp2.sniff, jp2.parse),
    (jpeg.sniff, jpeg.parse),
    (whole.is_png, whole.parse_png),
    (whole.is_webp, whole.parse_webp),
    (whole.is_gif, whole.parse_gif),
    (whole.is_bmp, whole.parse_bmp),
    (avif.sniff, avif.parse),
)
"""For each format of one page, the test of a file's first bytes, and its parser."""
OTHERS = (
    ("HEIF", b"ftyphei", 4),
    ("HEIF", b"ftypmif1", 4),
    ("JPEG XL", b"\xff\x0a", 0),
    ("JPEG XL", b"\0\0\0\x0cJXL ", 0),
    ("JPEG XR", b"II\xbc\x01", 0),
    ("Photoshop", b"8BPS", 0),
    ("DjVu", b"AT&TFORM", 0),
)
"""Formats that are refused by name: their first bytes, and where those are."""
LOADERS = (
    (tiff.MAGIC, tiff.load),
    (jp2.MAGIC, jp2.load),
    (whole.MAGIC, whole.load),
    (whole.WITHOUT_DENSITY, whole.load),
    (pdf.MAGIC, pdf.load),
)
"""For each serial form, its first bytes (name and version) and the function that reads it."""


def ends_matter(head: bytes, size_bytes: int) -> bool:
    """Whether the layout of a master that starts like this is in its last bytes, too."""
    return size_bytes > len(head) and (
        (tiff.sniff(head) and tiff.ends_matter(head)) or whole.is_png(head) or pdf.sniff(head)
    )


def parse(
    size_bytes: int, page: int = 1, index: PageIndex | None = None, *, tail_bytes: int = 0, pdf_dpi: int = PDF_DPI
) -> Parser[Layout]:
    """The layout of a page of a master of `size_bytes`, recognised by its content.

    `index` has what is known of its pages, and is added to. Its last `tail_bytes` are at hand: asking for them costs
    nothing. A page of a PDF has `pdf_dpi` pixels per inch. Raises `Malformed` for a broken file, `Unsupported` by name
    for one that nothing here decodes, `NoSuchPage`.
    """
    if not size_bytes:
        raise Malformed("the master is empty: 0 bytes")
    (head,) = yield [Span(0, min(SNIFF_BYTES, size_bytes))]
    if tiff.sniff(head):
        return (yield from tiff.parse(size_bytes, page, index, tail_bytes=tail_bytes))
    if pdf.sniff(head):
        return (yield from pdf.parse(size_bytes, page, pdf_dpi))
    for sniff, parse_format in PARSERS:
        if sniff(head):
            if page > 1:
                raise NoSuchPage(page, 1)
            return (yield from parse_format(size_bytes))
    name = next((name for name, start, at in OTHERS if head[at:].startswith(start)), None)
    told = f"the master is a file of {name}" if name else f"the master starts with {head[:12]!r}"
    why = "not a TIFF, JPEG 2000, JPEG, PNG, WebP, GIF, AVIF, BMP or PDF"
    raise (Unsupported if name else NotAnImage)(f"{told}: {why}")


def load(data: bytes) -> Layout:
    """The layout whose `dump` gave these bytes. Raises `Malformed` for those of another version."""
    for magic, load_format in LOADERS:
        if data.startswith(magic):
            return load_format(data)
    raise Malformed(
        f"a stored layout starts with {data[:12]!r}, which this version does not write; read the master again"
    )
