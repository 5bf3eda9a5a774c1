"""Formats of masters: from a file's first bytes to its `Layout`. Sans-I/O, pure.

A format is recognised by the content alone; names and media types are ignored.
"""

from __future__ import annotations

from special.errors import Malformed, NotAnImage
from special.formats import jp2, jpeg, tiff, whole
from special.formats.layout import Extract, Format, Layout, Piece, Stored, Tiling
from special.formats.parser import Parser, drive, solve
from special.storage import Span

__all__ = ["Extract", "Format", "Layout", "Parser", "Piece", "Stored", "Tiling", "drive", "load", "parse", "solve"]

SNIFF_BYTES = 32
"""Enough to tell all formats apart."""
PARSERS = (
    (tiff.sniff, tiff.parse),
    (jp2.sniff, jp2.parse),
    (jpeg.sniff, jpeg.parse),
    (whole.is_png, whole.parse_png),
    (whole.is_webp, whole.parse_webp),
    (whole.is_gif, whole.parse_gif),
)
"""For each format, the test of a file's first bytes, and its parser."""
LOADERS = (
    (tiff.MAGIC, tiff.load),
    (jp2.MAGIC, jp2.load),
    (whole.MAGIC, whole.load),
)
"""For each serial form, its first bytes (name and version) and the function that reads it."""


def parse(size_bytes: int) -> Parser[Layout]:
    """The layout of a master of `size_bytes`, recognised by its content.

    Raises `Malformed` for a broken file, `Unsupported` by name for one that nothing here decodes.
    """
    if not size_bytes:
        raise Malformed("the master is empty: 0 bytes")
    (head,) = yield [Span(0, min(SNIFF_BYTES, size_bytes))]
    for sniff, parse_format in PARSERS:
        if sniff(head):
            return (yield from parse_format(size_bytes))
    raise NotAnImage(f"the master starts with {head[:12]!r}: not a TIFF, JPEG 2000, JPEG, PNG, WebP or GIF")


def load(data: bytes) -> Layout:
    """The layout whose `dump` gave these bytes. Raises `Malformed` for those of another version."""
    for magic, load_format in LOADERS:
        if data.startswith(magic):
            return load_format(data)
    raise Malformed(
        f"a stored layout starts with {data[:12]!r}, which this version does not write; read the master again"
    )
