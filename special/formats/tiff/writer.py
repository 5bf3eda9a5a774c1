"""TIFF files from fields: the one writer of headers and directories, classic or BigTIFF.

`rebuild_page` makes the small, valid TIFF around some tiles of a large one. It keeps the master's byte order
(samples of 16 bits are stored in it) and repeats the fields that say how tiles are encoded. It is always classic:
what one request needs is far below 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from special.errors import Unsupported
from special.formats.tiff.ifd import Dialect, Field, Order
from special.formats.tiff.tags import NUMBERS, WIDTHS, Tag, Type
from special.geometry import Size

Value = tuple[int, int, bytes]
"""Tag, type and the packed values of one field."""


def header(dialect: Dialect, first_directory: int) -> bytes:
    """A file's first bytes: 8, or 16 of a BigTIFF. TIFF 6.0 section 2."""
    mark = b"II" if dialect.order == "<" else b"MM"
    if dialect.big:
        return struct.pack(dialect.order + "2sHHHQ", mark, 43, 8, 0, first_directory)
    return struct.pack(dialect.order + "2sHI", mark, 42, first_directory)


def numbers(dialect: Dialect, tag: Tag, kind: Type, values: Sequence[int]) -> Value:
    """A field of whole numbers."""
    return tag, kind, struct.pack(f"{dialect.order}{len(values)}{NUMBERS[kind]}", *values)


def directory(dialect: Dialect, values: Sequence[Value], *, at: int, is_last: bool) -> bytes:
    """A directory for byte `at`, its long values behind it, and the next directory expected right behind those.

    Values must be sorted by tag (TIFF 6.0 section 2). Long ones start at even offsets, in a BigTIFF at multiples of 8.
    """
    count, entry, pointer = dialect.structs
    inline_bytes, alignment = pointer.size, 8 if dialect.big else 2
    at += count.size + entry.size * len(values) + pointer.size
    entries, long_values = [count.pack(len(values))], [b""]
    for tag, kind, raw in values:
        inline = raw
        if len(raw) > inline_bytes:
            inline = pointer.pack(at)
            long_values.append(raw.ljust(_aligned(len(raw), alignment), b"\0"))
            at += len(long_values[-1])
        # `struct` fills a short inline value up with zeros.
        entries.append(entry.pack(tag, kind, len(raw) // WIDTHS[kind], inline))
    return b"".join((*entries, pointer.pack(0 if is_last else at), *long_values))


def rebuild_page(
    order: Order,
    copied: Iterable[Field],
    *,
    size: Size,
    tile: Size,
    tiled: bool,
    places: Sequence[tuple[int, int]],
    data: Sequence[bytes],
) -> bytes:
    """The file: a picture of `size` in tiles of `tile`, repeating the fields `copied`.

    `places` gives offset and length of each tile inside the joined `data`; they may overlap,
    and one of length 0 is a tile that was never written. One copy of `data`, no pixel touched.
    """
    offsets_tag, counts_tag = (
        (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS) if tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS)
    )
    dialect, longs = Dialect(order, big=False), struct.Struct(f"{order}{len(places)}I")
    long = struct.Struct(order + "I").pack
    values: list[Value] = [
        (Tag.IMAGE_WIDTH, Type.LONG, long(size.width)),
        (Tag.IMAGE_LENGTH, Type.LONG, long(size.height)),
        (counts_tag, Type.LONG, longs.pack(*(length for _, length in places))),
        (offsets_tag, Type.LONG, bytes(longs.size)),
        *((field.tag, field.type, field.raw) for field in copied if field.raw is not None),
    ]
    if tiled:
        values += [(Tag.TILE_WIDTH, Type.LONG, long(tile.width)), (Tag.TILE_LENGTH, Type.LONG, long(tile.height))]
    else:
        values.append((Tag.ROWS_PER_STRIP, Type.LONG, long(tile.height)))
    values.sort()
    # header 8; directory 2 + 12 per field + 4; then values longer than 4 bytes, each at an even offset
    data_at = 14 + 12 * len(values) + sum(_aligned(len(raw), 2) for _, _, raw in values if len(raw) > 4)
    if data_at + sum(map(len, data)) >= 1 << 32:
        raise Unsupported("more than 4 GiB of tiles in one request; ask for a smaller region or size")
    offsets = longs.pack(*(data_at + start if length else 0 for start, length in places))
    placed = [(tag, kind, offsets if tag == offsets_tag else raw) for tag, kind, raw in values]
    return b"".join((header(dialect, 8), directory(dialect, placed, at=8, is_last=True), *data))


def _aligned(length: int, to: int) -> int:
    return -(-length // to) * to
