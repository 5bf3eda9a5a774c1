"""The inodes that the kernel knows. A file's is one version of one object, so that nothing of it ever changes.

When an object is overwritten its name gets another inode, as if a new file had been renamed over the old one. Files
that are open, and their pages in the kernel's cache, stay those of the version that they were opened with.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count

from special.mount.protocol import ROOT_ID, Attributes
from special.storage import Blob


@dataclass(slots=True)
class Node:
    """An inode."""

    number: int
    """What the kernel calls it. Never used again for another one."""
    parent: int
    """The folder that it was found in; the root is its own."""
    name: bytes
    """Its name there."""
    place: str | Blob
    """A file's version, or a folder's prefix, which is empty or ends in a slash."""
    lookups: int = 0
    """How often the kernel was told of it and has not forgotten it since."""

    @property
    def key(self) -> tuple[int, bytes, str]:
        """What tells it from all others."""
        return self.parent, self.name, _identity(self.place)


class Nodes:
    """All inodes that the kernel may ask for."""

    def __init__(self, *, user: int, group: int) -> None:
        self._user = user
        self._group = group
        self._by_number = {ROOT_ID: Node(ROOT_ID, ROOT_ID, b"", "")}
        self._by_key: dict[tuple[int, bytes, str], Node] = {}
        self._numbers = count(ROOT_ID + 1)

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Node | None:
        return self._by_number.get(number)

    def found(self, parent: Node, name: bytes, place: str | Blob) -> Node:
        """The inode of what a name stands for; the kernel is told of it once more."""
        key = (parent.number, name, _identity(place))
        node = self._by_key.get(key)
        if node is None:
            node = Node(next(self._numbers), parent.number, name, place)
            self._by_key[key] = self._by_number[node.number] = node
        node.lookups += 1
        return node

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel has forgotten that often that it was told of these inodes. It keeps those that are open."""
        for number, times in forgotten:
            node = self._by_number.get(number)
            if node is None or number == ROOT_ID:
                continue
            node.lookups -= times
            if node.lookups <= 0:
                del self._by_number[number], self._by_key[node.key]

    def attributes(self, place: str | Blob) -> Attributes:
        """What `stat` tells of a file or a folder. All whom the mount lets in may read everything."""
        if isinstance(place, Blob):
            mtime_ns = round(place.modified.timestamp() * 1e6) * 1000 if place.modified else 0
            return Attributes(inode_of(place), place.size, mtime_ns, stat.S_IFREG | 0o444, self._user, self._group)
        return Attributes(inode_of(place), 0, 0, stat.S_IFDIR | 0o555, self._user, self._group)


def inode_of(place: str | Blob) -> int:
    """What `stat` tells programs of an inode's number: the same after a restart, and another for another version."""
    return int.from_bytes(blake2b(_identity(place).encode(errors="surrogateescape"), digest_size=8).digest())


def _identity(place: str | Blob) -> str:
    return place.version if isinstance(place, Blob) else place
