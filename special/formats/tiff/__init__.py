"""TIFF and BigTIFF: tiles, strips and pyramids, read by the part that is needed.

directory    offsets -> directories of fields                 (sans-I/O)
page         one directory -> a grid of tiles, or a refusal by name
layout       pages -> levels; box and size -> spans -> a small TIFF
mini         that small TIFF
passthrough  a stored JPEG tile -> a JPEG
serial       directories <-> bytes
"""

from __future__ import annotations

from special.formats.layout import Layout
from special.formats.parser import Parser
from special.formats.tiff import pyramid, serial
from special.formats.tiff.ifd import directories
from special.formats.tiff.layout import TiffLayout
from special.formats.tiff.pyramid import HEAD_BYTES, Grid, Place

__all__ = ["HEAD_BYTES", "Grid", "Place", "TiffLayout", "load", "parse", "pyramid", "sniff"]

MAGIC = serial.MAGIC
"""How the serial form starts."""


def sniff(head: bytes) -> bool:
    """Whether a file that starts like this (4 bytes are enough) is a TIFF, classic or big."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def parse(size_bytes: int) -> Parser[Layout]:
    """The layout of a TIFF's first picture. Raises `Malformed`, or `Unsupported` by name."""
    return TiffLayout.of((yield from directories(size_bytes)), size_bytes=size_bytes)


def load(data: bytes) -> Layout:
    """The layout that `dump` wrote. Raises `Malformed` for anything else."""
    found, size_bytes = serial.load(data)
    return TiffLayout.of(found, size_bytes=size_bytes)
