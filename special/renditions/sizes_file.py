"""The sizes file: which sizes of an image are stored, by access. The DLCS's form.

A DLCS writes JPEGs alone. Where other formats are stored the file names them in a member of its own, `formats`; a
reader that ignores it looks for JPEGs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from special.geometry import Size
from special.images import Access, Rendition, StoredFormat

SIZES_NAMES = ("s.json", "sizes.json")
"""The first is written, both are read."""


@dataclass(frozen=True, slots=True)
class SizesFile:
    """What a sizes file says: the sizes that are stored, by access."""

    open: tuple[Size, ...] = ()
    """Largest first."""
    auth: tuple[Size, ...] = ()
    """Largest first."""
    formats: tuple[StoredFormat, ...] = ("jpg",)
    """What each size is stored as; at least one."""

    @classmethod
    def of(cls, renditions: Iterable[Rendition]) -> SizesFile:
        listed = tuple(renditions)
        return cls(
            _descending(it.size for it in listed if it.access == "open"),
            _descending(it.size for it in listed if it.access == "auth"),
            tuple(dict.fromkeys(it.format for it in listed)) or ("jpg",),
        )

    @property
    def max_unauthorised(self) -> int | None:
        """The rule that the file implies: nothing larger than its largest open size, once anything is restricted."""
        if not self.auth:
            return None
        return max((size.long_side for size in self.open), default=0)

    def renditions(self, identifier: str) -> tuple[Rendition, ...]:
        """Each of the sizes in each format, with its key; largest first."""
        return tuple(
            Rendition(size, access, rendition_key(identifier, size, access, form), form)
            for size in _descending((*self.open, *self.auth))
            for access in (self._access(size),)
            for form in self.formats
        )

    def _access(self, size: Size) -> Access:
        # A size in both lists is about to be restricted, or should be.
        return "auth" if size in self.auth else "open"

    def dump(self) -> bytes:
        return json.dumps(self.plain(), separators=(",", ":")).encode()

    def plain(self) -> dict[str, list[list[int]] | list[StoredFormat]]:
        sizes: dict[str, list[list[int]] | list[StoredFormat]] = {
            "o": [[it.width, it.height] for it in self.open],
            "a": [[it.width, it.height] for it in self.auth],
        }
        return sizes if self.formats == ("jpg",) else sizes | {"formats": list(self.formats)}

    @classmethod
    def load(cls, document: object) -> SizesFile:
        """Read the parsed file; every member may be missing. Raises `ValueError` where it is no sizes file."""
        if not isinstance(document, dict):
            raise ValueError('it is not an object such as {"o":[[400,300]],"a":[]}')
        return cls(_sizes(document.get("o")), _sizes(document.get("a")), _formats(document.get("formats")))


def rendition_key(identifier: str, size: Size, access: Access, form: StoredFormat = "jpg") -> str:
    """Where a rendition is written."""
    return f"{identifier}/{access}/{size.long_side}.{form}"


def _formats(listed: object) -> tuple[StoredFormat, ...]:
    if listed is None:
        return ("jpg",)
    known = get_args(StoredFormat)
    if not (isinstance(listed, list) and listed and all(name in known for name in listed)):
        raise ValueError(f"{listed!r} should be a list of formats: {', '.join(known)}")
    return tuple(dict.fromkeys(listed))


def _sizes(listed: object) -> tuple[Size, ...]:
    pairs = [] if listed is None else listed
    if not isinstance(pairs, list):
        raise ValueError(f"{pairs!r} should be a list of [width, height]")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(side) is int and side > 0 for side in pair)):
            raise ValueError(f"{pair!r} should be [width, height] in pixels")
    return _descending(Size(*pair) for pair in pairs)


def _descending(sizes: Iterable[Size]) -> tuple[Size, ...]:
    return tuple(sorted(set(sizes), key=lambda size: (size.long_side, size.area, size.width), reverse=True))
