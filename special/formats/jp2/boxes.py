"""The JP2 boxes around a codestream (annex I).

Only three boxes matter: the signature, `ftyp` and the header `jp2h`, which says what the channels
mean; they are copied and put around every rebuilt codestream. All others are skipped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from special.errors import Malformed, Unsupported
from special.formats import density, exif
from special.formats.jp2.colours import Colours, colours
from special.formats.jp2.reader import CodestreamReader, Reading
from special.geometry import Orientation, Size
from special.storage import Span

SIGNATURE = bytes.fromhex("0000000c6a5020200d0a870a")
"""The signature box (I.5.1): what every JP2, JPX and JPH file starts with."""
RAW = bytes.fromhex("ff4fff51")
"""SOC and SIZ: what a raw codestream starts with (A.2)."""
EXTENDED = b"\0\0\0\1"
"""A length of 1: the true one follows the type, in 8 bytes (I.4)."""
NO_COLOURS = frozenset({1, 2, 65535})
"""Types of channels that are no colours (table I.16): opacity, the same multiplied with the colours, anything else.

The numbers between have no meaning; a channel that bears one by mistake is still needed for its colour.
"""
NOT_ASSOCIATED = 65535
"""Of a channel that belongs to no colour (table I.17)."""
EXIF_UUID = b"JpgTiffExif->JP2"
"""What begins a box of type `uuid` that holds an Exif block."""
MAX_EXIF_BYTES = 65536
VARIOUS_BITS = 255
"""BPC of a file whose components differ in depth (I.5.3.1)."""
MAX_BOXES = 1024
MAX_HEADER_BYTES = 8 << 20
"""An ICC profile or a palette is far smaller."""


Boxes = list[tuple[bytes, bytes]]
"""Types and contents."""


@dataclass(frozen=True, slots=True)
class Container:
    """The codestream's bytes, and the boxes to put around a rebuilt one."""

    codestream: Span
    """From SOC to the end of its box."""
    header: bytes = b""
    """Signature, `ftyp` and `jp2h` unchanged; empty for a raw codestream."""
    palette_channels: int = 0
    """Colours that one palette entry makes; 0 without a palette."""
    is_grey: bool = False
    """Whether the header says that the picture is grey."""
    orientation: Orientation = Orientation.UPRIGHT
    """How to turn the picture upright, by an Exif block before the codestream."""

    @property
    def colours(self) -> Colours:
        """What the header says of colours. Raises `Unsupported` where that is unknown here."""
        return _colours(self._inner())

    @property
    def defines_opacity(self) -> bool:
        """Whether a channel definition names an opacity channel (I.5.3.6)."""
        return any(kind in (1, 2) for kind in _channel_kinds(self._inner()))

    @property
    def density(self) -> float | None:
        """Pixels per inch of capture, or else of display (I.5.3.7); None where neither is told."""
        body = next((body for kind, body in self._inner() if kind == b"res "), b"")
        try:
            boxes = dict(_boxes(body))
        except Malformed:
            return None  # the picture is whole without it
        return density.of_jp2(boxes.get(b"resc", b"")) or density.of_jp2(boxes.get(b"resd", b""))

    def check_definition(self, components: int) -> None:
        """Raise `Malformed` where a channel definition leaves out a channel, or names one that there is not (I.5.3.6).

        `components` are those of the codestream. OpenJPEG takes no such file.
        """
        body = next((body for kind, body in self._inner() if kind == b"cdef"), None)
        if body is None:
            return
        channels = self.palette_channels or components
        count = int.from_bytes(body[:2])
        entries = list(struct.iter_unpack(">HHH", body[2 : 2 + 6 * count])) if len(body) >= 2 + 6 * count else []
        named = {number for number, _, _ in entries}
        if named != set(range(channels)) or any(
            colour > channels and colour != NOT_ASSOCIATED for *_, colour in entries
        ):
            raise Malformed(f"the channel definition (cdef) of {count} entries does not fit {channels} channels")

    def _inner(self) -> Boxes:
        """The boxes inside `jp2h`; none around a raw codestream."""
        at = 0
        while at < len(self.header):
            kind, _, stop = _bounds(self.header[at : at + 16], at, len(self.header))
            if kind == b"jp2h":
                return _inner(self.header[at:stop])
            at = stop
        return []

    def wrap(self, codestream: bytes, size: Size) -> bytes:
        """A file of another codestream in the same boxes, with its own size in `ihdr` (I.5.3.1). One copy."""
        if not self.header:
            return codestream
        at = self.header.index(b"ihdr", self.header.index(b"jp2h")) + 4
        sides = struct.pack(">II", size.height, size.width)
        box = struct.pack(">I4s", len(codestream) + 8, b"jp2c")
        return b"".join((self.header[:at], sides, self.header[at + 8 :], box, codestream))


def sniff(head: bytes) -> bool:
    """Whether these first 12 or more bytes begin a JP2, JPX or JPH file, or a raw codestream."""
    return head.startswith((SIGNATURE, RAW))


def read_container(reader: CodestreamReader) -> Reading[Container]:
    """Read box after box as far as the codestream.

    Raises `Malformed` for boxes that break the rules, `Unsupported` for a file without a contiguous codestream.
    """
    head = yield from reader.take(0, 4)
    if head == RAW:
        return Container(Span(0, reader.size_bytes))
    copied: list[bytes] = []
    orientation = Orientation.UPRIGHT
    second = b""
    at = 0
    for _ in range(MAX_BOXES):
        if at == reader.size_bytes:
            raise Unsupported("there is no contiguous codestream box (jp2c) in this file")
        kind, body, stop = yield from _box(reader, at)
        if at == 0 and (yield from reader.take(0, min(12, reader.size_bytes))) != SIGNATURE:
            raise Malformed("neither a JP2 signature box nor a codestream at the start of the file")
        if at == len(SIGNATURE):
            second = kind
        if kind == b"jp2c":
            if not any(box[4:8] == b"jp2h" for box in copied):
                raise Malformed("the codestream comes before the JP2 header box (jp2h)")
            if body == stop:
                raise Malformed("the codestream box (jp2c) is empty")
            if second != b"ftyp":
                raise Malformed(f"the box {second!r} comes where the file type box (ftyp) must be")  # I.5.2
            return replace(_container(Span(body, stop), copied), orientation=orientation)
        if kind == b"uuid" and len(EXIF_UUID) < stop - body <= MAX_EXIF_BYTES:
            block = yield from reader.take(body, stop - body)
            if block.startswith(EXIF_UUID):
                orientation = exif.orientation(block.removeprefix(EXIF_UUID))
        if kind in (b"jP  ", b"ftyp", b"jp2h"):
            if stop - at + sum(map(len, copied)) > MAX_HEADER_BYTES:
                raise Malformed(f"the box {kind!r} claims {stop - at} bytes; at most {MAX_HEADER_BYTES} make sense")
            copied.append((yield from reader.take(at, stop - at)))
        at = stop
    raise Malformed(f"more than {MAX_BOXES} boxes before the codestream")


def _box(reader: CodestreamReader, at: int) -> Reading[tuple[bytes, int, int]]:
    """Type, first byte of the contents and first byte after them (I.4)."""
    head = yield from reader.take(at, 8)
    if head.startswith(EXTENDED):
        head = yield from reader.take(at, 16)
    return _bounds(head, at, reader.size_bytes)


def _bounds(head: bytes, at: int, end: int) -> tuple[bytes, int, int]:
    """Type, first byte of the contents and first byte after them of a box that starts like this at byte `at`.

    `head` is at least 8 bytes long, 16 where the length is extended; `end` is where the file or the superbox ends.
    """
    length, kind = struct.unpack_from(">I4s", head)
    body = at + 8
    if length == 0:
        return kind, body, end
    if length == 1 and len(head) >= 16:
        (length,) = struct.unpack_from(">Q", head, 8)
        body += 8
    if not body <= at + length <= end:
        raise Malformed(
            f"the box {kind!r} at byte {at} claims {length} bytes of {end}; the file is broken or truncated"
        )
    return kind, body, at + length


def _container(codestream: Span, copied: list[bytes]) -> Container:
    header = next(box for box in copied if box[4:8] == b"jp2h")
    inner = list(_inner(header))
    if not inner or inner[0][0] != b"ihdr" or len(inner[0][1]) != 14:
        raise Malformed("the JP2 header box (jp2h) does not begin with an image header (ihdr)")
    return Container(codestream, b"".join(copied), _palette_channels(inner), _colours(inner).is_grey)


def _palette_channels(inner: Boxes) -> int:
    """Columns of the palette (I.5.3.4); 0 without one."""
    return next((body[2] for kind, body in inner if kind == b"pclr" and len(body) >= 3), 0)


def _channel_kinds(inner: Boxes) -> list[int]:
    """What the channel definition calls each channel (I.5.3.6); nothing without a definition."""
    body = next((body for kind, body in inner if kind == b"cdef"), b"")
    return [int.from_bytes(body[at : at + 2], "big") for at in range(4, len(body) - 1, 6)]


def _colours(inner: Boxes) -> Colours:
    components, bits = next(
        ((int.from_bytes(body[8:10], "big"), body[10]) for kind, body in inner if kind == b"ihdr"), (0, 8)
    )
    kinds = _channel_kinds(inner)
    return colours(
        [body for kind, body in inner if kind == b"colr"],
        channels=_palette_channels(inner) or components,
        extra=sum(kind in NO_COLOURS for kind in kinds) if kinds else None,
        bits=8 if bits == VARIOUS_BITS else (bits & 0x7F) + 1,
    )


def _inner(superbox: bytes) -> Boxes:
    """The boxes inside `jp2h`."""
    _, at, _ = _bounds(superbox[:16], 0, len(superbox))
    return _boxes(superbox, at)


def _boxes(content: bytes, at: int = 0) -> Boxes:
    """The boxes in a superbox's content, from a byte on."""
    found: Boxes = []
    while at + 8 <= len(content) and len(found) < MAX_BOXES:
        kind, body, stop = _bounds(content[at : at + 16], at, len(content))
        found.append((kind, content[body:stop]))
        at = stop
    return found
