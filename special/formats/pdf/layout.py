"""A page of a PDF as a picture: its size at a density, and what a decoder needs to draw a part of it. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from special.errors import Malformed
from special.formats.extras import require_extra
from special.formats.layout import Extract, Format, Layout, Piece, Sheet
from special.formats.levels import checked, serves
from special.formats.parser import Parser
from special.formats.pdf.document import Document
from special.formats.pdf.objects import Object
from special.formats.whole import ReadWhole
from special.geometry import Box, Frame, Size
from special.storage import Span

MAGIC = b"P\x01"
"""How the serial form starts: what it is, and which version."""
POINTS_PER_INCH = 72
LETTER = (0.0, 0.0, 612.0, 792.0)
"""The page of a file that does not say how large it is, in points: US letter, as viewers have it."""
SMALLEST_SIDE = 256
"""The smallest level's longer side is more than half of this, in pixels."""
_SERIAL = struct.Struct(">2sQIIId")


@dataclass(frozen=True, slots=True)
class PdfLayout(ReadWhole):
    """One page. It is drawn anew for each answer: the region alone, at the smallest level that has enough pixels."""

    size_bytes: int
    """Length of the whole file."""
    page: int
    """Counted from 1."""
    size: Size
    """In pixels, turned as the page says."""
    density: float
    """Pixels per inch at which the page has this size."""

    @property
    def format(self) -> Format:
        return "pdf"

    @property
    def levels(self) -> tuple[Size, ...]:
        count = max(1, math.ceil(math.log2(self.size.long_side / SMALLEST_SIDE)) + 1)
        return tuple(self.size.reduced(n) for n in range(count))

    @property
    def has_color(self) -> bool:
        return True

    @property
    def advice(self) -> tuple[str, ...]:
        return ("A PDF is read whole for every part of a page. Store its pages as images where many look at them.",)

    def extract(self, box: Box, size: Size) -> Extract:
        reduce = max(n for n in range(len(self.levels)) if n == 0 or serves(box, 1 << n, size))
        return Extract(
            spans=(Span(0, self.size_bytes),),
            level=reduce,
            pixels=box.size.reduced(reduce).area,
            recipe=box,
        )

    def rebuild(self, extract: Extract, parts: Sequence[bytes]) -> Piece:
        box = extract.recipe
        assert isinstance(box, Box), "an extract goes back to the layout that made it"
        scale = 1 / (1 << extract.level)
        crop = Frame(0.0, 0.0, box.width * scale, box.height * scale).within(box.size.reduced(extract.level))
        return Piece(self.whole(parts), "pdf", crop, reduce=extract.level, area=box, sheet=Sheet(self.page, self.size))

    def dump(self) -> bytes:
        return _SERIAL.pack(MAGIC, self.size_bytes, self.page, self.size.width, self.size.height, self.density)


def sniff(head: bytes) -> bool:
    """Whether a file that starts like this is a PDF. ISO 32000-1, section 7.5.2."""
    return head.startswith(b"%PDF-")


def parse(size_bytes: int, page: int, per_inch: int) -> Parser[PdfLayout]:
    """The layout of a page that has `per_inch` pixels on an inch at full size.

    Reads the end of the file, and what it names on the way to the page: some KB in about ten places. Raises
    `Unsupported` where no package draws PDFs, and for an encrypted file; `Malformed`, `NoSuchPage`.
    """
    require_extra("pdf", "PDF")
    document = Document(size_bytes)
    entries = yield from document.page(page)
    left, top, right, bottom = (yield from _box(document, entries.get("MediaBox"))) or LETTER
    crop = yield from _box(document, entries.get("CropBox"))
    if crop is not None:
        shown = (max(left, crop[0]), max(top, crop[1]), min(right, crop[2]), min(bottom, crop[3]))
        if shown[0] < shown[2] and shown[1] < shown[3]:
            left, top, right, bottom = shown
    unit = yield from document.resolved(entries.get("UserUnit"))
    turns = yield from document.resolved(entries.get("Rotate"))
    scale = per_inch / POINTS_PER_INCH * (unit if isinstance(unit, int | float) and unit > 0 else 1)
    width, height = (right - left) * scale, (bottom - top) * scale
    if isinstance(turns, int) and turns % 180:
        width, height = height, width
    if not max(width, height) < math.inf:
        raise Malformed("the PDF has a page without a size")
    return PdfLayout(
        size_bytes, page, checked("page of the PDF", round(width) or 1, round(height) or 1), float(per_inch)
    )


def load(data: bytes) -> Layout:
    """The layout that `dump` wrote. Raises `Malformed` for anything else."""
    try:
        _, size_bytes, page, width, height, density = _SERIAL.unpack(data)
    except struct.error as error:
        raise Malformed(f"a stored layout is damaged ({error}); read the master again") from None
    if not size_bytes or not page or not 0 < density < math.inf:
        raise Malformed("a stored layout is damaged; read the master again")
    return PdfLayout(size_bytes, page, checked("stored layout", width, height), density)


def _box(document: Document, value: Object) -> Parser[tuple[float, float, float, float] | None]:
    """A rectangle by its lowest and highest numbers (section 7.9.5); None for what is none, or is empty."""
    items = yield from document.resolved(value)
    numbers: list[float] = []
    for item in items if isinstance(items, list) and len(items) == 4 else ():
        number = yield from document.resolved(item)
        if isinstance(number, int | float):
            numbers.append(float(number))
    if len(numbers) != 4:
        return None
    x, y, to_x, to_y = numbers
    left, right, top, bottom = min(x, to_x), max(x, to_x), min(y, to_y), max(y, to_y)
    return (left, top, right, bottom) if left < right and top < bottom else None
