"""The serial form of a layout: small, versioned, read back without the master.

    "special.jp2" NUL, one byte of version, then deflated:
    a line of JSON (numbers, reasons, lengths of what follows), the boxes, the main header's segments, the columns

Columns of the index are little-endian and stored byte plane by byte plane, which deflates far better than rows.
A golden test pins the form; another form takes another version.
"""

from __future__ import annotations

import json
import zlib
from array import array
from dataclasses import replace
from typing import Any

import numpy as np

from special.errors import Malformed
from special.formats.jp2.boxes import Container
from special.formats.jp2.markers import Segment
from special.formats.jp2.tile_parts import PACKETS, ROWS, PartIndex
from special.geometry import Orientation
from special.storage import Span

MAGIC = b"special.jp2\0\x01"
"""Name and version."""
MAX_BYTES = 64 << 20
"""What a serial form may inflate to."""

Content = tuple[int, Container, tuple[Segment, ...], PartIndex, tuple[str, ...]]
"""Object size, boxes, the main header's segments, index, doubts."""


def pack(
    size_bytes: int, container: Container, segments: tuple[Segment, ...], index: PartIndex, doubts: tuple[str, ...]
) -> bytes:
    """The serial form. Deflates a few bytes for each packet."""
    main = b"".join(segment.encoded for segment in segments)
    facts = {
        "size": size_bytes,
        "codestream": [container.codestream.start, container.codestream.stop],
        "palette": container.palette_channels,
        "grey": container.is_grey,
        "chain": [index.first, index.frontier, index.stop],
        "declared": sorted(index.declared.items()),
        "refusal": index.refusal,
        "doubts": doubts,
        **({"orientation": container.orientation.value} if container.orientation is not Orientation.UPRIGHT else {}),
        "walked": sorted(index.scanned),
        "bytes": [len(container.header), len(main)],
        "rows": {name: len(getattr(index, name)) for name in (*ROWS, *PACKETS)},
    }
    columns = [_planes(getattr(index, name)) for name in (*ROWS, *PACKETS)]
    line = json.dumps(facts, separators=(",", ":")).encode() + b"\n"
    return MAGIC + zlib.compress(b"".join((line, container.header, main, *columns)), 6)


def unpack(data: bytes) -> Content:
    """What was packed. Raises `Malformed` for anything else."""
    if not data.startswith(MAGIC):
        raise Malformed(f"{data[: len(MAGIC)]!r} begins no layout of this version")
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(data[len(MAGIC) :], MAX_BYTES)
        line, _, rest = content.partition(b"\n")
        facts: dict[str, Any] = json.loads(line)
        boxes, main = facts["bytes"]
        container = Container(Span(*facts["codestream"]), rest[:boxes], facts["palette"], facts["grey"])
        container = replace(container, orientation=Orientation.of(facts.get("orientation", 1)))
        segments = _segments(rest[boxes : boxes + main])
        index = PartIndex(*facts["chain"])
        at = boxes + main
        for name in (*ROWS, *PACKETS):
            column = getattr(index, name)
            length = facts["rows"][name] * column.itemsize
            setattr(index, name, _joined(rest[at : at + length], column))
            at += length
    except (zlib.error, ValueError, KeyError, TypeError) as fault:
        raise Malformed(f"the serial form of a layout is damaged: {fault}") from fault
    if not inflate.eof or at != len(rest):
        raise Malformed("the serial form of a layout is cut short")
    for row, tile in enumerate(index.tiles):
        index.rows.setdefault(tile, []).append(row)
    index.declared = dict(facts["declared"])
    index.scanned = set(facts["walked"])
    index.refusal = facts["refusal"]
    return facts["size"], container, segments, index, tuple(facts["doubts"])


def _planes(column: array[int]) -> bytes:
    """All lowest bytes, then all second lowest, …"""
    rows = np.asarray(column).astype(f"<i{column.itemsize}" if column.typecode == "q" else "<u4")
    return rows.view(np.uint8).reshape(-1, column.itemsize).T.tobytes()


def _joined(planes: bytes, column: array[int]) -> array[int]:
    code = "<i8" if column.typecode == "q" else "<u4"
    rows = np.frombuffer(planes, np.uint8).reshape(column.itemsize, -1).T.copy().view(code)
    return array(column.typecode, rows.ravel().tolist())


def _segments(main: bytes) -> tuple[Segment, ...]:
    found: list[Segment] = []
    at = 0
    while at < len(main):
        marker, length = int.from_bytes(main[at : at + 2], "big"), int.from_bytes(main[at + 2 : at + 4], "big")
        if length < 2:
            raise ValueError("a marker segment without length")
        found.append(Segment(marker, main[at + 4 : at + 2 + length]))
        at += 2 + length
    return tuple(found)
