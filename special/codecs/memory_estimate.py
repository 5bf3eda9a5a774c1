"""How much memory an answer takes while it is made, told from its plan alone. Pure.

Measured as the growth of a decoder's resident memory at its highest, with pictures of 24 megapixels in every
format, at full size, shrunk, turned, and as tiles, and rounded up; the copies that the server holds are counted
besides. The long form of `tests/codecs/test_memory_estimate.py` measures again. libvips decodes PNG and TIFF in
strips, but holds all of an interlaced PNG; libheif holds all of an AVIF, in two bytes a sample of 10 bits; libjpeg
holds the coefficients of a progressive JPEG, OpenJPEG 32 bits for each sample and as much again to work in; so does
PDFium with JPEG 2000 on a page. One exception is not told from a plan: the inks of a CMYK JPEG become colours at full
size, which takes 15 bytes a pixel. The limit of each decoder's own memory is for such.
"""

from __future__ import annotations

from typing import Final

from special.codecs.pyramid_cutter import READ_BYTES, FlatPicture
from special.formats import Extract, Format
from special.geometry import Size, ceil_div
from special.iiif import Job

DECODED: Final[dict[Format, int]] = {
    "jp2": 24,
    "tiff": 8,
    "jpeg": 6,
    "png": 8,
    "webp": 8,
    "gif": 12,
    "avif": 28,
    "bmp": 12,
    "pdf": 30,
}
"""Bytes for each pixel that is decoded, of up to three components."""
INCLUDED: Final = 3
"""Components of JPEG 2000 that these bytes include; each further one takes as much as one of these."""
PLAIN: Final = 6
"""Bytes for each pixel of an answer in JPEG that is not turned: the raster and, three times, the file."""
OTHER: Final = 12
"""Bytes for each pixel of any other answer: a copy that is turned, what encoders hold, and longer files."""
AV1: Final = 28
"""Bytes for each pixel of an answer in AVIF, whose encoder holds planes of its own."""
MARKED: Final = 32
"""Bytes for each pixel of an answer with marks: the copy, the part of a picture that is drawn, and what is mixed."""
ENCODED: Final = 6
"""Copies of what is read: as it came, as one piece, as a message, and whatever a decoder makes of it."""
ROW_PIXEL: Final = 4
"""Bytes for each pixel of the rows that a pyramid is made of: three, and what is on its way to another thread."""
ALWAYS: Final = 8 << 20
"""Bytes for the smallest of answers: what libraries take when they are first used is among them."""


def decode_bytes(format: Format, extract: Extract, job: Job) -> int:  # noqa: A002  the field's name for it
    """The most memory that a job takes, made from this extract of a master in this format."""
    samples = extract.pixels * max(extract.components, INCLUDED)
    return _estimate(format, sum(map(len, extract.spans)), ceil_div(samples, INCLUDED), job)


def rendition_bytes(rendition: Size, job: Job) -> int:
    """The same for a stored rendition that is shrunk: a JPEG, of at most a byte a pixel."""
    return _estimate("jpeg", rendition.area, rendition.area, job)


def pyramid_bytes(picture: FlatPicture, encoded: Extract, *, in_memory: bool) -> int:
    """The most memory that it takes to make all tiles of a picture from one decode.

    `encoded` is the largest piece of it that is decoded at once, of a TIFF, or the whole; `in_memory`: whether its
    codec holds all of its pixels, of an interlaced PNG or a progressive JPEG, rather than some rows.
    """
    # Of each size two rows of tiles, and the rows that come meanwhile; the smaller sizes together are as large.
    rows = 2 * (2 * picture.tile + 2 * picture.band_rows)
    held_bytes = ROW_PIXEL * min(rows, 2 * picture.stored.height) * picture.stored.width
    decoded = encoded.pixels if in_memory else min(encoded.pixels, 2 * picture.band_rows * picture.stored.width)
    read_bytes = sum(map(len, encoded.spans)) if picture.format == "tiff" else 2 * READ_BYTES
    return ALWAYS + ENCODED * read_bytes + DECODED[picture.format] * decoded + held_bytes


def _estimate(format: Format, encoded_bytes: int, pixels: int, job: Job) -> int:  # noqa: A002
    made = PLAIN if job.format == "jpg" and not job.angle and not job.mirror else OTHER
    if job.format == "avif":
        made = AV1
    if job.marks:
        made += MARKED
    return ALWAYS + ENCODED * encoded_bytes + DECODED[format] * pixels + made * job.output.area
