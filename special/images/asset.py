"""What is known about one image before any pixel is read.

An `Asset` joins what the master's headers say with the renditions that are stored of it. It
is what the planner looks at, and what info.json is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from special.formats import Tiling
from special.geometry import Size
from special.images.rule import OPEN, Rule
from special.storage import Blob

StoredFormat = Literal["jpg", "webp"]
"""What renditions are stored as; by its extension."""


Access = Literal["open", "auth"]
"""Who may have a stored rendition: everybody, or those with a grant that covers its size."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A stored picture of the whole image, at one size."""

    size: Size
    """Its exact size in pixels."""
    access: Access
    """Whether it lies under `open/` or `auth/`."""
    key: str
    """Its key in the store of renditions."""
    format: StoredFormat = "jpg"

    def __hash__(self) -> int:
        return hash(self.key)  # which a string computes once, and hot paths ask for again and again


@dataclass(frozen=True, slots=True)
class Asset:
    """One image: its shape, its master, its stored renditions and its rule."""

    identifier: str
    """As it was asked for, unquoted."""
    size: Size
    """The full image, upright, in pixels; on `thumbs` the largest stored size."""
    blob: Blob | None
    """The master's pinned version; None where only stored renditions are known."""
    levels: tuple[Size, ...] = ()
    """The master's own pyramid levels, the full size first."""
    tiling: Tiling | None = None
    """Where tiles are cheap; None to let the server choose a grid."""
    renditions: tuple[Rendition, ...] = ()
    """Stored pictures of the full region, largest first."""
    rule: Rule = OPEN
    """Who may see how much."""
    has_color: bool = True
    """False for a grey master."""

    @property
    def restricted(self) -> bool:
        """Whether not everybody may see everything."""
        return self.rule != OPEN
