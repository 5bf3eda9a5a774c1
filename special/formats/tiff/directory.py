"""TIFF directories: from offsets to fields. Sans-I/O.

A pyramid's directories lie all over the file, each linked from the one before, so reading them
one by one costs a round trip each. What is asked for in one go here: a directory's long values
together with the next directory, all sub-directories at once, and with a first directory far
from the start the end of the file, where the small levels of a pyramid are.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Literal

from special.errors import Malformed
from special.formats.tiff.tags import COPIED, NUMBERS, WIDTHS, Tag
from special.spans import Parser, Span

Order = Literal["<", ">"]
"""Byte order, as `struct` writes it."""

MAX_DIRECTORIES = 32
"""More than any pyramid has: 32 halvings exceed the format's own limits."""
MAX_ENTRIES = 200
"""Fields of one directory; the most that cameras write is about 100. 200 × 20 bytes fit in one look."""
LOOK_BYTES = 4096
"""What is asked for at a directory's offset: all of one that is allowed."""
EAGER_BYTES = 16384
"""Longest value that is read with its directory. Profiles of printers are longer (500 KB): read with the pixels."""
EAGER_INDEX_BYTES = 65536
"""Longest list of tiles that is read with its directory; of longer ones, the part that is needed, when it is."""
TAIL_BYTES = 65536
"""How much of the file's end is read along with a first directory that is not at its start."""

WANTED = COPIED | {
    Tag.NEW_SUBFILE_TYPE,
    Tag.IMAGE_WIDTH,
    Tag.IMAGE_LENGTH,
    Tag.STRIP_OFFSETS,
    Tag.ORIENTATION,
    Tag.ROWS_PER_STRIP,
    Tag.STRIP_BYTE_COUNTS,
    Tag.TILE_WIDTH,
    Tag.TILE_LENGTH,
    Tag.TILE_OFFSETS,
    Tag.TILE_BYTE_COUNTS,
    Tag.SUB_IFDS,
    Tag.ICC_PROFILE,
}
INDEX = frozenset({Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS, Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS})
"""Fields with a value for each tile."""


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a directory."""

    tag: int
    type: int
    count: int
    at: int
    """Where the values lie in the file, in bytes."""
    raw: bytes | None
    """The values as they are stored; None if they are too long to be read with the directory."""

    @property
    def size_bytes(self) -> int:
        """Length of all values."""
        return self.count * WIDTHS[self.type]

    @property
    def is_eager(self) -> bool:
        """Whether the values are short enough to be read with the directory."""
        return self.size_bytes <= (EAGER_INDEX_BYTES if self.tag in INDEX else EAGER_BYTES)

    @property
    def span(self) -> Span:
        """Where the values lie."""
        return Span.at(self.at, self.size_bytes)


@dataclass(frozen=True, slots=True)
class Directory:
    """The fields of one page that are of use here."""

    order: Order
    fields: dict[int, Field]

    @property
    def is_reduced(self) -> bool:
        """Whether the page says that it is a smaller version of another one (bit 0 of NewSubfileType)."""
        return bool(self.number(Tag.NEW_SUBFILE_TYPE, 0) & 1)

    def smaller_than(self, first: Directory) -> bool:
        """Whether the page is narrower and lower than another; one that is not starts another picture."""
        return all(self.number(side, 0) < first.number(side) for side in (Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH))

    def numbers(self, tag: Tag) -> tuple[int, ...]:
        """All values of a whole-number field; none if it is absent. Raises `Malformed` for another type."""
        entry = self.fields.get(tag)
        if entry is None:
            return ()
        if entry.type not in NUMBERS or entry.raw is None:
            raise Malformed(f"{tag.name} holds {entry.count} values of type {entry.type}, not a few whole numbers")
        code = NUMBERS[entry.type]
        return struct.unpack(self.order + (code if entry.count == 1 else f"{entry.count}{code}"), entry.raw)

    def number(self, tag: Tag, default: int | None = None) -> int:
        """The first value of a whole-number field. Raises `Malformed` if it is absent and has no default."""
        values = self.numbers(tag)
        if values:
            return values[0]
        if default is None:
            raise Malformed(f"the TIFF directory has no {tag.name}")
        return default


@dataclass(frozen=True, slots=True)
class Dialect:
    """Byte order and width of offsets, as the first bytes say."""

    order: Order
    big: bool

    def directory(self, look: bytes, at: int) -> tuple[Directory, int]:
        """Fields that are wanted, and the next directory's offset, from the bytes at a directory's own offset.

        Values that lie right behind the directory, where libtiff puts them, are in the same bytes.
        """
        count_of, entry, pointer = _STRUCTS[self.order, self.big]
        inline_bytes = pointer.size
        try:
            (count,) = count_of.unpack_from(look)
            stop = count_of.size + count * entry.size
            if not 0 < count <= MAX_ENTRIES:
                raise Malformed(f"the TIFF directory at byte {at} has {count} fields; 1 to {MAX_ENTRIES} are possible")
            # A last directory that is cut off right behind its entries is common enough: it has no next.
            following = pointer.unpack_from(look, stop)[0] if stop + pointer.size <= len(look) else 0
            entries = list(entry.iter_unpack(look[count_of.size : stop]))
        except struct.error:
            entries = []
        if not entries or stop > len(look):
            raise Malformed(f"the file ends inside the TIFF directory at byte {at}")
        fields: dict[int, Field] = {}
        for number, (tag, kind, values, inline) in enumerate(entries, start=1):
            if tag not in WANTED or tag in fields or kind not in WIDTHS or not values:
                continue
            size_bytes, raw = values * WIDTHS[kind], None
            if size_bytes <= inline_bytes:
                value_at, raw = at + count_of.size + number * entry.size - inline_bytes, inline[:size_bytes]
            else:
                (value_at,) = pointer.unpack(inline)
                if at < value_at and value_at + size_bytes <= at + len(look):
                    raw = look[value_at - at : value_at - at + size_bytes]
            fields[tag] = Field(tag, kind, values, value_at, raw)
        return Directory(self.order, fields), following


_STRUCTS = {
    (order, big): tuple(struct.Struct(order + code) for code in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
    for order in ("<", ">")
    for big in (False, True)
}
"""Of each dialect: a directory's number of entries, one entry, and an offset."""


def header(head: bytes) -> tuple[Dialect, int]:
    """The dialect and the first directory's offset, from a file's first 16 bytes."""
    order: Order = "<" if head[:2] == b"II" else ">"
    try:
        (version,) = struct.unpack_from(order + "H", head, 2)
        if version == 42:
            return Dialect(order, big=False), struct.unpack_from(order + "I", head, 4)[0]
        offset_bytes, zero, first = struct.unpack_from(order + "HHQ", head, 4)
    except struct.error:
        raise Malformed(f"a TIFF of {len(head)} bytes ends inside its header") from None
    if (version, offset_bytes, zero) != (43, 8, 0):
        raise Malformed(
            f"the TIFF header says version {version} with offsets of {offset_bytes} bytes; 42, or 43 with 8"
        )
    return Dialect(order, big=True), first


def directories(size_bytes: int) -> Parser[list[Directory]]:
    """The first directory, and those linked from it that may be smaller levels of the same picture.

    These are its sub-directories if it has any, else the chain as long as it grows smaller.
    Asks one after the other for the header, each directory of the chain (all sub-directories at
    once), and last the long values of all. Raises `Malformed`.
    """
    (head,) = yield [Span(0, min(16, size_bytes))]
    dialect, at = header(head)
    seen = _Links(size_bytes)
    looks = [seen.look(at)]
    if TAIL_BYTES < at < size_bytes - TAIL_BYTES:
        looks.append(Span(size_bytes - TAIL_BYTES, size_bytes))
    parts = yield looks
    first, following = dialect.directory(parts[0], at)
    found = [first]
    if Tag.SUB_IFDS in first.fields:
        yield from _fill([first], {Tag.SUB_IFDS})
        links = first.numbers(Tag.SUB_IFDS)[: MAX_DIRECTORIES - 1]
        parts = yield [seen.look(at) for at in links]
        found += [dialect.directory(look, at)[0] for at, look in zip(links, parts, strict=True)]
    else:
        while following and len(found) < MAX_DIRECTORIES:
            at = following
            (look,) = yield [seen.look(at)]
            directory, following = dialect.directory(look, at)
            if not (first.is_reduced or directory.smaller_than(first)):
                break
            found.append(directory)
    yield from _fill(found, WANTED)
    return found


@dataclass(frozen=True, slots=True)
class _Links:
    """Follows links to directories, each once."""

    size_bytes: int
    seen: set[int] = field(default_factory=set)

    def look(self, at: int) -> Span:
        if at in self.seen:
            raise Malformed(f"the TIFF directories form a circle: byte {at} is linked twice")
        if not 8 <= at < self.size_bytes:
            raise Malformed(f"a TIFF directory is said to be at byte {at} of {self.size_bytes}")
        self.seen.add(at)
        return Span(at, min(at + LOOK_BYTES, self.size_bytes))


def _fill(found: list[Directory], tags: Set[int]) -> Parser[None]:
    """Read those values that did not fit into their entries and are not too long, all in one go."""
    lacking = [
        (directory, entry)
        for directory in found
        for entry in directory.fields.values()
        if entry.raw is None and entry.tag in tags and entry.is_eager
    ]
    if lacking:
        parts = yield [entry.span for _, entry in lacking]
        for (directory, entry), raw in zip(lacking, parts, strict=True):
            directory.fields[entry.tag] = Field(entry.tag, entry.type, entry.count, entry.at, raw)
