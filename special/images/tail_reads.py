"""Whether the end of a master is read along with its head, before either is known. Learned from those seen before.

libvips writes the directories of a pyramid behind its pixels, and PNG may have its metadata there: to read both ends at
once saves a round trip. Nothing but the name tells in advance what an object is.
"""

from __future__ import annotations

from typing import Final

from special import formats
from special.concurrency import LRUCache

TAIL_BYTES: Final = 131072
"""How much of an object's end is read: the small levels of a pyramid."""
TAILED: Final = frozenset({"tif", "tiff", "ptif", "ptiff", "png", "pdf"})
"""Endings of keys whose masters are read with their tails until one is known that had no use for it."""
MAX_ENDINGS: Final = 256
"""Endings of keys of which it is remembered whether tails are of use."""


class TailReads:
    """Remembers for which endings of keys the tail was of use, the last time."""

    def __init__(self) -> None:
        self._known: LRUCache[str, bool] = LRUCache(MAX_ENDINGS)

    def is_useful(self, key: str) -> bool:
        """Whether to read the tail of an object of which nothing is known but its key."""
        ending = _ending(key)
        known = self._known.get(ending)
        return ending in TAILED if known is None else known

    def record(self, key: str, head: bytes, size_bytes: int) -> None:
        """Learn from the first bytes of an object."""
        self._known.put(_ending(key), formats.ends_matter(head, size_bytes))


def _ending(key: str) -> str:
    """What a key's name ends in, such as `tif`; empty where it has no dot."""
    return key.rpartition("/")[2].rpartition(".")[2].lower() if "." in key.rpartition("/")[2] else ""
