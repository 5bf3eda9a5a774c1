"""Where objects are in a PDF, and its pages (ISO 32000-1, sections 7.5 and 7.7). Pure.

Objects are found as a viewer finds them: from the last bytes to the cross-reference table, from it to the catalog, and
down the tree of pages. Of a table only the entries that are needed are read; streams of cross-references and of objects
are read whole. A file whose table is wrong is refused: to search all of it for objects would be to read all of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np

from special.errors import Malformed, NoSuchPage, Unsupported
from special.formats.parser import Parser
from special.formats.pdf.objects import Cut, Object, Reference, Scanner
from special.storage import Span

T = TypeVar("T")

TAIL_BYTES: Final = 2048
"""How far from the end the place of the cross-reference table is searched for; viewers search 1,024 bytes."""
ENTRY_BYTES: Final = 20
"""Length of an entry of a cross-reference table."""
FIRST_BYTES: Final = 4096
"""How much is read for an object at first; then eight times as much, until it is whole."""
MAX_OBJECT_BYTES: Final = 256 << 10
"""Longest object that is read: an array of 25,000 pages."""
MAX_UNPACKED_BYTES: Final = 16 << 20
"""How much is unpacked for one page, of all streams: cross-references of two million objects."""
MAX_STREAM_BYTES: Final = 2 << 20
"""Longest stream of objects; most have a hundred objects. And of cross-references that are filtered in unusual ways."""
MAX_STREAMS: Final = 8
"""How many streams of objects are kept."""
MAX_SECTIONS: Final = 1000
"""Maximum number of parts of a cross-reference table: each time that a file is saved may add one."""
MAX_SUBSECTIONS: Final = 10_000
"""Maximum number of runs of objects that a cross-reference table may be in."""
MAX_STEPS: Final = 64
"""How long a chain of references may be, and how deep the tree of pages."""
MAX_OBJECTS: Final = 2000
"""Maximum number of objects that are looked at for one page."""
UP: Final = 2
"""The filter of PNG that takes the difference to the row above."""
PADDING: Final = b" " * 16
"""Goes behind the last bytes of a file, so that its last object has an end."""
INHERITED: Final = ("MediaBox", "CropBox", "Rotate")
"""Of what a page inherits (table 30), what its size depends on."""


class Place(NamedTuple):
    """Where an object is: in a file, or in a stream of objects."""

    offset: int
    """In bytes; in a stream of objects, how many come before it."""
    stream: int = 0
    """Number of the stream of objects; 0 for the file itself."""


@dataclass(frozen=True, slots=True)
class Table:
    """A part of a cross-reference table as text, of which entries are read when they are needed."""

    first: int
    """Number of its first object."""
    count: int
    at: int
    """Offset of its first entry, in bytes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A part of a cross-reference stream, unpacked."""

    first: int
    count: int
    data: bytes
    widths: tuple[int, int, int]

    def entry(self, number: int) -> Place | None:
        """Where an object is; None for one that was deleted (table 18)."""
        row, at = [], (number - self.first) * sum(self.widths)
        for width in self.widths:
            row.append(int.from_bytes(self.data[at : at + width]))
            at += width
        kind = row[0] if self.widths[0] else 1
        if kind == 2:
            return Place(row[2], row[1])
        return Place(row[1]) if kind == 1 else None


@dataclass(frozen=True, slots=True)
class Stream:
    """A dictionary, and where the bytes that it describes start."""

    entries: dict[str, Object]
    at: int


class Document:
    """A PDF of `size_bytes`, as far as it was read."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._sections: list[Table | Rows] = []  # the newest first
        self._trailer: dict[str, Object] = {}
        self._streams: dict[int, tuple[bytes, int, list[int]]] = {}
        self._looked_at = 0
        self._may_unpack_bytes = MAX_UNPACKED_BYTES

    def page(self, number: int) -> Parser[dict[str, Object]]:
        """The dictionary of a page, counted from 1, with what it inherits.

        Raises `Malformed`; `NoSuchPage`; `Unsupported` for an encrypted file.
        """
        yield from self._read_sections()
        root = yield from self._dictionary(self._trailer.get("Root"), "catalog")
        node = yield from self._dictionary(root.get("Pages"), "tree of pages")
        count, before = (yield from self._count(node)), number - 1
        if number > count:
            raise NoSuchPage(number, count)
        inherited: dict[str, Object] = {}
        for _ in range(MAX_STEPS):
            inherited |= {name: node[name] for name in INHERITED if name in node}
            kids = yield from self.resolved(node.get("Kids"))
            if not isinstance(kids, list):
                return {**inherited, **node}
            if len(kids) == (yield from self._count(node)):  # each of them is a page
                node, before = (yield from self._dictionary(kids[before], "page")), 0
                continue
            for kid in kids:
                node = yield from self._dictionary(kid, "node of the tree of pages")
                pages = yield from self._count(node)
                if before < pages:
                    break
                before -= pages
            else:
                raise Malformed("the tree of pages of the PDF has fewer pages than it says")
        raise Malformed(f"the tree of pages of the PDF is deeper than {MAX_STEPS} nodes")

    def resolved(self, value: Object) -> Parser[Object]:
        """What a reference refers to, or the value itself; null for an object that there is not."""
        for _ in range(MAX_STEPS):
            if not isinstance(value, Reference):
                return value
            found = yield from self._object(value.number)
            value = found.entries if isinstance(found, Stream) else found
        raise Malformed(f"the PDF has a chain of more than {MAX_STEPS} references")

    def _count(self, node: dict[str, Object]) -> Parser[int]:
        """How many pages are below a node, or are it."""
        if "Kids" not in node:
            return 1
        count = yield from self.resolved(node.get("Count"))
        if not isinstance(count, int) or count < 0:
            raise Malformed("the tree of pages of the PDF does not say how many they are (Count)")
        return count

    def _dictionary(self, value: Object, what: str) -> Parser[dict[str, Object]]:
        found = yield from self.resolved(value)
        if not isinstance(found, dict):
            raise Malformed(f"the PDF has no {what} where its table says, or that is damaged")
        return found

    def _object(self, number: int) -> Parser[Object | Stream]:
        self._looked_at += 1
        if self._looked_at > MAX_OBJECTS:
            raise Unsupported(f"a page of the PDF is behind more than {MAX_OBJECTS} objects")
        place = yield from self._find(number)
        if place is None:
            return None
        if not place.stream:
            return (yield from self._read(place.offset, number))
        if place.stream not in self._streams:
            stream = yield from self._object_stream(place.stream)
            if len(self._streams) == MAX_STREAMS:
                self._streams.clear()
            self._streams[place.stream] = stream
        data, first, offsets = self._streams[place.stream]
        index = 2 * place.offset
        if index + 1 >= len(offsets) or offsets[index] != number:
            raise Malformed(f"object {number} of the PDF is not where its table says")
        try:
            return Scanner(data, first + offsets[index + 1]).value()
        except Cut:
            raise Malformed(f"object {number} of the PDF has no end") from None

    def _find(self, number: int) -> Parser[Place | None]:
        for section in self._sections:
            if not 0 <= number - section.first < section.count:
                continue
            if isinstance(section, Rows):
                return section.entry(number)
            start = section.at + (number - section.first) * ENTRY_BYTES
            (entry,) = yield [Span(start, start + ENTRY_BYTES)]
            offset, kind = entry[:10], entry[17:18]
            if not offset.isdigit() or kind not in b"nf":
                raise Malformed("the cross-reference table of the PDF is damaged")
            return Place(int(offset)) if kind == b"n" else None
        return None

    def _read(self, offset: int, number: int | None) -> Parser[Object | Stream]:
        """The object that starts at a place in the file; `number` is what it should be, if that is known."""
        value, stream_at = yield from self._parsed(offset, partial(_indirect, number))
        return Stream(value, offset + stream_at) if stream_at and isinstance(value, dict) else value

    def _parsed(self, start: int, parse: Callable[[Scanner], T]) -> Parser[T]:
        """What `parse` makes of the text from a place on, of which as much is read as it needs."""
        length = FIRST_BYTES
        while 0 <= start < self._size_bytes:
            stop = min(self._size_bytes, start + length)
            (data,) = yield [Span(start, stop)]
            is_end = stop == self._size_bytes
            try:
                return parse(Scanner(data + PADDING if is_end else data))
            except Cut:
                if is_end or length >= MAX_OBJECT_BYTES:
                    break
            length *= 8
        raise Malformed(f"the PDF has nothing whole at byte {start} of {self._size_bytes}, where it says something is")

    def _read_sections(self) -> Parser[None]:
        (tail,) = yield [Span(max(0, self._size_bytes - TAIL_BYTES), self._size_bytes)]
        at = tail.rfind(b"startxref")
        if at < 0:
            raise Malformed("the PDF does not say where its cross-reference table is (startxref): it may be cut short")
        start = max(0, self._size_bytes - TAIL_BYTES) + at + len(b"startxref")
        ahead, seen = [(yield from self._parsed(start, Scanner.integer))], set[int]()
        while ahead:
            start = ahead.pop(0)
            if start in seen:
                continue
            seen.add(start)
            if len(seen) > MAX_SECTIONS:
                raise Unsupported(f"the PDF was saved more than {MAX_SECTIONS} times")
            trailer = yield from self._section(start)
            if "Encrypt" in trailer:
                raise Unsupported("the PDF is encrypted")
            self._trailer = {**trailer, **self._trailer}
            # A file for old and new readers names both forms of its table; the stream has more (section 7.5.8.4).
            ahead += [it for name in ("XRefStm", "Prev") if isinstance(it := trailer.get(name), int)]

    def _section(self, start: int) -> Parser[dict[str, Object]]:
        """Reads a part of the cross-references; gives its trailer."""
        if (yield from self._parsed(start, Scanner.token)) != b"xref":
            return (yield from self._cross_reference_stream(start))
        while True:
            found = yield from self._parsed(start, _subsection)
            if not isinstance(found, Table):
                return found
            self._add(replace(found, at=start + found.at))
            start += found.at + found.count * ENTRY_BYTES

    def _add(self, section: Table | Rows) -> None:
        if len(self._sections) >= MAX_SUBSECTIONS:
            raise Unsupported(f"the cross-reference table of the PDF has more than {MAX_SUBSECTIONS} parts")
        self._sections.append(section)

    def _cross_reference_stream(self, start: int) -> Parser[dict[str, Object]]:
        found = yield from self._read(start, None)
        if not isinstance(found, Stream) or found.entries.get("Type") != "XRef":
            raise Malformed(f"the PDF has no cross-reference table at byte {start}, where it says that one is")
        widths = _integers(found.entries.get("W"))
        size = _integers([found.entries.get("Size")])
        ranges = _integers(found.entries["Index"]) if "Index" in found.entries else [0, *size]
        if len(widths) != 3 or max(widths) > 8 or not sum(widths) >= 1 or len(ranges) % 2:
            raise Malformed("the cross-reference stream of the PDF is damaged")
        data, at = (yield from self._unpacked(found, MAX_UNPACKED_BYTES)), 0
        for first, count in zip(ranges[::2], ranges[1::2], strict=True):
            stop = at + count * sum(widths)
            rows = data[at:stop]
            self._add(Rows(first, len(rows) // sum(widths), rows, (widths[0], widths[1], widths[2])))
            at = stop
        return found.entries

    def _object_stream(self, number: int) -> Parser[tuple[bytes, int, list[int]]]:
        """The text of a stream of objects, where the first of them starts, and pairs of numbers and offsets."""
        place = yield from self._find(number)
        found = (yield from self._read(place.offset, number)) if place is not None and not place.stream else None
        if not isinstance(found, Stream):
            raise Malformed(f"object {number} of the PDF is no stream of objects")
        count, first = _integers([found.entries.get("N"), found.entries.get("First")])
        data = yield from self._unpacked(found, MAX_STREAM_BYTES)
        numbers = data[:first].split()
        if len(numbers) < 2 * count or not all(it.isdigit() and len(it) <= 10 for it in numbers):
            raise Malformed(f"the stream of objects {number} of the PDF is damaged")
        return data + PADDING, first, [int(it) for it in numbers]

    def _unpacked(self, stream: Stream, most_bytes: int) -> Parser[bytes]:
        (length,) = _integers([(yield from self.resolved(stream.entries.get("Length")))])
        most_bytes = min(most_bytes, self._may_unpack_bytes)
        if length > most_bytes:
            raise Unsupported(f"the PDF has tables of objects of more than {most_bytes} bytes")
        (data,) = yield [Span(stream.at, stream.at + length)]
        filters, parameters = stream.entries.get("Filter"), stream.entries.get("DecodeParms")
        if isinstance(filters, list) and len(filters) == 1:
            filters = filters[0]
            parameters = parameters[0] if isinstance(parameters, list) and parameters else parameters
        if filters is None or filters == []:
            return data
        if filters != "FlateDecode":
            raise Unsupported(f"the cross-references of the PDF are packed by {filters!r}")
        try:
            inflate = zlib.decompressobj()
            plain = inflate.decompress(data, most_bytes + 1)
        except zlib.error as error:
            raise Malformed(f"a stream of the PDF is damaged: {error}") from None
        if len(plain) > most_bytes:
            raise Unsupported(f"the PDF has tables of objects of more than {most_bytes} bytes")
        self._may_unpack_bytes -= len(plain)
        if not isinstance(parameters, dict) or parameters.get("Predictor", 1) == 1:
            return plain
        (columns,) = _integers([parameters.get("Columns", 1)])
        are_bytes = parameters.get("Colors", 1) == 1 and parameters.get("BitsPerComponent", 8) == 8
        if not are_bytes or not 0 < columns <= len(plain):
            raise Unsupported("the cross-references of the PDF are filtered in rows that are not read here")
        return _without_prediction(plain, columns)


def _without_prediction(data: bytes, columns: int) -> bytes:
    """Undoes the filters of PNG, of one byte a pixel (W3C PNG, section 9)."""
    table = np.frombuffer(data[: len(data) // (columns + 1) * (columns + 1)], np.uint8).reshape(-1, columns + 1)
    if (table[:, 0] == UP).all():  # what nearly all programs write
        return table[:, 1:].cumsum(axis=0, dtype=np.uint8).tobytes()
    if len(data) > MAX_STREAM_BYTES:
        raise Unsupported(f"the PDF has a table of objects of {len(data)} bytes in filters other than Up")
    above, rows = bytes(columns), []
    for at in range(0, len(data) - columns, columns + 1):
        kind, row = data[at], bytearray(data[at + 1 : at + 1 + columns])
        if kind > 4:
            raise Malformed(f"a stream of the PDF has a row by filter {kind}, which there is none of")
        if kind == UP:
            row = bytearray((x + up) & 255 for x, up in zip(row, above, strict=True))
        elif kind:
            left = corner = 0
            for column, up in enumerate(above):
                guess = left if kind == 1 else (left + up) // 2 if kind == 3 else _paeth(left, up, corner)
                left, corner = (row[column] + guess) & 255, up
                row[column] = left
        above = bytes(row)
        rows.append(above)
    return b"".join(rows)


def _paeth(left: int, up: int, corner: int) -> int:
    straight = left + up - corner
    return min((left, up, corner), key=lambda near: abs(straight - near))


def _indirect(number: int | None, scanner: Scanner) -> tuple[Object, int]:
    """An object of its own, and where the bytes of its stream start; 0 for one without."""
    found = (scanner.integer(), scanner.integer(), scanner.token())
    if found[2] != b"obj" or number not in (None, found[0]):
        raise Malformed(f"object {number} of the PDF is not where its table says")
    value = scanner.value()
    return value, scanner.line() if scanner.token() == b"stream" else 0


def _subsection(scanner: Scanner) -> Table | dict[str, Object]:
    """The next part of a cross-reference table, with `at` counted from where the scanner began, or the trailer."""
    token = scanner.token()
    if token == b"xref":
        token = scanner.token()
    if token == b"trailer":
        trailer = scanner.value()
        if isinstance(trailer, dict):
            return trailer
    if not token.isdigit() or len(token) > 10:
        raise Malformed(f"the cross-reference table of the PDF is damaged: {token[:20]!r}")
    count = scanner.integer()
    scanner.skip_space()
    return Table(int(token), count, scanner.at)


def _integers(value: Object) -> list[int]:
    """The numbers of an array. Raises `Malformed` for anything else, and for negative ones."""
    items = value if isinstance(value, list) else [None]
    numbers = [it for it in items if isinstance(it, int) and it >= 0]
    if len(numbers) != len(items):
        raise Malformed("the cross-reference stream of the PDF is damaged")
    return numbers
