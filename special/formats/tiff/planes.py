"""A TIFF whose samples are stored apart, with a grey page for each sample.

libvips does not read tiles that hold one sample each, and misreads such strips where the picture is grey. Each plane by
itself is a grey picture in ordinary tiles or strips, so a directory for each is put behind the file.
"""

from __future__ import annotations

from special.formats.tiff import writer
from special.formats.tiff.ifd import header
from special.formats.tiff.page import Page
from special.formats.tiff.tags import Photometric, Tag, Type


def as_grey_pages(data: bytes, page: Page) -> bytes:
    """The same file with a page for each plane of its first page, in their order. One copy of `data`."""
    dialect, _ = header(data[:16])
    if page.tiled:
        grid = [(Tag.TILE_WIDTH, Type.LONG, (page.tile.width,)), (Tag.TILE_LENGTH, Type.LONG, (page.tile.height,))]
        offsets_tag, counts_tag = Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS
    else:
        grid = [(Tag.ROWS_PER_STRIP, Type.LONG, (page.tile.height,))]
        offsets_tag, counts_tag = Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS
    offset_type = Type.LONG8 if dialect.big else Type.LONG
    per_plane = page.columns * page.rows
    offsets, counts = page.offsets.known(), page.counts.known()
    repeated = [
        (entry.tag, entry.type, entry.raw)
        for tag in (Tag.FILL_ORDER, Tag.PREDICTOR, Tag.JPEG_TABLES)
        if (entry := page.directory.fields.get(tag)) is not None and entry.raw is not None
    ]
    padding = bytes(len(data) % 2)
    at = first = len(data) + len(padding)
    directories: list[bytes] = []
    for plane in range(page.planes):
        tiles = slice(plane * per_plane, (plane + 1) * per_plane)
        fields = [
            writer.numbers(dialect, tag, kind, values)
            for tag, kind, values in (
                (Tag.IMAGE_WIDTH, Type.LONG, (page.size.width,)),
                (Tag.IMAGE_LENGTH, Type.LONG, (page.size.height,)),
                (Tag.BITS_PER_SAMPLE, Type.SHORT, (page.bits,)),
                (Tag.COMPRESSION, Type.SHORT, (page.compression,)),
                (Tag.PHOTOMETRIC, Type.SHORT, (_photometric(page, plane),)),
                (Tag.SAMPLES_PER_PIXEL, Type.SHORT, (1,)),
                *grid,
                (offsets_tag, offset_type, offsets[tiles]),
                (counts_tag, offset_type, counts[tiles]),
            )
        ]
        is_last = plane == page.planes - 1
        directories.append(writer.directory(dialect, sorted([*fields, *repeated]), at=at, is_last=is_last))
        at += len(directories[-1])
    head = writer.header(dialect, first)
    return b"".join((head, data[len(head) :], padding, *directories))


def _photometric(page: Page, plane: int) -> Photometric:
    """Grey; of a page whose 0 is white, the first plane is the picture, no other is inverted."""
    is_white = page.photometric is Photometric.MIN_IS_WHITE and plane == 0
    return Photometric.MIN_IS_WHITE if is_white else Photometric.MIN_IS_BLACK
