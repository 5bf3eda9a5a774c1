"""AVIF: the size of the primary image, from the boxes in front of its data.

An AVIF is a file of the ISO base media format (ISO/IEC 14496-12) whose `meta` box describes items: `pitm` names the
primary one, and `iprp` has the properties of each, in the order in which they apply (HEIF, ISO/IEC 23008-12, section
9.3): `ispe` is the coded size, `clap` a crop, `irot` and `imir` turns. Decoders apply all of them, so that the picture
that they give is upright; an Exif block says nothing beside them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from special.errors import Malformed, Unsupported
from special.formats.levels import checked
from special.formats.parser import Parser
from special.formats.whole import WholeLayout
from special.geometry import Size
from special.storage import Span

BRAND = b"avif"
MAX_BOXES = 16
"""Maximum number of boxes before `meta`, which follows `ftyp` in nearly all files."""
MAX_META_BYTES = 4 << 20
"""Longest `meta` box that is read: profiles are in it, and places of tiles."""


def sniff(head: bytes) -> bool:
    """Whether a file that starts like this says that it is an AVIF: by its major brand, or one that it follows."""
    brands = [head[at : at + 4] for at in range(8, len(head), 4) if at != 12]  # a version comes after the first
    return head[4:8] == b"ftyp" and BRAND in brands[: max(0, int.from_bytes(head[:4]) // 4 - 3)]


def parse(size_bytes: int) -> Parser[WholeLayout]:
    """The layout of an AVIF. Raises `Malformed`, and `Unsupported` for a crop that ends within a pixel."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > size_bytes:
            break
        (head,) = yield [Span(at, min(at + 16, size_bytes))]
        kind, start, stop = _bounds(head, at, size_bytes)
        if kind == b"meta":
            if stop - start > MAX_META_BYTES:
                raise Malformed(f"the AVIF claims {stop - start} bytes of meta data; {MAX_META_BYTES} are read at most")
            (meta,) = yield [Span(start, stop)]
            try:
                return WholeLayout("avif", size_bytes, _upright(_primary(meta)))
            except (struct.error, IndexError):
                raise Malformed("the meta data of the AVIF end within a box") from None
        at = stop
    raise Malformed(f"an AVIF of {size_bytes} bytes has no meta data")


def _upright(properties: list[tuple[bytes, bytes]]) -> Size:
    """The size of a picture with these properties, as it is shown."""
    size: Size | None = None
    for kind, body in properties:
        if kind == b"ispe":
            size = checked("AVIF", *struct.unpack_from(">II", body, 4))
        elif kind == b"clap" and size is not None:
            width, width_parts, height, height_parts = struct.unpack_from(">4I", body)
            if not width_parts or not height_parts or width % width_parts or height % height_parts:
                raise Unsupported("the AVIF has a crop (clap) that ends within a pixel")
            crop = checked("crop of the AVIF", width // width_parts, height // height_parts)
            size = Size(min(crop.width, size.width), min(crop.height, size.height))
        elif kind == b"irot" and size is not None and body[0] & 1:
            size = size.turned
    if size is None:
        raise Malformed("the AVIF does not say how large its picture is (ispe)")
    return size


def _primary(meta: bytes) -> list[tuple[bytes, bytes]]:
    """The properties of the primary image, in their order."""
    boxes = dict(_boxes(meta[4:]))  # version and flags come first
    if b"pitm" not in boxes or b"iprp" not in boxes:
        raise Malformed("the AVIF has no primary image with properties (pitm, iprp)")
    (item,) = struct.unpack_from(">I" if boxes[b"pitm"][0] else ">H", boxes[b"pitm"], 4)
    found: list[tuple[bytes, bytes]] = []
    known: list[tuple[bytes, bytes]] = []
    for kind, body in _boxes(boxes[b"iprp"]):
        if kind == b"ipco":
            known = list(_boxes(body))
        elif kind == b"ipma":
            found += [known[number - 1] for number in _associated(body, item) if 0 < number <= len(known)]
    return found


def _associated(body: bytes, wanted: int) -> Iterator[int]:
    """The numbers of an item's properties, from 1 (HEIF, section 9.3.2)."""
    version, flags = body[0], int.from_bytes(body[1:4])
    (count,) = struct.unpack_from(">I", body, 4)
    name, number, at = (">H" if version < 1 else ">I"), (">H" if flags & 1 else ">B"), 8
    for _ in range(count):
        (item,) = struct.unpack_from(name, body, at)
        at += struct.calcsize(name)
        properties = body[at]
        at += 1
        for _ in range(properties):
            (found,) = struct.unpack_from(number, body, at)
            at += struct.calcsize(number)
            if item == wanted:
                yield found & (0x7FFF if flags & 1 else 0x7F)  # the highest bit: essential


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        kind, start, stop = _bounds(data[at : at + 16], at, len(data))
        yield kind, data[start:stop]
        at = stop


def _bounds(head: bytes, at: int, end: int) -> tuple[bytes, int, int]:
    """Type, first byte of the contents and first byte after them (ISO/IEC 14496-12, section 4.2)."""
    length, kind = struct.unpack_from(">I4s", head)
    start = at + 8
    if length == 1 and len(head) >= 16:
        (length,) = struct.unpack_from(">Q", head, 8)
        start += 8
    stop = at + length if length else end
    if not start <= stop <= end:
        raise Malformed(f"the box {kind!r} at byte {at} claims {length} bytes of {end}: the AVIF is cut short")
    return kind, start, stop
