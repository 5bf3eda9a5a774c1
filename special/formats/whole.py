"""Masters that must be read whole: JPEG, PNG, WebP, GIF, AVIF, BMP.

What is compressed as one stream can only be decoded from its start, so every part of the
picture needs every byte. Small files do not suffer; for large ones the volume makes a pyramid.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from special.errors import Malformed, Unsupported
from special.formats import exif
from special.formats.density import INCH_M, per_inch
from special.formats.layout import Extract, Format, Layout, Piece, Stored, Tiling
from special.formats.levels import checked, serves
from special.formats.parser import Parser
from special.geometry import Box, Frame, Orientation, Size
from special.storage import Span

MAGIC = b"W\x02"
"""How the serial form starts: what it is, and which version."""
WITHOUT_DENSITY = b"W\x01"
"""The version before, which ended with `progressive`; it is still read."""
FORMATS: tuple[Format, ...] = ("jpeg", "png", "webp", "gif", "avif", "bmp")
"""Their places are their numbers in the serial form: append only."""
MAX_CHUNKS = 1000
"""Maximum number of chunks of a PNG or a WebP that are searched for an Exif block."""
MAX_EXIF_BYTES = 65536
"""Longest Exif block that is read; those with embedded previews are as long as that."""
EOI, SOS = b"\xff\xd9", b"\xff\xda"
"""Of a JPEG: its last marker, and that before each scan. Coded data has neither: FF is followed by 00 there."""
DEEP_COMPONENTS = 9
"""For as many samples of 8 bits memory is needed where those of three components have up to 16, and are copied."""
TAIL_BYTES = 16384
"""How much of a PNG's end is read for an Exif block behind the pixels."""
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample by color type (W3C PNG table 8)."""
BMP_CORE_BYTES = 12
"""Length of the oldest header of a BMP, whose width and height have 16 bits."""
BMP_HEADERS = (BMP_CORE_BYTES, 40, 52, 56, 64, 108, 124)
"""Lengths of the headers that there are: OS/2 1 and 2, and Windows from 3.0 on."""
BMP_COMPRESSIONS = (0, 1, 2, 3)
"""Those that hold pixels themselves: none, runs of 8 and of 4 bits, bit fields; JPEG and PNG are for printers."""
EXTENSION, IMAGE = 0x21, 0x2C
"""What blocks of a GIF begin with, but for its trailer."""
IEND = b"IEND\xae\x42\x60\x82"
"""A PNG's last chunk, from its type on."""
MAX_TRAILER_BYTES = 1 << 20
"""How far from a PNG's end its last chunk is searched for: some programs put data behind."""
_SERIAL = struct.Struct(">2sBQIIBBBBd")


class ReadWhole:
    """What layouts have in common of which every part needs every byte."""

    __slots__ = ()
    size_bytes: int
    """Length of the whole file."""

    @property
    def tiling(self) -> Tiling | None:
        return None

    def prepare(self, box: Box, size: Size) -> Parser[Layout] | None:
        return None

    def complete(self) -> Parser[Layout] | None:
        return None

    def distrusted(self, reason: str) -> Layout | None:
        return None

    def stored(self, box: Box, size: Size) -> Stored | None:
        return None

    def whole(self, parts: Sequence[bytes]) -> bytes:
        """The file, out of what was read. Raises `Malformed` if it has another length."""
        (data,) = parts
        if len(data) != self.size_bytes:
            raise Malformed(f"{len(data)} bytes were read of a file of {self.size_bytes}")
        return data


@dataclass(frozen=True, slots=True)
class WholeLayout(ReadWhole):
    """A picture that is decoded from its first byte to its last."""

    format: Format
    size_bytes: int
    """Length of the whole file."""
    raw_size: Size
    """Width and height before the picture is turned upright."""
    orientation: Orientation = Orientation.UPRIGHT
    has_color: bool = True
    max_reduce: int = 0
    """How often the decoder can halve the picture while it decodes: 3 for JPEG, else 0."""
    progressive: bool = False
    """Whether all of the picture is in memory while it is decoded, however much it is reduced."""
    density: float | None = None
    """Pixels per inch, where the file says so."""

    @property
    def size(self) -> Size:
        return self.orientation.upright(self.raw_size)

    @property
    def levels(self) -> tuple[Size, ...]:
        return (self.size,)

    @property
    def advice(self) -> tuple[str, ...]:
        if self.size.long_side <= 1024:
            return ()
        how = f"Progressive {self.format.upper()}" if self.progressive else self.format.upper()
        return (f"{how} is read and decoded whole for every part. Re-encode as a tiled, pyramidal TIFF.",)

    def extract(self, box: Box, size: Size) -> Extract:
        turned = size.turned if self.orientation.swaps_sides else size
        box = self.orientation.to_stored(box, self.raw_size)
        # A decoder's own halving sharpens: like vipsthumbnail, leave a factor of two for the resize after it.
        reduce = max((n for n in range(1, self.max_reduce + 1) if serves(box, 2 << n, turned)), default=0)
        picture = self.raw_size.reduced(reduce)  # libjpeg rounds up
        is_deep = self.format == "jpeg" and not self.max_reduce  # all others can be halved
        return Extract(
            spans=(Span(0, self.size_bytes),),
            level=reduce,
            pixels=self.raw_size.area if self.progressive else picture.area,
            recipe=Frame.of(box, 1 / (1 << reduce), 1 / (1 << reduce)).within(picture),
            components=DEEP_COMPONENTS if is_deep else 1,
        )

    def rebuild(self, extract: Extract, parts: Sequence[bytes]) -> Piece:
        assert isinstance(extract.recipe, Frame), "an extract goes back to the layout that made it"
        data = self.whole(parts)
        return Piece(
            data,
            self.format,
            extract.recipe,
            reduce=extract.level,
            orientation=self.orientation,
            incomplete=_incomplete(self.format, data),
        )

    def dump(self) -> bytes:
        return _SERIAL.pack(
            MAGIC,
            FORMATS.index(self.format),
            self.size_bytes,
            self.raw_size.width,
            self.raw_size.height,
            self.orientation,
            self.has_color,
            self.max_reduce,
            self.progressive,
            self.density or 0.0,
        )


def _incomplete(kind: Format, data: bytes) -> str:
    """What is missing at the end of a file, in words; empty where nothing is."""
    match kind:
        case "jpeg" if not data.endswith(EOI) and data.rfind(EOI) < data.rfind(SOS):
            return "the JPEG has no end (EOI)"
        case "png" if data.find(IEND, len(data) - MAX_TRAILER_BYTES if len(data) > MAX_TRAILER_BYTES else 0) < 0:
            return "the PNG has no end (IEND)"
        case "gif" if all(kind in (EXTENSION, IMAGE) for _, kind in _gif_blocks(data)):
            return "the GIF has no end (trailer)"
    return ""


def load(data: bytes) -> Layout:
    """The layout that `dump` wrote. Raises `Malformed` for anything else."""
    try:
        if data.startswith(WITHOUT_DENSITY):
            data = MAGIC + data[len(MAGIC) :] + bytes(8)
        magic, number, size_bytes, width, height, orientation, *flags, density = _SERIAL.unpack(data)
        if magic != MAGIC or not size_bytes:
            raise Malformed(f"a stored layout starts with {data[:2]!r}, not {MAGIC!r}; read the master again")
        size = checked("stored layout", width, height)
        upright = Orientation.of(orientation)
        color, reduce, progressive = bool(flags[0]), min(flags[1], 3), bool(flags[2])
        stated = per_inch(density, density, 1.0)
        return WholeLayout(FORMATS[number], size_bytes, size, upright, color, reduce, progressive, stated)
    except (struct.error, IndexError) as error:
        raise Malformed(f"a stored layout is damaged ({error}); read the master again") from None


def is_png(head: bytes) -> bool:
    """Whether a file that starts like this is a PNG. W3C PNG section 5.2."""
    return head[:8] == b"\x89PNG\r\n\x1a\n"


def is_webp(head: bytes) -> bool:
    """Whether a file that starts like this is a WebP. RFC 9649 section 2.4."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def is_gif(head: bytes) -> bool:
    """Whether a file that starts like this is a GIF. GIF89a section 17."""
    return head[:6] in (b"GIF87a", b"GIF89a")


def parse_png(size_bytes: int) -> Parser[Layout]:
    """The layout of a PNG, from IHDR and a possible eXIf chunk. Raises `Malformed`.

    One behind the pixels is searched for from the end: encoders write IDAT chunks of 8 to 64 KB, and to step over those
    of a large master would cost a read for each.
    """
    (head,) = yield [Span(0, min(33, size_bytes))]
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise Malformed(f"a PNG of {size_bytes} bytes does not start with a whole IHDR chunk")
    width, height, depth, color_type, _method, _filter, interlaced = struct.unpack(">IIBBBBB", head[16:29])
    size = checked("PNG", width, height)
    if depth not in PNG_DEPTHS.get(color_type, ()):
        raise Malformed(f"the PNG claims samples of {depth} bits of color type {color_type}, which there are none of")
    physical = yield from _chunk(b"pHYs", b"IDAT", start=33, size_bytes=size_bytes, order=">")
    block = yield from _chunk(b"eXIf", b"IDAT", start=33, size_bytes=size_bytes, order=">")
    if not block and size_bytes > 33:
        (tail,) = yield [Span(max(33, size_bytes - TAIL_BYTES), size_bytes)]
        block = _chunk_in(tail, b"eXIf")
    # color types 0 and 4 are grey, without and with alpha: W3C PNG table 8
    return WholeLayout(
        "png",
        size_bytes,
        size,
        exif.orientation(block),
        has_color=color_type not in (0, 4),
        progressive=interlaced == 1,
        density=_png_density(physical) or exif.density(block),
    )


def parse_webp(size_bytes: int) -> Parser[Layout]:
    """The layout of a WebP: lossy, lossless or extended (RFC 9649). Raises `Malformed`."""
    (head,) = yield [Span(0, min(30, size_bytes))]
    if len(head) < 30:
        raise Malformed(f"a WebP of {size_bytes} bytes ends inside its header")
    promised = 8 + int.from_bytes(head[4:8], "little")
    if promised > size_bytes:  # no decoder shows a part of it
        raise Malformed(f"the WebP is cut short: {size_bytes} bytes of {promised}")
    kind, body, upright, density = head[12:16], head[20:30], Orientation.UPRIGHT, None
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
    elif kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        if body[0] & 0x08:
            start = 20 + int.from_bytes(head[16:20], "little")
            block = yield from _chunk(b"EXIF", b"", start=start, size_bytes=size_bytes, order="<")
            upright, density = exif.orientation(block), exif.density(block)
    else:
        raise Malformed(f"the first chunk of a WebP is {kind!r}, which holds no picture")
    return WholeLayout("webp", size_bytes, checked("WebP", width, height), upright, density=density)


def parse_gif(size_bytes: int) -> Parser[Layout]:
    """The layout of a GIF's first frame, from its logical screen (GIF89a section 18). Raises `Malformed`."""
    (head,) = yield [Span(0, min(10, size_bytes))]
    if len(head) < 10:
        raise Malformed(f"a GIF of {size_bytes} bytes ends inside its header")
    return WholeLayout("gif", size_bytes, checked("GIF", *struct.unpack("<HH", head[6:10])))


def is_bmp(head: bytes) -> bool:
    """Whether a file that starts like this is a BMP: a file header, and a bitmap header of a known length."""
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS


def parse_bmp(size_bytes: int) -> Parser[Layout]:
    """The layout of a BMP, from its bitmap header. Raises `Malformed`, `Unsupported` for a JPEG or a PNG inside."""
    (head,) = yield [Span(0, min(46, size_bytes))]
    density = None
    if len(head) < 34:
        raise Malformed(f"a BMP of {size_bytes} bytes ends inside its header")
    if int.from_bytes(head[14:18], "little") == BMP_CORE_BYTES:
        width, height = struct.unpack_from("<HH", head, 18)
    else:
        width, height = struct.unpack_from("<ii", head, 18)
        (compression,) = struct.unpack_from("<I", head, 30)
        if compression not in BMP_COMPRESSIONS:
            raise Unsupported(f"the BMP is compressed by method {compression}")
        if len(head) == 46:
            across, down = struct.unpack_from("<ii", head, 38)
            density = per_inch(across, down, 1 / INCH_M)
    # A negative height: the first row comes first.
    return WholeLayout("bmp", size_bytes, checked("BMP", width, abs(height)), density=density)


def first_frame(data: bytes) -> Box:
    """Where a GIF's first frame is on its logical screen (GIF89a sections 18 and 20). Raises `Malformed`."""
    at = next((at for at, kind in _gif_blocks(data) if kind == IMAGE), len(data))
    if at + 9 > len(data):
        raise Malformed(f"a GIF of {len(data)} bytes without any frame")
    return Box(*struct.unpack_from("<HHHH", data, at + 1))


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """The offset and the kind of each block of a GIF (GIF89a appendix A), the trailer included."""
    at = 13 + _table_bytes(data, 10)
    while at < len(data):
        yield at, data[at]
        if data[at] not in (EXTENSION, IMAGE):
            return
        # An extension has a label; a frame its descriptor, colours, and the size of its codes.
        at += 2 if data[at] == EXTENSION else 11 + _table_bytes(data, at + 9)
        while at < len(data) and data[at]:  # sub-blocks, each with its length in front
            at += 1 + data[at]
        at += 1


def _table_bytes(data: bytes, at: int) -> int:
    """Length of the table of colours that the flags at this place announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png_density(physical: bytes) -> float | None:
    """Of a pHYs chunk: pixels per metre, or a mere ratio (W3C PNG section 11.3.4.3)."""
    if len(physical) != 9 or physical[8] != 1:
        return None
    across, down = struct.unpack(">II", physical[:8])
    return per_inch(across, down, 1 / INCH_M)


def _chunk_in(tail: bytes, wanted: bytes) -> bytes:
    """The data of a PNG's chunk somewhere in these bytes, known by its checksum; or nothing."""
    at = tail.find(wanted)
    while at >= 4:
        stop = at + 4 + int.from_bytes(tail[at - 4 : at])
        if tail[stop : stop + 4] == zlib.crc32(tail[at:stop]).to_bytes(4):
            return tail[at + 4 : stop]
        at = tail.find(wanted, at + 1)
    return b""


def _chunk(wanted: bytes, last: bytes, *, start: int, size_bytes: int, order: str) -> Parser[bytes]:
    """The data of the first chunk of a kind, or nothing, of a PNG (big-endian) or a RIFF file (little-endian)."""
    at = start
    for _ in range(MAX_CHUNKS):
        if at + 8 > size_bytes:
            return b""
        (head,) = yield [Span.at(at, 8)]
        # PNG: length, type, data, CRC. RIFF: type, length, data, padding to an even length.
        (length,) = struct.unpack(order + "I", head[:4] if order == ">" else head[4:])
        kind = head[4:] if order == ">" else head[:4]
        if kind == wanted and 0 < length <= MAX_EXIF_BYTES and at + 8 + length <= size_bytes:
            (block,) = yield [Span.at(at + 8, length)]
            return block
        if kind in (wanted, last):
            return b""
        at += 12 + length if order == ">" else 8 + length + length % 2
    return b""
