"""PDF: the size of a page, found by a few ranges of the file (ISO 32000-1). Pure."""

from __future__ import annotations

from special.formats.pdf.layout import MAGIC, PdfLayout, load, parse, sniff

__all__ = ["MAGIC", "PdfLayout", "load", "parse", "sniff"]
