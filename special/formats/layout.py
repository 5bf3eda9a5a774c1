"""What is known of a master from its headers, and the pieces that are cut out of it.

    parse -> Layout          once per version of a master, from headers alone
    layout.prepare(box, size) -> Parser      more of the headers, where they are too long to be read at once
    layout.extract(box, size) -> Extract     which bytes those pixels need
    layout.rebuild(extract, parts) -> Piece  a small, valid file of just those
    layout.stored(box, size) -> Stored       a tile that can be sent as it is stored

All of it is pure. A `Piece` is what goes to a decoder process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from special.formats.parser import Parser
from special.geometry import Box, Frame, Orientation, Size
from special.storage import Span

Format = Literal["jp2", "tiff", "jpeg", "png", "webp", "gif", "avif", "bmp", "pdf"]
"""How bytes are encoded; what picks the decoder."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """A tile grid and the scale factors at which tiles are cheap to read."""

    tile: Size
    """Size of a whole tile, in pixels of its level."""
    scale_factors: tuple[int, ...]
    """1 for the full image, 2 for half, …; ascending."""


@dataclass(frozen=True, slots=True)
class Extract:
    """Which bytes of a master a box at a size needs, and what a decoder will make of them."""

    spans: tuple[Span, ...]
    """In the order in which `rebuild` wants their bytes. Not coalesced; may touch, never overlap."""
    level: int
    """The format's own number for the level read: a TIFF page, a JP2 reduction, a JPEG shrink."""
    pixels: int
    """How many pixels will be decoded: what a job's memory is estimated from."""
    recipe: object
    """What this layout's own `rebuild` needs to know besides; no other code reads it."""
    components: int = 1
    """How many samples each pixel has, where each kind is decoded on its own: JPEG 2000."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Which page of a file is drawn, and how large all of it would be."""

    page: int
    """Counted from 1."""
    size: Size
    """In pixels, upright."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One encoded file with everything a decoder needs to know about it. Picklable."""

    data: bytes
    """A whole, valid file: a master, or one rebuilt from parts of one."""
    format: Format
    """What the file is."""
    crop: Frame
    """The wanted part, in pixels of the decoded picture, *before* it is turned upright."""
    reduce: int = 0
    """JPEG 2000: resolution levels to discard; JPEG: shrink-on-load by 2**reduce (0 to 3)."""
    area: Box | None = None
    """Decode only this part, in pixels of the file at full resolution; the picture is then this part, reduced."""
    orientation: Orientation = Orientation.UPRIGHT
    """How to turn the cropped picture upright."""
    incomplete: str = ""
    """Why not all of the picture is there, in words; what is missing is shown grey. Empty where nothing is."""
    density: float | None = None
    """Pixels per inch of the master at full size, where it is known."""
    sheet: Sheet | None = None
    """PDF: what there is to draw."""
    missing: tuple[Box, ...] = ()
    """Parts of the decoded picture of which the file has nothing: they are made grey, whatever the decoder gives."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tile that is sent as it is stored: its bytes between others that make them a whole JPEG."""

    spans: tuple[Span, ...]
    """The bytes to read; their concatenation goes between `head` and `tail`."""
    skip: int
    """Bytes to drop from the start of what was read (the tile's own SOI marker)."""
    head: bytes
    tail: bytes = b""

    def assemble(self, parts: Sequence[bytes]) -> bytes:
        """The complete JPEG. One copy."""
        return b"".join((self.head, memoryview(b"".join(parts))[self.skip :], self.tail))


class Layout(Protocol):
    """What is known of a master from its headers. Frozen, and has a serial form."""

    @property
    def format(self) -> Format:
        """What the master is."""
        ...

    @property
    def size(self) -> Size:
        """The master's size, upright."""
        ...

    @property
    def levels(self) -> tuple[Size, ...]:
        """Upright sizes that can be read without reading a larger one, the master's own first, then descending."""
        ...

    @property
    def tiling(self) -> Tiling | None:
        """The master's own tile grid, upright; None where tiles are no cheaper than the whole."""
        ...

    @property
    def has_color(self) -> bool:
        """False for a master whose pixels are grey: then `gray` equals `default`."""
        ...

    @property
    def density(self) -> float | None:
        """Pixels per inch, as the file says; None where it does not, or says another number for each direction."""
        ...

    @property
    def advice(self) -> tuple[str, ...]:
        """Sentences for `inspect`: what made a more expensive way necessary, and what would make it cheaper."""
        ...

    def prepare(self, box: Box, size: Size) -> Parser[Layout] | None:
        """What must be read before `extract` and `stored` know where these pixels are; None if nothing.

        The parser returns a layout with more of the index, otherwise equal; keep it in place of this
        one. Only a TIFF with a very long list of tiles needs it (one batch of reads); call it
        before every `extract` or `stored` all the same.
        """
        ...

    def complete(self) -> Parser[Layout] | None:
        """Reads all of the index, for a side-car; None where nothing is missing, or where it would be too large."""
        ...

    def extract(self, box: Box, size: Size) -> Extract:
        """The bytes needed to show `box` (upright, full resolution) at `size`.

        Chooses the smallest level that is at least as large as `size` asks.
        """
        ...

    def rebuild(self, extract: Extract, parts: Sequence[bytes]) -> Piece:
        """A small, valid file from the bytes of the extract's spans.

        Raises `Malformed` if they are not what was promised.
        """
        ...

    def distrusted(self, reason: str) -> Layout | None:
        """The same master, read whole from now on, after `rebuild` found that its headers lied.

        None where there is no other way to read it. `advice` gives the reason.
        """
        ...

    def stored(self, box: Box, size: Size) -> Stored | None:
        """The stored JPEG tile that is exactly `box` at `size`, in colours that need no change.

        None if there is no such tile.
        """
        ...

    def dump(self) -> bytes:
        """The serial form: versioned, compact, read back by `formats.load`."""
        ...
