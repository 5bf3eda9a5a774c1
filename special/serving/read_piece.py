"""From a layout and a box to a `Piece`: the bytes that are needed, read and rebuilt within limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from special.errors import Malformed, TooExpensive
from special.formats import PDF_DPI, Extract, Layout, Piece
from special.geometry import Box, Size
from special.observability import trace
from special.storage import Blob, Chunk, Reader, read_spans

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much of one master may be read and decoded for one picture."""

    max_gap_bytes: int = 65536
    """Maximum gap between spans that is read along with them; 0 for a reader that merges spans by itself."""
    max_whole_bytes: int = 2 * 2**30
    """Maximum number of bytes read."""
    max_pixels: int = 2_000_000_000
    """Maximum number of pixels decoded."""
    pdf_dpi: int = PDF_DPI
    """Pixels per inch of a page of a PDF."""
    strict: bool = False
    """Whether a master that ends early is refused; else it is shown as far as it goes."""

    def check(self, blob: Blob, extract: Extract) -> None:
        """Raise `TooExpensive` for what is beyond the bounds, before any of it is read."""
        if extract.pixels > self.max_pixels:
            raise TooExpensive(f"{blob.url}: {extract.pixels} pixels to decode are more than max_master_pixels allows")
        wanted = sum(len(span) for span in extract.spans)
        if wanted > self.max_whole_bytes:
            raise TooExpensive(f"{blob.url}: {wanted} bytes to read are more than max_whole_bytes allows")


async def read_piece(
    reader: Reader, blob: Blob, layout: Layout, box: Box, size: Size, *, limits: ReadLimits, seen: Sequence[Chunk] = ()
) -> tuple[Piece, Layout]:
    """A small file that shows a box, from a layout that is prepared for it, and the layout to go on with.

    One batch of parallel GETs for what is not in `seen`. A master whose headers turn out to have lied is read
    whole instead, and the layout that is returned always does so. Raises `TooExpensive`, `Malformed`, `SourceError`.
    """
    while True:
        extract = await plan_extract(blob, layout, box, size, limits=limits)
        found = await read_extract(reader, blob, layout, extract, limits=limits, seen=seen)
        if isinstance(found, Piece):
            return found, layout
        layout = found


async def plan_extract(blob: Blob, layout: Layout, box: Box, size: Size, *, limits: ReadLimits) -> Extract:
    """What is to be read for a box, from a layout that is prepared for it. Reads nothing. Raises `TooExpensive`."""
    if layout.format == "jp2":  # picking and sorting packets takes tens of milliseconds, a TIFF less than the hop
        extract = await asyncio.to_thread(layout.extract, box, size)
    else:
        extract = layout.extract(box, size)
    limits.check(blob, extract)
    return extract


async def read_extract(
    reader: Reader, blob: Blob, layout: Layout, extract: Extract, *, limits: ReadLimits, seen: Sequence[Chunk] = ()
) -> Piece | Layout:
    """A piece from what an extract names; where that shows that the headers lied, the layout to go on with instead."""
    parts = await read_spans(reader, blob, extract.spans, max_gap_bytes=limits.max_gap_bytes, seen=seen)
    try:
        piece = await _rebuilt(layout, extract, parts)
    except Malformed as lie:
        whole = layout.distrusted(str(lie))
        if whole is None:
            raise
        log.warning("%s is read whole from now on: %s", blob.url, lie)
        return whole
    if piece.incomplete:
        if limits.strict:
            raise Malformed(piece.incomplete)
        trace().incomplete = piece.incomplete
    return piece


async def _rebuilt(layout: Layout, extract: Extract, parts: Sequence[bytes]) -> Piece:
    if layout.format == "jp2":
        piece = await asyncio.to_thread(layout.rebuild, extract, parts)
    else:
        piece = layout.rebuild(extract, parts)
    return replace(piece, density=layout.density)
