"""PDFs by hand: pages of coloured rectangles, and each form that a table of cross-references has."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

FONT = "/Resources << /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
Form = Literal["table", "stream", "objects"]
"""A table as text; a stream; a stream whose objects, but for pictures, are in another one."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a page in one colour; in points, from the lower left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: tuple[float, float, float]
    """Red, green and blue, up to 1."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is on a page, and entries of its dictionary, such as `/Rotate 90`."""

    shown: Sequence[Rectangle] = ()
    entries: str = "/MediaBox [0 0 100 60]"
    written: str = ""
    """Text across the page, in a font that is not in the file."""


@dataclass(slots=True)
class Writer:
    """Objects by their numbers, as text; 1 is the catalog, 2 the root of the tree of pages."""

    objects: dict[int, bytes] = field(default_factory=dict)

    def put(self, text: str | bytes, number: int = 0) -> int:
        number = number or max([2, *self.objects]) + 1
        self.objects[number] = text.encode() if isinstance(text, str) else text
        return number

    def put_stream(self, data: bytes, entries: str = "", number: int = 0) -> int:
        return self.put(stream(data, entries), number)


def stream(data: bytes, entries: str = "") -> bytes:
    return f"<< /Length {len(data)} {entries} >>\nstream\n".encode() + data + b"\nendstream"


def document(pages: Sequence[Page], *, inherited: str = "", branches: int = 0) -> Writer:
    """A file of these pages; in a tree of so many pages to a node, or side by side."""
    writer = Writer()
    writer.put("<< /Type /Catalog /Pages 2 0 R >>", 1)
    kids = []
    for page in pages:
        drawn = "".join(
            f"{' '.join(map(str, it.colour))} rg {it.x} {it.y} {it.width} {it.height} re f\n" for it in page.shown
        )
        drawn += f"0 g BT /F 20 Tf 5 20 Td ({page.written}) Tj ET" if page.written else ""
        content = writer.put_stream(zlib.compress(drawn.encode()), "/Filter /FlateDecode")
        kids.append(writer.put(f"<< /Type /Page /Parent 2 0 R /Contents {content} 0 R {FONT} {page.entries} >>"))
    if branches:
        groups = [kids[at : at + branches] for at in range(0, len(kids), branches)]
        kids = [writer.put(_node(group, len(group), "")) for group in groups]
    writer.put(_node(kids, len(pages), inherited), 2)
    return writer


def _node(kids: Sequence[int], count: int, entries: str) -> str:
    return f"<< /Type /Pages /Count {count} {entries} /Kids [ {' '.join(f'{it} 0 R' for it in kids)} ] >>"


def written(
    writer: Writer,
    form: Form = "table",
    *,
    trailer: str = "",
    before: bytes = b"",
    predictor: int = 1,
    unused_bytes: int = 0,
) -> bytes:
    """The file; `before` is one that this is an update of.

    `predictor` is what the rows of a stream are filtered by; so many `unused_bytes` come behind them.
    """
    data = bytearray(before or b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    old = int(before.rpartition(b"startxref")[2].split()[0]) if before else None
    more = f"/Root 1 0 R {trailer}" + (f" /Prev {old}" if old is not None else "")
    free = max([*writer.objects, len(before)]) + 1  # no number of the file before
    packed = {n: it for n, it in writer.objects.items() if form == "objects" and b"endstream" not in it}
    places: dict[int, tuple[int, int, int]] = {}
    for number, text in writer.objects.items():
        if number not in packed:
            places[number] = (1, len(data), 0)
            data += b"%d 0 obj\n%b\nendobj\n" % (number, text)
    if packed:
        holder = free
        texts = [it + b"\n" for it in packed.values()]
        starts = [sum(map(len, texts[:n])) for n in range(len(texts))]
        head = b" ".join(b"%d %d" % pair for pair in zip(packed, starts, strict=True)) + b"\n"
        places |= {number: (2, holder, index) for index, number in enumerate(packed)}
        places[holder] = (1, len(data), 0)
        body = zlib.compress(head + b"".join(texts))
        entries = f"/Type /ObjStm /N {len(packed)} /First {len(head)} /Filter /FlateDecode"
        data += b"%d 0 obj\n%b\nendobj\n" % (holder, stream(body, entries))
    start, size = len(data), free + 2
    if form == "table":
        data += b"xref\n"
        for first, count in runs(places):
            data += b"%d %d\n" % (first, count)
            data += b"".join(b"%010d 00000 n \n" % places[first + n][1] for n in range(count))
        data += f"trailer\n<< /Size {size} {more} >>\n".encode()
    else:
        number = free + 1
        places[number] = (1, start, 0)
        rows = [struct.pack(">BIH", *places[it]) for it in sorted(places)]
        index = " ".join(f"{first} {count}" for first, count in runs(places))
        entries = f"/Type /XRef /Size {size} /W [1 4 2] /Index [{index}] /Filter /FlateDecode {more}"
        if predictor > 1:
            entries += f" /DecodeParms << /Predictor {predictor} /Columns 7 >>"
            rows = filtered(rows, predictor - 10)
        data += b"%d 0 obj\n%b\nendobj\n" % (
            number,
            stream(zlib.compress(b"".join(rows) + bytes(unused_bytes)), entries),
        )
    return bytes(data + b"startxref\n%d\n%%%%EOF\n" % start)


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first number and the length of each run."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and sum(found[-1]) == number:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found


def filtered(rows: Sequence[bytes], kind: int) -> list[bytes]:
    """Rows of bytes as PNG filters them, `kind` in front (W3C PNG, section 9.2)."""
    above, found = bytes(len(rows[0])), []
    for row in rows:
        guesses = []
        for at, up in enumerate(above):
            left, corner = (row[at - 1], above[at - 1]) if at else (0, 0)
            nearest = min((left, up, corner), key=lambda it: abs(left + up - corner - it))
            guesses.append((0, left, up, (left + up) // 2, nearest)[kind])
        found.append(bytes([kind]) + bytes((x - guess) & 255 for x, guess in zip(row, guesses, strict=True)))
        above = row
    return found
