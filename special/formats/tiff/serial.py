"""The serial form of what was read of a TIFF: its useful directories, field by field.

It holds the fields themselves, not what was made of them: reading it back goes through the
same checks as the file did. Layout, big-endian:

    "T" version | order | file length u64 | directories u8
    for each directory: fields u8
    for each field: tag u16, type u16, count u64, offset u64, known u8, then its values if known
    what is wrong with the pages behind, in UTF-8 up to the end
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from special.errors import Malformed
from special.formats.tiff.ifd import Directory, Field
from special.formats.tiff.tags import WIDTHS

MAGIC = b"T\x01"
"""What it is, and which version of the form."""
_HEAD = struct.Struct(">2s1sQB")
_FIELD = struct.Struct(">HHQQB")


def dump(directories: Sequence[Directory], *, size_bytes: int, fault: str = "") -> bytes:
    """Directories as bytes, and what was wrong with those that were left out."""
    out = [_HEAD.pack(MAGIC, directories[0].order.encode(), size_bytes, len(directories))]
    for directory in directories:
        out.append(struct.pack(">B", len(directory.fields)))
        for field in directory.fields.values():
            out.append(_FIELD.pack(field.tag, field.type, field.values, field.at, field.raw is not None))
            out.append(field.raw or b"")
    out.append(fault.encode())
    return b"".join(out)


def load(data: bytes) -> tuple[list[Directory], int, str]:
    """The directories, the file's length, and the fault. Raises `Malformed` for anything that `dump` did not write."""
    try:
        magic, order, size_bytes, count = _HEAD.unpack_from(data)
        if magic != MAGIC or order not in (b"<", b">") or not count:
            raise Malformed(
                f"a stored TIFF layout starts with {data[:3]!r}, not {MAGIC + b'<'!r}; read the master again"
            )
        at = _HEAD.size
        directories: list[Directory] = []
        for _ in range(count):
            directory = Directory("<" if order == b"<" else ">", {})
            fields, at = data[at], at + 1
            for _ in range(fields):
                tag, kind, values, where, known = _FIELD.unpack_from(data, at)
                at += _FIELD.size
                stop = at + values * WIDTHS[kind] * known
                if stop > len(data):
                    raise Malformed("a stored TIFF layout ends inside a field; read the master again")
                directory.fields[tag] = Field(tag, kind, values, where, data[at:stop] if known else None)
                at = stop
            directories.append(directory)
    except (struct.error, IndexError, KeyError) as error:
        raise Malformed(f"a stored TIFF layout is damaged ({error}); read the master again") from None
    return directories, size_bytes, data[at:].decode(errors="replace")
