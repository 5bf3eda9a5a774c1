"""From a TIFF's header to the directories of its first picture, by their links. Sans-I/O.

A pyramid's directories are spread over the file, each linked from the one before, so reading them
one by one costs a round trip each. What is asked for in one go here: a directory's long values
together with the next directory, all sub-directories at once, and with a first directory far from the start the bytes
where the others should be: by what the file's end says where that is at hand already (see `ifd_tail`), else the
end itself, where the small levels of a pyramid are, and with the second one those between (see `ifd_prefetch`).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from special.errors import Malformed
from special.formats.parser import Parser
from special.formats.tiff.ifd import INDEX, WANTED, Dialect, Directory, Field, header
from special.formats.tiff.ifd_prefetch import ExpectedPyramid
from special.formats.tiff.ifd_tail import expected_directories, last_levels
from special.formats.tiff.tags import WIDTHS, Tag
from special.geometry import Size
from special.storage import Span

MAX_DIRECTORIES = 32
"""More than any pyramid has: 32 halvings exceed the format's own limits."""
DIRECTORY_BYTES = 8192
"""What is asked for at the first directory's offset: all of one that is allowed, and lists of some 900 tiles."""
TAIL_BYTES = 32768
"""How much of the file's end is read along with a first directory that is not at its start."""


def directories(
    size_bytes: int, *, page_at: int | None = None, tail_bytes: int = 0
) -> Parser[tuple[list[Directory], str]]:
    """A page's first directory, and those linked from it that may be smaller levels of the same picture.

    The page is the first of the file, or the one at that offset. These are its sub-directories if it has any, else the
    chain as long as it grows smaller. Asks one after the other for the header, each directory of the chain (all
    sub-directories at once), and last the long values of all. The last `tail_bytes` of the file are at hand: asking
    for them costs nothing. Raises `Malformed` for the first directory; what is wrong with one behind it is returned in
    words.
    """
    (head,) = yield [Span(0, min(16, size_bytes))]
    dialect, at = header(head)
    at = at if page_at is None else page_at
    seen = Links(size_bytes)
    tail, others, length = size_bytes, list[Span](), DIRECTORY_BYTES
    if page_at is None and TAIL_BYTES < at < size_bytes - max(TAIL_BYTES, tail_bytes):
        tail = size_bytes - max(TAIL_BYTES, tail_bytes)
        if tail_bytes >= TAIL_BYTES:
            (end,) = yield [Span(tail, size_bytes)]
            expected = expected_directories(last_levels(dialect, end, size_bytes=size_bytes), at)
            length, others = max(DIRECTORY_BYTES, expected.first_bytes), expected.others
        else:
            others = [Span(tail, size_bytes)]
    wanted = [seen.follow(at, length), *others]
    read = [*others, Span(tail, size_bytes)] if tail < size_bytes else []
    parts = yield wanted
    first, following = dialect.directory(parts[0], at, data_at=at, end=size_bytes)
    found, fault = [first], ""
    if Tag.SUB_IFDS in first.fields:
        yield from fill([first], {Tag.SUB_IFDS})
        try:
            links = first.numbers(Tag.SUB_IFDS)[: MAX_DIRECTORIES - 1]
            parts = yield [seen.follow(at, _length(read, at, DIRECTORY_BYTES)) for at in links]
            for at, data in zip(links, parts, strict=True):
                head = data if dialect.entries_bytes(data) <= len(data) else (yield [seen.span(at, DIRECTORY_BYTES)])[0]
                found.append(dialect.directory(head, at, data_at=at, end=size_bytes)[0])
        except Malformed as error:
            fault = str(error)
    else:
        smaller, fault = yield from _chain(dialect, seen, first, at, following, tail=tail, read=read)
        found += smaller
    _spare(found)
    yield from fill(found, WANTED)
    return found, fault


def _spare(found: Sequence[Directory]) -> None:
    """Leave out colour profiles and resolutions of smaller levels: those of the full picture hold for all."""
    base = next((directory for directory in found if not directory.is_reduced), found[0])
    for directory in found:
        if directory is not base:
            for tag in (Tag.ICC_PROFILE, Tag.X_RESOLUTION, Tag.Y_RESOLUTION, Tag.RESOLUTION_UNIT):
                directory.fields.pop(tag, None)


def _chain(
    dialect: Dialect, seen: Links, first: Directory, at: int, following: int, *, tail: int, read: Sequence[Span]
) -> Parser[tuple[list[Directory], str]]:
    """The directories behind the first, each with the long values of the one before.

    They end where they grow no smaller, or where one says that it is another page. Each read takes also those behind
    the next, where their offsets can be estimated and are not in `read`. What is wrong with the next one is returned
    in words.
    """
    found, links, fault = [first], [at], ""
    pyramid = _pyramid(first, at)
    while following and len(found) < MAX_DIRECTORIES:
        links.append(following)
        directory_bytes = pyramid.directory_bytes(len(found)) if pyramid else DIRECTORY_BYTES
        try:
            wanted = [seen.follow(following, _length(read, following, directory_bytes))]
        except Malformed as error:
            fault = str(error)
            break
        if pyramid and not any(span.covers(wanted[0]) for span in read):
            wanted += pyramid.windows(links, size_bytes=seen.size_bytes, tail=tail)
            read = [*read, *wanted[1:]]
        unread = _unread(found[-1:], INDEX if len(found) > 1 else WANTED)
        parts = yield [*wanted, *(entry.span for _, entry in unread)]
        _put(unread, parts[len(wanted) :])
        head = parts[0]
        if dialect.entries_bytes(head) > len(head):
            (head,) = yield [seen.span(following, DIRECTORY_BYTES)]
        try:
            directory, following = dialect.directory(head, following, data_at=following, end=seen.size_bytes)
            if not (first.is_reduced or directory.smaller_than(first)):
                break
            has_picture = not all(it.is_reduced for it in found)
            if has_picture and directory.is_other_page:
                break
        except Malformed as error:
            fault = str(error)
            break
        found.append(directory)
    return found[1:], fault


def _pyramid(first: Directory, at: int) -> ExpectedPyramid | None:
    """What the other levels of a first page would be; None for strips, and for what makes no sense."""
    sides = [first.number(tag, 0) for tag in (Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH, Tag.TILE_WIDTH, Tag.TILE_LENGTH)]
    lists = [first.fields[tag] for tag in (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS) if tag in first.fields]
    if not all(sides) or len(lists) < 2:
        return None
    number_bytes = sum(WIDTHS[entry.type] for entry in lists)
    reach_bytes = max(entry.span.stop for entry in first.fields.values()) - at
    size, tile = Size(sides[0], sides[1]), Size(sides[2], sides[3])
    return ExpectedPyramid.of(size, tile, number_bytes=number_bytes, reach_bytes=reach_bytes)


def _length(read: Sequence[Span], at: int, length: int) -> int:
    """`length`, or what there is from `at` in a span that is read already."""
    return next((min(length, span.stop - at) for span in read if span.start <= at < span.stop), length)


@dataclass(frozen=True, slots=True)
class Links:
    """Follows links to directories, each once."""

    size_bytes: int
    seen: set[int] = field(default_factory=set)

    def follow(self, at: int, length: int = DIRECTORY_BYTES) -> Span:
        """What to read of a directory that is linked, once. Raises `Malformed`."""
        span = self.link(at, length)
        self.seen.add(at)
        return span

    def link(self, at: int, length: int) -> Span:
        """What to read of a directory that may be followed. Raises `Malformed`."""
        if at in self.seen:
            raise Malformed(f"the TIFF directories form a circle: byte {at} is linked twice")
        if not 8 <= at < self.size_bytes:
            raise Malformed(f"a TIFF directory is said to be at byte {at} of {self.size_bytes}")
        return self.span(at, length)

    def span(self, at: int, length: int) -> Span:
        """`length` bytes, or as many as there are."""
        return Span(at, min(at + length, self.size_bytes))


Unread = list[tuple[Directory, Field]]
"""Fields that are not read yet."""


def _unread(found: Sequence[Directory], tags: Set[int]) -> Unread:
    """Values that did not fit into their entries and are not too long."""
    return [
        (directory, entry)
        for directory in found
        for entry in directory.fields.values()
        if entry.raw is None and entry.tag in tags and entry.is_eager
    ]


def _put(unread: Unread, parts: Sequence[bytes]) -> None:
    """Enter values that were read."""
    for (directory, entry), raw in zip(unread, parts, strict=True):
        directory.fields[entry.tag] = Field(entry.tag, entry.type, entry.values, entry.at, raw)


def fill(found: Sequence[Directory], tags: Set[int]) -> Parser[None]:
    """Read unread values, all in one go."""
    unread = _unread(found, tags)
    if unread:
        _put(unread, (yield [entry.span for _, entry in unread]))
