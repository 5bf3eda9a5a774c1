"""A JPEG 2000 master: its levels, and what a box of it at a size needs.

There are three ways to a box, each exact, tried in this order:

    packets   just the packets of the precincts and resolutions that the box needs; wants packet lengths
    tiles     whole tiles, unchanged; wants a tiled master
    whole     the object as it is, decoded in part; always possible

The parser reads what comes with the first bytes; `prepare` reads on, as far as one box needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from special.errors import Malformed, Unsupported
from special.formats.jp2 import advice, extract, rebuild, serial, tile_selection
from special.formats.jp2.boxes import Container, read_container
from special.formats.jp2.index_reader import extend_index, inconsistency, is_sufficient
from special.formats.jp2.main_header import Header, read_header
from special.formats.jp2.markers import Marker, read_segments
from special.formats.jp2.reader import CodestreamReader
from special.formats.jp2.tile_parts import SOT_BYTES, PartIndex, known_parts, read_next_part
from special.formats.jp2.tile_selection import Selection
from special.formats.layout import Extract, Format, Layout, Piece, Stored, Tiling
from special.formats.parser import Parser
from special.geometry import Box, Size

MAX_COARSE_BITS = 4
"""Up to this depth, rounding to the picture's own shades is seen in its smaller levels."""


@dataclass(frozen=True, slots=True, eq=False)
class Jp2Layout:
    """What the headers of one JPEG 2000 master say."""

    size_bytes: int
    """Length of the object."""
    container: Container
    header: Header
    index: PartIndex
    """Tile-parts and packet lengths, as far as they were read. Never changed: `prepare` makes another."""
    doubts: tuple[str, ...] = field(default=())
    """What was found to be wrong or out of reach; then the whole object is read."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Jp2Layout) and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash((self.size_bytes, self.container))

    @property
    def format(self) -> Format:
        return "jp2"

    @property
    def size(self) -> Size:
        return self.container.orientation.upright(self._stored_size)

    @property
    def _stored_size(self) -> Size:
        size = self.header.size(0)
        assert size is not None, "an image without samples is Malformed"
        return size

    @property
    def max_reduction(self) -> int:
        """How many levels may be left out: those of the component with fewest.

        None where samples are no shades: see `full_size_reason`.
        """
        if self.full_size_reason:
            return 0
        reductions = range(self.header.max_reduction + 1)
        return max(reduction for reduction in reductions if self.header.size(reduction) is not None)

    @property
    def full_size_reason(self) -> str:
        """Why no smaller level shows what the picture looks like from further away; empty where it does.

        An average of palette entries is another colour. One of black and white is grey, but levels of a picture are
        rounded to the shades that it has: of 4 bits by 8 of 255, of 5 bits by 4.
        """
        if self.container.palette_channels:
            return "a palette"
        return f"samples of {self.header.precision} bits" if self.header.precision <= MAX_COARSE_BITS else ""

    @property
    def levels(self) -> tuple[Size, ...]:
        sizes = (self.header.size(reduction) for reduction in range(self.max_reduction + 1))
        return tuple(self.container.orientation.upright(size) for size in sizes if size is not None)

    @property
    def tiling(self) -> Tiling | None:
        canvas = self.header.canvas
        is_aligned = canvas.left == canvas.tile_left and canvas.top == canvas.tile_top
        if canvas.columns * canvas.rows == 1 or not is_aligned or self.whole_only is not None:
            return None
        factors = tuple(1 << reduction for reduction in range(self.max_reduction + 1))
        return Tiling(self.container.orientation.upright(Size(canvas.tile_width, canvas.tile_height)), factors)

    @property
    def has_color(self) -> bool:
        channels = self.container.palette_channels or len(self.header.canvas.steps)
        return channels >= 3 and not self.container.is_grey

    @property
    def density(self) -> float | None:
        return self.container.density

    @property
    def whole_only(self) -> str | None:
        """Why nothing less than the whole object can be read; None where less can."""
        return self.header.refusal or (self.doubts[0] if self.doubts else None)

    @property
    def advice(self) -> tuple[str, ...]:
        return advice.advice(self.header, self.index, self.doubts, self.full_size_reason)

    def extract(self, box: Box, size: Size) -> Extract:
        """See `Layout`. A box that the index does not reach takes the whole object: `prepare` first."""
        trusted = self.whole_only is None
        return extract.extract(self.header, self.index, self._plan(box, size), self.size_bytes, is_trusted=trusted)

    def rebuild(self, extract: Extract, parts: Sequence[bytes]) -> Piece:
        """See `Layout`. On `Malformed`, its headers were wrong: `distrusted` gives a layout that reads it whole."""
        return rebuild.rebuild(self.container, self.header, extract, parts)

    def stored(self, box: Box, size: Size) -> Stored | None:
        return None

    def dump(self) -> bytes:
        return serial.pack(self.size_bytes, self.container, self.header.segments, self.index, self.doubts)

    def distrusted(self, reason: str) -> Jp2Layout | None:
        """See `Layout`. None where it is read whole already."""
        return None if self.whole_only is not None else replace(self, doubts=(*self.doubts, reason))

    def prepare(self, box: Box, size: Size) -> Parser[Layout] | None:
        """See `Layout`. One round trip with TLM, else one for each tile-part as far as the box needs.

        The parser raises `Malformed`.
        """
        wanted = self._plan(box, size)
        return None if wanted.is_all else self._extension(wanted)

    def complete(self) -> Parser[Layout] | None:
        """Reads all of the index, for a side-car: what `prepare` would read for any box. None if nothing."""
        size = self._stored_size
        wanted = replace(tile_selection.select(self.header, Box.whole(size), size, max_reduction=0), is_all=False)
        return self._extension(wanted)

    def _extension(self, wanted: Selection) -> Parser[Layout] | None:
        if wanted.is_vast or self.whole_only is not None or is_sufficient(self.header, self.index, wanted):
            return None
        return self._extended(wanted)

    def _extended(self, wanted: Selection) -> Parser[Layout]:
        found = yield from extend_index(CodestreamReader(self.size_bytes, trips=1), self.header, self.index, wanted)
        doubts = self.doubts if found.doubt is None else (*self.doubts, found.doubt)
        return replace(self, index=found.index, doubts=doubts)

    def _plan(self, box: Box, size: Size) -> Selection:
        inside = box.within(self.size)
        if inside is None:
            raise ValueError(f"the box {box} is outside a master of {self.size}")
        orientation = self.container.orientation
        stored = orientation.to_stored(inside, self._stored_size)
        turned = size.turned if orientation.swaps_sides else size
        return tile_selection.select(self.header, stored, turned, max_reduction=self.max_reduction)


def parse(size_bytes: int) -> Parser[Jp2Layout]:
    """Boxes and main header, and as much of the index as came along: mostly one round trip.

    The result has its size and levels; `prepare` it before `extract`. Raises `Malformed` and `Unsupported`.
    """
    reader = CodestreamReader(size_bytes)
    container = yield from read_container(reader)
    start, stop = container.codestream.start, container.codestream.stop
    if (yield from reader.take(start, 2)) != b"\xff\x4f":
        raise Malformed(f"no codestream (SOC) at byte {start}")
    segments, first = yield from read_segments(reader, start + 2, Marker.SOT, stop)
    header = read_header(segments)
    container.check_definition(len(header.codings))
    index = known_parts(header, segments, first, stop)
    while index.frontier is not None and header.refusal is None and reader.holds(index.frontier, SOT_BYTES):
        yield from read_next_part(reader, index, header)
    doubt = inconsistency(header, index)
    return Jp2Layout(size_bytes, container, header, index, () if doubt is None else (doubt,))


def load(data: bytes) -> Jp2Layout:
    """The layout that was dumped. Raises `Malformed` for anything else."""
    size_bytes, container, segments, index, doubts = serial.unpack(data)
    try:
        return Jp2Layout(size_bytes, container, read_header(segments), index, doubts)
    except Unsupported as error:  # an older release took it
        raise Malformed(f"a stored layout: {error}; read the master again") from None
