"""What is known about one image before any pixel is read.

An `Asset` joins what the master's headers say with the renditions that are stored of it. It
is what the planner uses, and what info.json is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from special.formats import Tiling
from special.geometry import Size
from special.images.description import Description
from special.images.rule import OPEN, Rule
from special.storage import Blob

StoredFormat = Literal["jpg", "webp"]
"""What renditions are stored as; by its extension."""


Access = Literal["open", "auth"]
"""Whether a stored rendition is open, or needs a grant that covers its size."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A stored picture of the whole image, at one size."""

    size: Size
    access: Access
    """Whether its key is under `open/` or `auth/`."""
    key: str
    format: StoredFormat = "jpg"

    def __hash__(self) -> int:
        return hash(self.key)  # a string computes its hash once, and every request needs it


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
    """What is restricted, and which roles lift it."""
    has_color: bool = True
    """False for a grey master."""
    density: float | None = None
    """Pixels per inch, as the master says."""
    description: Description | None = None
    """What a catalogue says of it."""
    label: str | None = None
    """What a catalogue calls it."""
    filename: str | None = None
    """What it is called when it is saved, without an extension; None: nothing."""

    @property
    def restricted(self) -> bool:
        """Whether anything of it needs a role."""
        return self.rule != OPEN
