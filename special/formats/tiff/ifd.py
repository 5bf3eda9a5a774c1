"""TIFF directories: from bytes to fields. Sans-I/O; `ifd_chain` follows their links."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

from special.errors import Malformed
from special.formats import density
from special.formats.tiff.tags import COPIED, NUMBERS, REALS, WIDTHS, Tag, Type
from special.storage import Span

Order = Literal["<", ">"]
"""Byte order, as `struct` writes it."""

MAX_ENTRIES = 200
"""Fields of one directory; the most that cameras write is about 100. 200 × 20 bytes fit in one read."""
EAGER_BYTES = 16384
"""Longest value that is read with its directory. Profiles of printers are longer (500 KB): read with the pixels."""
EAGER_INDEX_BYTES = 65536
"""Longest list of tiles that is read with its directory; of longer ones, the part that is needed, when it is."""

WANTED = COPIED | {
    Tag.NEW_SUBFILE_TYPE,
    Tag.IMAGE_WIDTH,
    Tag.IMAGE_LENGTH,
    Tag.STRIP_OFFSETS,
    Tag.ORIENTATION,
    Tag.ROWS_PER_STRIP,
    Tag.X_RESOLUTION,
    Tag.Y_RESOLUTION,
    Tag.RESOLUTION_UNIT,
    Tag.STRIP_BYTE_COUNTS,
    Tag.PAGE_NUMBER,
    Tag.TILE_WIDTH,
    Tag.TILE_LENGTH,
    Tag.TILE_OFFSETS,
    Tag.TILE_BYTE_COUNTS,
    Tag.SUB_IFDS,
    Tag.JPEG_PROC,
    Tag.JPEG_INTERCHANGE_FORMAT,
    Tag.JPEG_INTERCHANGE_FORMAT_LENGTH,
    Tag.ICC_PROFILE,
}
INDEX = frozenset({Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS, Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS})
"""Fields with a value for each tile."""


class Field(NamedTuple):
    """One entry of a directory. A tuple, since a decoder makes 15 of them for a piece: 4 µs, as dataclasses 15."""

    tag: int
    type: int
    values: int
    """How many there are."""
    at: int
    """Offset of the values in the file."""
    raw: bytes | None
    """The values as they are stored; None if they are too long to be read with the directory."""

    @property
    def size_bytes(self) -> int:
        """Length of all values."""
        return self.values * WIDTHS[self.type]

    @property
    def is_eager(self) -> bool:
        """Whether the values are short enough to be read with the directory."""
        return self.size_bytes <= (EAGER_INDEX_BYTES if self.tag in INDEX else EAGER_BYTES)

    @property
    def span(self) -> Span:
        """The values' bytes in the file."""
        return Span.at(self.at, self.size_bytes)


@dataclass(frozen=True, slots=True)
class Directory:
    """The fields of one page that are of use here."""

    order: Order
    fields: dict[int, Field]

    @property
    def is_reduced(self) -> bool:
        """Whether the page says that it is a smaller version of another one (bit 0 of NewSubfileType)."""
        return bool(self.hint(Tag.NEW_SUBFILE_TYPE, 0) & 1)

    @property
    def is_other_page(self) -> bool:
        """Whether it says that it is a page of a document (bit 1 of NewSubfileType, PageNumber), and not reduced."""
        is_page = self.hint(Tag.NEW_SUBFILE_TYPE, 0) & 2 or Tag.PAGE_NUMBER in self.fields
        return bool(is_page) and not self.is_reduced

    def smaller_than(self, first: Directory) -> bool:
        """Whether the page is narrower and lower than another; one that is not starts another picture."""
        return all(self.number(side, 0) < first.number(side) for side in (Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH))

    def numbers(self, tag: Tag) -> tuple[int, ...]:
        """All values of a whole-number field; none if it is absent. Raises `Malformed` for another type."""
        entry = self.fields.get(tag)
        if entry is None:
            return ()
        known = self._known(entry)
        return struct.unpack(f"{self.order}{entry.values}{NUMBERS[entry.type]}", known)

    def number(self, tag: Tag, default: int | None = None) -> int:
        """The first value of a whole-number field. Raises `Malformed` if it is absent and has no default."""
        entry = self.fields.get(tag)
        if entry is not None:
            first = self._known(entry)[: WIDTHS[entry.type]]
            return int.from_bytes(first, "little" if self.order == "<" else "big")
        if default is None:
            raise Malformed(f"the TIFF directory has no {tag.name}")
        return default

    def hint(self, tag: Tag, default: int) -> int:
        """The first value of a field that pixels can do without; `default` too where it cannot be read."""
        try:
            return self.number(tag, default)
        except Malformed:
            return default

    def fractions(self, tag: Tag) -> tuple[float, ...]:
        """All values of a field of unsigned fractions; none if it is absent, of another type, or divides by 0."""
        entry = self.fields.get(tag)
        if entry is None or entry.type != Type.RATIONAL or entry.raw is None:
            return ()
        pairs = list(struct.iter_unpack(f"{self.order}II", entry.raw))
        return tuple(above / below for above, below in pairs) if all(below for _, below in pairs) else ()

    @property
    def density(self) -> float | None:
        """Pixels per inch, from XResolution, YResolution and ResolutionUnit (TIFF 6.0 section 8)."""
        across, down = self.fractions(Tag.X_RESOLUTION), self.fractions(Tag.Y_RESOLUTION)
        unit = self.hint(Tag.RESOLUTION_UNIT, 2)
        return density.of_units(across[0], down[0], unit, inch=2) if across and down else None

    def reals(self, tag: Tag) -> tuple[float, ...]:
        """All values of a field that holds values of samples; none if it is absent or of another type."""
        entry = self.fields.get(tag)
        if entry is None or entry.type not in REALS or entry.raw is None:
            return ()
        return struct.unpack(f"{self.order}{entry.values}{REALS[entry.type]}", entry.raw)

    def _known(self, entry: Field) -> bytes:
        """The packed values of a whole-number field."""
        if entry.type not in NUMBERS or entry.raw is None:
            name = Tag(entry.tag).name
            raise Malformed(f"{name} holds {entry.values} values of type {entry.type}, not a few whole numbers")
        return entry.raw


@dataclass(frozen=True, slots=True)
class Dialect:
    """Byte order and width of offsets, as the first bytes say."""

    order: Order
    big: bool

    @property
    def structs(self) -> tuple[struct.Struct, struct.Struct, struct.Struct]:
        """A directory's number of entries, one entry, and an offset."""
        return _STRUCTS[self.order, self.big]

    def entries_bytes(self, head: bytes) -> int:
        """How much of what starts with `head` is a directory's entries. Raises `Malformed`."""
        count_of, entry, _ = self.structs
        if len(head) < count_of.size:
            return count_of.size
        (count,) = count_of.unpack_from(head)
        return int(count_of.size + min(count, MAX_ENTRIES) * entry.size)

    def directory(self, data: bytes, at: int, *, data_at: int, end: int) -> tuple[Directory, int]:
        """Wanted fields, and the next directory's offset, of the directory at byte `at`; the file ends at `end`.

        `data` is the file from byte `data_at` on. Values inside it are taken at once: libtiff puts them right behind
        their directory. Fields that pixels can do without are passed over where their values are beyond the file's end.
        """
        count_of, entry, pointer = self.structs
        inline_bytes = pointer.size
        base = at - data_at
        try:
            (count,) = count_of.unpack_from(data, base)
            if not 0 < count <= MAX_ENTRIES:
                raise Malformed(f"the TIFF directory at byte {at} has {count} fields; 1 to {MAX_ENTRIES} are possible")
            start = base + count_of.size
            stop = start + count * entry.size
            # A last directory that is cut off right behind its entries is common enough: it has no next.
            following = pointer.unpack_from(data, stop)[0] if stop + pointer.size <= len(data) else 0
            entries = list(entry.iter_unpack(data[start:stop]))
        except struct.error:
            entries = []
        if not entries or stop > len(data):
            raise Malformed(f"the file ends inside the TIFF directory at byte {at}")
        fields: dict[int, Field] = {}
        data_stop = data_at + len(data)
        value_at = data_at + start - inline_bytes
        for tag, kind, count, inline in entries:
            value_at += entry.size
            if tag not in WANTED or tag in fields or kind not in WIDTHS or not count:
                continue
            size_bytes = count * WIDTHS[kind]
            if size_bytes <= inline_bytes:
                fields[tag] = Field(tag, kind, count, value_at, inline[:size_bytes])
                continue
            (far_at,) = pointer.unpack(inline)
            if far_at + size_bytes > end:
                if tag in COPIED or tag in INDEX:
                    raise Malformed(f"{Tag(tag).name} is said to end at byte {far_at + size_bytes} of {end}")
                continue
            is_here = data_at < far_at and far_at + size_bytes <= data_stop
            raw = data[far_at - data_at : far_at - data_at + size_bytes] if is_here else None
            fields[tag] = Field(tag, kind, count, far_at, raw)
        return Directory(self.order, fields), following


_CODES = {False: ("H", "HHI4s", "I"), True: ("Q", "HHQ8s", "Q")}
_STRUCTS = {
    (order, big): (struct.Struct(order + count), struct.Struct(order + entry), struct.Struct(order + pointer))
    for order in ("<", ">")
    for big, (count, entry, pointer) in _CODES.items()
}


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


def first_directory(data: bytes) -> Directory:
    """The first directory of a whole, small file in memory, with all its values. Raises `Malformed`."""
    dialect, at = header(data[:16])
    found, _ = dialect.directory(data, at, data_at=0, end=len(data))
    for entry in found.fields.values():
        if entry.raw is None:
            raise Malformed(f"the TIFF of {len(data)} bytes has its {Tag(entry.tag).name} at byte {entry.at}")
    return found
