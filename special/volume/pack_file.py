"""A file of parts, each with a checksum: how a pyramid is stored on disk.

Nothing here depends on images. Parts follow one another: the first may name what was written last, and each is found
by where it starts. A file is written under another name and gets its own when it is whole. All calls block; `peek`
alone is safe in an event loop.

    0                parts, one after the other
    then   8 bytes   for each part: length, CRC32C
    then  16 bytes   magic, with the format's version
           8 bytes   number of parts
           4 bytes   CRC32C of the object's digest, of the number and of the table

While it is written, a second file names parts for other processes, which may read those already:

    0     16 bytes   magic, with the format's version, once there are any
    then  32 bytes   for each: name, start, length, CRC32C of the object's digest, of the name and of the part
"""

from __future__ import annotations

import os
import struct
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from threading import Lock

import google_crc32c

from special.storage import Span
from special.volume.blocks import Damaged
from special.volume.no_follow import open_file, read_file, remove_file

MAGIC = b"special-parts\0\0\1"
DRAFT_MAGIC = b"special-draft\0\0\1"
NEW = ".new"
"""Suffix of the name of a file that is not whole yet."""
NAMES = ".names"
"""Suffix before that of the file that names its parts."""

_ENTRY = struct.Struct("<II")
_FOOTER = struct.Struct("<16sQI")
_NAMED = struct.Struct("<16sQII")
NAMED_BYTES = _NAMED.size
"""What naming a part takes."""


class PackFile:
    """An open file, closed with its last reference. What is read is checked, every time."""

    def __init__(self, path: Path, fd: int, lengths: Sequence[int], checksums: Sequence[int]) -> None:
        self.path = path
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        self._starts = array("Q", accumulate(lengths, initial=0))
        self._checksums = array("I", checksums)

    @classmethod
    def open(cls, path: Path, digest: bytes) -> PackFile | None:
        """The file, if there is one. Raises `Damaged` where it is broken or belongs to another object, `OSError`."""
        try:
            fd = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            size_bytes = os.fstat(fd).st_size
            footer = os.pread(fd, _FOOTER.size, max(0, size_bytes - _FOOTER.size))
            if len(footer) < _FOOTER.size:
                raise Damaged(f"{path} ends inside its footer")
            magic, count, checksum = _FOOTER.unpack(footer)
            start = size_bytes - _FOOTER.size - count * _ENTRY.size
            table = os.pread(fd, count * _ENTRY.size, start) if magic == MAGIC and start >= 0 else b""
            if not table or checksum != _bound(digest, count, table):
                raise Damaged(f"{path} is of another version, of another object, or broken")
            lengths, checksums = zip(*_ENTRY.iter_unpack(table), strict=True)
            if sum(lengths) != start:
                raise Damaged(f"{path} has {start} bytes of parts, where its table names {sum(lengths)}")
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, lengths, checksums)

    def remove(self) -> None:
        """Remove the file, although others may have it open: what is read of it from now on is `Damaged`."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self.path), os.fstat(self._fd)):
                remove_file(self.path)

    @property
    def size_bytes(self) -> int:
        """Length of all parts."""
        return self._starts[-1]

    def __len__(self) -> int:
        return len(self._checksums)

    def before(self, start: int) -> Span:
        """The part before the one that starts there."""
        index = bisect_right(self._starts, start) - 2
        return Span(self._starts[index], self._starts[index + 1])

    def peek(self, span: Span) -> bytes | None:
        """One or more whole parts, if they are in memory. Raises `Damaged`. Never waits for the disk."""
        buffer = bytearray(len(span))
        try:
            length = os.preadv(self._fd, [buffer], span.start, os.RWF_NOWAIT)
        except OSError:  # not in memory, or a file system that cannot say; `read` tells
            return None
        return self._checked(span, bytes(buffer)) if length == len(buffer) else None

    def read(self, span: Span) -> bytes:
        """One or more whole parts. Raises `Damaged`, `OSError`."""
        return self._checked(span, os.pread(self._fd, len(span), span.start))

    def unchecked(self, span: Span) -> bytes:
        """Any bytes, as they are: for a parser, whose own part was read before. Raises `OSError`."""
        return os.pread(self._fd, len(span), span.start)

    @property
    def last(self) -> Span:
        """The part that was written last."""
        return Span(self._starts[-2], self._starts[-1])

    def check(self) -> None:
        """Read all parts. Raises `Damaged`, `OSError`."""
        for start, stop in zip(self._starts, self._starts[1:], strict=False):
            self.read(Span(start, stop))

    def _checked(self, span: Span, data: bytes) -> bytes:
        index = bisect_right(self._starts, span.start) - 1
        at = span.start
        view = memoryview(data)
        while at < span.stop and self._starts[index] == at:
            stop = self._starts[index + 1]
            if google_crc32c.value(bytes(view[at - span.start : stop - span.start])) != self._checksums[index]:
                break
            at, index = stop, index + 1
        if at != span.stop:
            raise Damaged(f"{self.path} is broken at byte {at}")
        return data


class PackWriter:
    """A file of parts that is being written. Close it; what was not published is removed.

    Other threads may read parts meanwhile.
    """

    def __init__(self, path: Path, digest: bytes, *, head_bytes: int) -> None:
        self.size_bytes = head_bytes
        self._path = path
        self._new = path.with_name(path.name + NEW)
        self._digest = digest
        self._table: list[tuple[int, int]] = [(head_bytes, 0)]
        self._fd = open_file(self._new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._names = self._new.with_name(path.name + NAMES + NEW)
        try:
            self._names_fd = open_file(self._names, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except BaseException:
            os.close(self._fd)
            raise
        self._names_bytes = 0
        self._is_published = False
        self._closing = Lock()
        """Held by those who read: a descriptor that is closed may be another file's at once."""

    def close(self) -> None:
        """Close the file, and remove it unless it was published."""
        with self._closing:
            os.close(self._fd)
            self._fd = -1
        if not self._is_published:
            self._new.unlink(missing_ok=True)
        os.close(self._names_fd)
        self._names.unlink(missing_ok=True)

    def append(self, parts: Sequence[bytes], names: Sequence[bytes] = ()) -> None:
        """Write parts behind those that are there.

        Those with a name, of at most 16 bytes, can be read by other processes at once.
        """
        _write(self._fd, b"".join(parts), self.size_bytes)
        named = bytearray()
        for part, name in zip_longest(parts, names, fillvalue=b""):
            if name:
                padded = _padded(name)
                named += _NAMED.pack(padded, self.size_bytes, len(part), _named(self._digest, padded, part))
            self._table.append((len(part), google_crc32c.value(part)))
            self.size_bytes += len(part)
        if named and not self._names_bytes:
            named[:0] = DRAFT_MAGIC
        _write(self._names_fd, named, self._names_bytes)
        self._names_bytes += len(named)

    def read(self, span: Span) -> bytes | None:
        """A part that was appended, as it was just written; None once the file is closed."""
        with self._closing:
            return os.pread(self._fd, len(span), span.start) if self._fd >= 0 else None

    def seal(self, head: bytes) -> None:
        """Write the first part, for which space was left, and the table."""
        assert len(head) == self._table[0][0], "the first part has the length that was announced"
        self._table[0] = (len(head), google_crc32c.value(head))
        table = b"".join(_ENTRY.pack(*entry) for entry in self._table)
        footer = _FOOTER.pack(MAGIC, len(self._table), _bound(self._digest, len(self._table), table))
        _write(self._fd, table + footer, self.size_bytes)
        _write(self._fd, head, 0)

    @property
    def table_bytes(self) -> int:
        """What `seal` will write."""
        return _FOOTER.size + len(self._table) * _ENTRY.size

    def publish(self) -> None:
        """Give the sealed file its name, once all of it is on the disk."""
        os.fsync(self._fd)
        self._new.replace(self._path)
        self._is_published = True


@dataclass(frozen=True, slots=True)
class PackDraft:
    """What another process has written so far of a file of parts: those that it named."""

    path: Path
    """Of the file, once it is whole."""
    digest: bytes
    parts: Mapping[bytes, tuple[Span, int]]
    """By name: where they are, with their checksums."""

    @classmethod
    def open(cls, path: Path, digest: bytes) -> PackDraft | None:
        """What there is by now; None if none is being written. Costs reading all names. Raises `OSError`."""
        try:
            names = read_file(path.with_name(path.name + NAMES + NEW))
        except FileNotFoundError:
            return None
        if names and not names.startswith(DRAFT_MAGIC):
            return None
        named = names[len(DRAFT_MAGIC) :]
        found = _NAMED.iter_unpack(named[: len(named) // NAMED_BYTES * NAMED_BYTES])
        return cls(path, digest, {name: (Span.at(start, length), crc) for name, start, length, crc in found})

    def __contains__(self, name: bytes) -> bool:
        return _padded(name) in self.parts

    def read(self, name: bytes) -> bytes | None:
        """A part that there is; None where the file is gone, or another one. Raises `OSError`."""
        padded = _padded(name)
        span, checksum = self.parts[padded]
        with suppress(FileNotFoundError):
            fd = open_file(self.path.with_name(self.path.name + NEW), os.O_RDONLY)
            try:
                data = os.pread(fd, len(span), span.start)
            finally:
                os.close(fd)
            return data if len(data) == len(span) and _named(self.digest, padded, data) == checksum else None
        return None


def _write(fd: int, data: bytes | bytearray, offset: int) -> None:
    # XFS reserves more space than was asked for when a write goes past the end of a file, but not inside it.
    os.ftruncate(fd, max(offset + len(data), os.fstat(fd).st_size))
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count


def _padded(name: bytes) -> bytes:
    assert 0 < len(name) <= 16, "a name has its place"
    return name.ljust(16, b"\0")


def _named(digest: bytes, padded: bytes, part: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(digest + padded), part))


def _bound(digest: bytes, count: int, table: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(digest + count.to_bytes(8, "little")), table))
