"""A small, valid TIFF around some tiles of a large one.

It keeps the master's byte order (samples of 16 bits are stored in it) and repeats the fields
that say how tiles are encoded. Always classic: what one request needs is far below 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from special.errors import Unsupported
from special.formats.tiff.ifd import Field, Order
from special.formats.tiff.tags import WIDTHS, Tag, Type
from special.geometry import Size

Value = tuple[int, int, bytes]
"""Tag, type and the packed values of one field."""


def build(
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

    `places` gives offset and length of each tile inside the joined `data`; places may overlap,
    and one of length 0 is a tile that was never written. One copy of `data`, no pixel touched.
    """
    offsets_tag, counts_tag = (
        (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS) if tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS)
    )
    longs = struct.Struct(f"{order}{len(places)}I")
    values: list[Value] = [
        (Tag.IMAGE_WIDTH, Type.LONG, struct.pack(order + "I", size.width)),
        (Tag.IMAGE_LENGTH, Type.LONG, struct.pack(order + "I", size.height)),
        (counts_tag, Type.LONG, longs.pack(*(length for _, length in places))),
        (offsets_tag, Type.LONG, bytes(longs.size)),
        *((field.tag, field.type, field.raw) for field in copied if field.raw is not None),
    ]
    if tiled:
        values += [
            (Tag.TILE_WIDTH, Type.LONG, struct.pack(order + "I", tile.width)),
            (Tag.TILE_LENGTH, Type.LONG, struct.pack(order + "I", tile.height)),
        ]
    else:
        values.append((Tag.ROWS_PER_STRIP, Type.LONG, struct.pack(order + "I", tile.height)))
    values.sort()  # by tag: TIFF 6.0 section 2 asks for it
    # header 8; directory 2 + 12 per field + 4; then values longer than 4 bytes, each at an even offset
    data_at = 14 + 12 * len(values) + sum(_even(len(raw)) for _, _, raw in values if len(raw) > 4)
    if data_at + sum(map(len, data)) >= 1 << 32:
        raise Unsupported("more than 4 GiB of tiles in one request; ask for a smaller region or size")
    offsets = longs.pack(*(data_at + start if length else 0 for start, length in places))
    return b"".join(
        (_head(order, [(tag, kind, offsets if tag == offsets_tag else raw) for tag, kind, raw in values]), *data)
    )


def _head(order: Order, values: Sequence[Value]) -> bytes:
    at = 14 + 12 * len(values)
    entries, long_values = (
        [struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(values))],
        [bytes(4)],
    )
    for tag, kind, raw in values:
        if len(raw) > 4:
            inline = struct.pack(order + "I", at)
            long_values.append(raw.ljust(_even(len(raw)), b"\0"))
            at += _even(len(raw))
        else:
            inline = raw.ljust(4, b"\0")
        entries.append(struct.pack(order + "HHI4s", tag, kind, len(raw) // WIDTHS[kind], inline))
    return b"".join(entries + long_values)


def _even(length: int) -> int:
    return length + length % 2
