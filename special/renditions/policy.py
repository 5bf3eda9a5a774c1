"""Which renditions every master should have: their sizes, who may have them, how they are encoded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from special import geometry
from special.codecs import Encoding
from special.errors import ConfigurationError
from special.geometry import Size
from special.images import StoredFormat
from special.renditions.sizes_file import SizesFile

_EXAMPLE = "1024,400,200,100"

_LONG_SIDES = re.compile(r"\d{1,5}(,\d{1,5})*", re.ASCII)
_IIIF = re.compile(r"(?P<width>\d{1,5}),|,(?P<height>\d{1,5})|!(?P<within>\d{1,5},\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest size of a master's proportions that keeps within these sides; never larger than the master."""

    width: int | None
    height: int | None

    def __post_init__(self) -> None:
        if not any((self.width, self.height)) or 0 in (self.width, self.height):
            raise ConfigurationError("a rendition has at least 1 pixel: use sizes above 0, such as 1024,400,200,100")

    def size(self, shape: Size) -> Size:
        """The size for one master, by the rounding that the server answers with."""
        width = min(self.width or shape.width, shape.width)
        height = min(self.height or shape.height, shape.height)
        return geometry.to_fit(shape, Size(width, height))


@dataclass(frozen=True, slots=True)
class Policy:
    """The renditions that every master should have."""

    bounds: tuple[Bound, ...]
    """One for each rendition; two that come to the same long side are one."""
    max_unauthorised: int | None = None
    """Long side up to which renditions are open; None: all are."""
    formats: tuple[StoredFormat, ...] = ("jpg",)
    """What each size is stored as."""
    qualities: Encoding = field(default_factory=Encoding)
    """The quality of each format."""

    @classmethod
    def of(
        cls, sizes: str, *, max_unauthorised: int | None, formats: Sequence[StoredFormat], qualities: Encoding
    ) -> Self:
        """The policy that an operator writes.

        Sizes are long sides (`1024,400,200`), or IIIF sizes between blanks (`!1024,1024 400, ,300`). A negative
        `max_unauthorised` means that all is open, as on a DLCS. Raises `ConfigurationError`.
        """
        limit = max_unauthorised if max_unauthorised is not None and max_unauthorised >= 0 else None
        return cls(_bounds(sizes.strip()), limit, tuple(dict.fromkeys(formats)), qualities)

    @property
    def encoding(self) -> str:
        """How renditions are encoded, in words: those of another encoding are made again."""
        return self.qualities.label(*self.formats)

    def sizes(self, shape: Size) -> SizesFile:
        """The sizes for one master, by who may have them. A small master has its own size, once."""
        by_side: dict[int, Size] = {}
        for bound in self.bounds:
            size = bound.size(shape)
            by_side.setdefault(size.long_side, size)
        descending = [by_side[side] for side in sorted(by_side, reverse=True)]
        return self.divided(descending)

    def includes(self, shape: Size, size: Size, form: StoredFormat) -> bool:
        """Whether a master of a shape should have this size in this format."""
        return form in self.formats and any(bound.size(shape) == size for bound in self.bounds)

    def divided(self, sizes: Sequence[Size]) -> SizesFile:
        """Sizes by who may have them."""
        limit = self.max_unauthorised
        return SizesFile(
            tuple(size for size in sizes if limit is None or size.long_side <= limit),
            tuple(size for size in sizes if limit is not None and size.long_side > limit),
            self.formats,
        )


def _bounds(text: str) -> tuple[Bound, ...]:
    if _LONG_SIDES.fullmatch(text):
        return tuple(Bound(int(side), int(side)) for side in text.split(","))
    if not text:
        raise ConfigurationError(f"name at least one size, such as {_EXAMPLE}")
    return tuple(_bound(word) for word in text.split())


def _bound(word: str) -> Bound:
    match = _IIIF.fullmatch(word)
    if match is None:
        raise ConfigurationError(
            f"'{word}' is no size for renditions: write long sides as {_EXAMPLE}, "
            "or w, or ,h or !w,h with blanks between them (renditions keep their master's proportions)"
        )
    if match["within"]:
        width, height = match["within"].split(",")
        return Bound(int(width), int(height))
    return Bound(int(match["width"]), None) if match["width"] else Bound(None, int(match["height"]))
