"""TIFF and BigTIFF: tiles, strips and pyramids, read by the part that is needed.

ifd            bytes -> directories of fields
ifd_chain      header -> first directory -> its other levels    (sans-I/O)
ifd_prefetch   where the directories not yet linked should be, by those in front
ifd_tail       the same, by those in the file's last bytes
pages          the directories that start a page
page           one directory -> a grid of tiles, or a refusal by name
layout         pages -> levels; box and size -> spans -> a small TIFF
writer         headers and directories; the small TIFF
pyramid        the pyramids that special makes: their grid, directories and index
embedded_jpeg  a stored JPEG tile -> a JPEG
empty_tile     a JPEG tile of zeros
serial         directories <-> bytes
"""

from __future__ import annotations

from special.errors import Malformed
from special.formats.layout import Layout
from special.formats.parser import Parser
from special.formats.tiff import pyramid, serial
from special.formats.tiff.ifd import Field, header
from special.formats.tiff.ifd_chain import directories
from special.formats.tiff.layout import TiffLayout
from special.formats.tiff.page import JPEG_BITS, Page, StoredTile, read_page
from special.formats.tiff.pages import PageIndex
from special.formats.tiff.pyramid import HEAD_BYTES, WANTED, Grid, Place, PyramidGrids, PyramidIndex, Wanted
from special.formats.tiff.tags import (
    BYTES,
    COLOUR_SAMPLES,
    JPEG_2000,
    LAB,
    PREDICTED,
    Compression,
    Photometric,
    SampleFormat,
    Tag,
    Type,
)
from special.formats.tiff.writer import rebuild_page

__all__ = [
    "BYTES",
    "COLOUR_SAMPLES",
    "HEAD_BYTES",
    "JPEG_2000",
    "JPEG_BITS",
    "LAB",
    "PREDICTED",
    "WANTED",
    "Compression",
    "Field",
    "Grid",
    "Page",
    "PageIndex",
    "Photometric",
    "Place",
    "PyramidGrids",
    "PyramidIndex",
    "SampleFormat",
    "StoredTile",
    "Tag",
    "TiffLayout",
    "Type",
    "Wanted",
    "ends_matter",
    "load",
    "parse",
    "pyramid",
    "read_page",
    "rebuild_page",
    "sniff",
]

MAGIC = serial.MAGIC
"""How the serial form starts."""


def sniff(head: bytes) -> bool:
    """Whether a file that starts like this (4 bytes are enough) is a TIFF, classic or big."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def ends_matter(head: bytes) -> bool:
    """Whether the directories of a TIFF are behind the bytes that it starts with."""
    try:
        return header(head)[1] > len(head)
    except Malformed:
        return False


def parse(size_bytes: int, page: int = 1, index: PageIndex | None = None, *, tail_bytes: int = 0) -> Parser[Layout]:
    """The layout of a page of a TIFF, whose last `tail_bytes` are at hand.

    A page behind the first is looked for from the last one that is in the index. Raises `Malformed`, `NoSuchPage`, or
    `Unsupported` by name.
    """
    at = None if page == 1 else (yield from (index or PageIndex()).find(page, size_bytes))
    found, fault = yield from directories(size_bytes, page_at=at, tail_bytes=tail_bytes)
    return TiffLayout.of(found, size_bytes=size_bytes, fault=fault)


def load(data: bytes) -> Layout:
    """The layout that `dump` wrote. Raises `Malformed` for anything else."""
    found, size_bytes, fault = serial.load(data)
    return TiffLayout.of(found, size_bytes=size_bytes, fault=fault)
