"""How one version of an object is cut into blocks, and how its map is written to disk.

A block is what is fetched, stored and checked as one. libvips decodes a hole or a flipped
bit to wrong pixels without an error, so every block carries a checksum, and the checksum is
bound to the block's place: another object's block, an older version's, or this object's
block from elsewhere is as wrong as a broken one. Pure.

A map is a header page and an entry for each block:

    0     16 bytes  magic, with the format's version
    16     4 bytes  length of the description
    20     4 bytes  CRC32C of the description
    24              description: JSON with url, etag, size_bytes, block_bytes
    4096   8 bytes  for each block: length (0: not here), CRC32C
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import google_crc32c

from special.geometry import ceil_div
from special.storage import Blob, Span

FORMAT_VERSION = 1
"""Of everything in the directory: the map, the ledger and the settings. Another version's files are dropped."""
MAGIC = b"special-map\0\0\0\0" + bytes([FORMAT_VERSION])
PAGE_BYTES = 4096
"""Smallest unit that file systems allocate; sizes on disk are counted in it."""
HEADER_BYTES = PAGE_BYTES
ENTRY_BYTES = 8
EXTENTS_PER_PAGE = 170
"""Of a sparse file's extents, a page of the file system's own index names 340; half of them when it was just split."""

PAGE_MARK = "#page="
"""What is between an object's URL and the number of a page of it, as fragments of PDFs have it (RFC 8118)."""

_PAGE = re.compile(rf"{PAGE_MARK}[1-9][0-9]*\Z")
_FIXED = struct.Struct("<16sII")
_ENTRY = struct.Struct("<II")
_PLACE = struct.Struct("<32sQI")


class Damaged(Exception):
    """A map that is not one, or not one of this version."""


@dataclass(frozen=True, slots=True)
class BlockMap:
    """The blocks of one version of one object."""

    url: str
    """What names the object, of whatever version."""
    etag: str
    """Its version."""
    size_bytes: int
    """Its length."""
    block_bytes: int
    """Length of each block but the last, which may be shorter."""
    digest: bytes = field(init=False, repr=False, compare=False)
    """SHA-256 of the four above: the name on disk, and what checksums are bound to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self._description()).digest())

    @classmethod
    def of(cls, blob: Blob, block_bytes: int) -> BlockMap:
        """The blocks of a blob."""
        return cls(blob.url, blob.etag, blob.size, block_bytes)

    @property
    def name(self) -> str:
        """What the object is called on disk."""
        return self.digest.hex()

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return ceil_div(self.size_bytes, self.block_bytes)

    @property
    def map_bytes(self) -> int:
        """Length of the map file."""
        return HEADER_BYTES + self.count * ENTRY_BYTES

    @property
    def base_bytes(self) -> int:
        """Upper bound of what the object takes on disk before it has any data.

        Its directory, its share of the directory above (which grows by less than a page for an entry),
        its map, and the file system's index of the data file's extents.
        """
        index_pages = 1 + ceil_div(self.count, EXTENTS_PER_PAGE)
        return whole_pages(self.map_bytes) + (2 + index_pages) * PAGE_BYTES

    @property
    def full_bytes(self) -> int:
        """Upper bound of what the object takes on disk with all its blocks."""
        return self.base_bytes + whole_pages(self.size_bytes)

    @property
    def describable(self) -> bool:
        """Whether the header has space for the URL: some 3,900 bytes, more than any store allows."""
        return _FIXED.size + len(self._description()) <= HEADER_BYTES

    def indices(self, span: Span) -> range:
        """The blocks that a span touches."""
        return range(span.start // self.block_bytes, ceil_div(span.stop, self.block_bytes))

    def span(self, indices: range) -> Span:
        """The bytes of adjacent blocks."""
        return Span(indices.start * self.block_bytes, min(indices.stop * self.block_bytes, self.size_bytes))

    def length(self, index: int) -> int:
        """Length of a block in bytes."""
        return min(self.block_bytes, self.size_bytes - index * self.block_bytes)

    def checksum(self, index: int, data: bytes) -> int:
        """CRC32C of a block, bound to url, etag, size, block size, index and length."""
        place = google_crc32c.value(_PLACE.pack(self.digest, index, len(data)))
        return int(google_crc32c.extend(place, data))

    def split(self, indices: range, data: bytes) -> dict[int, bytes]:
        """The bytes of adjacent blocks, block by block. One copy."""
        step = self.block_bytes
        return {index: data[n * step : (n + 1) * step] for n, index in enumerate(indices)}

    def cut(self, span: Span, blocks: dict[int, bytes]) -> bytes:
        """A span's bytes out of the blocks that it touches. One copy."""
        indices = self.indices(span)
        if len(indices) == 1:
            start = indices.start * self.block_bytes
            return blocks[indices.start][span.start - start : span.stop - start]
        return b"".join(self.parts(span, blocks))

    def parts(self, span: Span, blocks: dict[int, bytes]) -> list[memoryview]:
        """A span's bytes, in order, as parts of the blocks that it touches. No copy."""
        views = [memoryview(blocks[index]) for index in self.indices(span)]
        views[-1] = views[-1][: 1 + (span.stop - 1) % self.block_bytes]
        views[0] = views[0][span.start % self.block_bytes :]
        return views

    def entries(self, first: int, blocks: Sequence[bytes]) -> bytes:
        """The map's entries for adjacent blocks from `first` on."""
        return b"".join(
            [_ENTRY.pack(len(data), self.checksum(index, data)) for index, data in enumerate(blocks, start=first)]
        )

    def header(self) -> bytes:
        """The map's first page, of an object that is `describable`."""
        assert self.describable, "VolumeDirectory.fits() comes first"
        description = self._description()
        fixed = _FIXED.pack(MAGIC, len(description), google_crc32c.value(description))
        return (fixed + description).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def parse(cls, header: bytes) -> BlockMap:
        """What a map's first page describes. Raises `Damaged`."""
        if len(header) < HEADER_BYTES:
            raise Damaged(f"a map's header has {HEADER_BYTES} bytes, not {len(header)}")
        magic, length, checksum = _FIXED.unpack_from(header)
        description = header[_FIXED.size : _FIXED.size + length]
        if magic != MAGIC or google_crc32c.value(description) != checksum:
            raise Damaged("a map's header is of another version, or broken")
        fields = json.loads(description)
        return cls(fields["url"], fields["etag"], fields["size_bytes"], fields["block_bytes"])

    def _description(self) -> bytes:
        fields = {name: getattr(self, name) for name in ("url", "etag", "size_bytes", "block_bytes")}
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")


def parse_entries(data: bytes) -> list[tuple[int, int]]:
    """Length and checksum of each entry."""
    return list(_ENTRY.iter_unpack(data[: len(data) // ENTRY_BYTES * ENTRY_BYTES]))


def entry_offset(index: int) -> int:
    """Where a block's entry starts in the map."""
    return HEADER_BYTES + index * ENTRY_BYTES


def whole_pages(size_bytes: int) -> int:
    """A size, rounded up to what the file system allocates for it."""
    return ceil_div(size_bytes, PAGE_BYTES) * PAGE_BYTES


def runs(indices: Iterable[int], max_blocks: int) -> list[range]:
    """Sorted indices as ranges of adjacent ones, none longer than `max_blocks`."""
    found: list[range] = []
    for index in indices:
        if found and found[-1].stop == index and len(found[-1]) < max_blocks:
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return found


def object_url(url: str) -> str:
    """The URL of the object that an entry belongs to: itself, or that of which it is a page."""
    return _PAGE.sub("", url)


def of_page(blob: Blob) -> Blob:
    """What the files of one page are kept with, its pyramid and its metadata: the object, or for another page than the
    first one of its own beside it, which has no blocks.
    """
    return blob if blob.page == 1 else replace(blob, key=f"{blob.key}{PAGE_MARK}{blob.page}", page=1)
