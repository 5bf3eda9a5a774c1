"""Tiles of masters: from the master's pyramid where it has one, else from spans through the volume.

The answer is the same either way: a tile on the grid is the same file, byte for byte, so its entity
tag stays too. Off the grid a pyramid's pixels have been through JPEG before; pictures without loss
(PNG, TIFF, GIF) and black and white ones are therefore always made from the master itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

from special import formats
from special.codecs import memory_estimate
from special.concurrency import Deadline, KeyedLimiter, KeyState, SingleFlight
from special.errors import Malformed
from special.formats import Stored, drive
from special.formats.tiff import HEAD_BYTES, Grid, TiffLayout
from special.geometry import Box, Size
from special.iiif import Job
from special.images import Master
from special.observability import trace
from special.serving.master_pixels import DEADLINES_S, MasterRenderer, stored_tile
from special.serving.prefetch import Prefetcher
from special.serving.pyramid_builder import PyramidBuilder
from special.storage import Blob, Reader, Span
from special.volume import Damaged, PackFile, Volume

POLL_S: Final = 1.0
"""How often is looked whether another process has made a pyramid."""
PAUSE_S: Final = 0.1
"""How often a flood asks whether its pyramid is there."""
MORE_QUALITY: Final = 3
"""What is encoded for the second time is encoded with more care: an eighth longer, to lose 0.1 to 1.2 dB less."""
MAX_WAITING: Final = 1024
"""So many may wait for tiles of one dear master: they cost nothing but their connections."""
MAX_WAIT_S: Final = 8.0
"""How long they may: meanwhile their pyramid is made. What is left of the lane's deadline is for the decoder."""


@dataclass(frozen=True, slots=True)
class PyramidIndex:
    """Where what lies in a pyramid."""

    grid: Grid
    layout: TiffLayout

    def find(self, job: Job, parts: PackFile) -> Span | None:
        """The part that is the answer as it lies, if there is one."""
        if not job.plain or job.format != "jpg":
            return None
        place = self.grid.find(job.box, job.size)
        if place is None:
            return None
        page = self.layout.pyramid[place.level].page
        span = page.span(place.row * page.columns + place.column)
        assert span is not None, "a pyramid has all its tiles"
        return span if self.grid.is_whole(job.size) else parts.before(span.start)

    def source_size(self, job: Job) -> Size:
        """The size that a level must have for this job.

        Twice that of the answer, where it is resampled: what is halved again loses nothing that the master would show.
        """
        if self.grid.is_exact(job.box, job.size):
            return job.size
        return Size(min(2 * job.size.width, job.box.width), min(2 * job.size.height, job.box.height))


class TileRenderer:
    """Answers requests for parts of masters."""

    def __init__(
        self, pixels: MasterRenderer, volume: Volume, reader: Reader, promoter: PyramidBuilder, ahead: Prefetcher | None
    ) -> None:
        self._pixels = pixels
        self._volume = volume
        self._pyramids = volume.pyramids
        self._reader = reader
        self._promoter = promoter
        self._ahead = ahead
        # Enough at once to keep all decoders busy while others are being read.
        at_once = 2 * pixels.settings.decoders
        self._turns = KeyedLimiter(at_once, max_waiting=MAX_WAITING, max_wait_s=MAX_WAIT_S)
        self._shared: SingleFlight[bytes] = SingleFlight()
        self._charts: WeakKeyDictionary[PackFile, PyramidIndex] = WeakKeyDictionary()
        self._looked_s: dict[str, float] = {}

    def cached(self, blob: Blob, job: Job, stored: Stored | None) -> bytes | None:
        """The answer, if it is a tile in memory: some microseconds, and nothing is waited for.

        `stored` is the master's own tile that is the answer, where there is one; else the pyramid's is meant.
        """
        if stored is not None:
            found = self._volume.peek(blob, stored.spans)
            if found is None:
                return None
            if self._ahead is not None:
                self._ahead.record_cached(blob, job)
            return stored.assemble(found)
        parts = self._pyramids.peek_file(blob)
        chart = self._charts.get(parts) if parts is not None else None
        span = chart.find(job, parts) if chart is not None and parts is not None else None
        return self._pyramids.peek(blob, span) if span is not None else None

    async def render(self, master: Master, job: Job) -> bytes:
        """What the job asks for. Raises `SourceError`, `MasterError`, `DecodeError`."""
        if self._promoter.grid(master.layout) is None:
            data = await self._pixels.render(master, job, self._reader, lane="tile")
            if self._ahead is not None:
                self._ahead.record(master, job)
            return data
        layout = self._pixels.masters.peek_prepared(master, job.box, job.size)
        if layout is not None and stored_tile(layout, job) is not None:  # nothing is cheaper, nor better
            return await self._pixels.render(master, job, self._reader, lane="tile")
        key = (master.blob.url, master.blob.etag, job)
        return await self._shared.run(key, partial(self._in_turn, master, job))

    async def _in_turn(self, master: Master, job: Job) -> bytes:
        """A tile of a dear master. In a flood most wait here until there is a pyramid."""
        lossy = job.format in ("jpg", "webp") and job.quality != "bitonal"
        async with self._turns.slot(master.blob.url) as line:
            if lossy:
                data = await self._awaited(master, job, line)
                if data is not None:
                    return data
            # Decoders share the processors: the fewer tiles are made on the way, the sooner there is a pyramid.
            async with line.alone if self._promoter.is_building(master) else nullcontext():
                return await self._pixels.render(master, job, self._reader, lane="tile")

    async def _awaited(self, master: Master, job: Job, line: KeyState) -> bytes | None:
        """The answer from a pyramid, if there is one, or soon will be and less work goes into it than into the line."""
        grid, patience_ends = Grid(master.layout.size, self._promoter.tile), monotonic() + MAX_WAIT_S
        while (data := await self._from_pyramid(master, job)) is None:
            self._promoter.count_tiles(master, 1 + line.waiting)
            is_less = grid.columns(0) * grid.rows(0) < line.waiting
            if not (is_less and self._promoter.is_building(master)) or monotonic() > patience_ends:
                break
            await asyncio.sleep(PAUSE_S)
        return data

    async def _from_pyramid(self, master: Master, job: Job) -> bytes | None:
        blob = master.blob
        with trace().reading():
            parts = self._pyramids.peek_file(blob) or await self._found(blob)
            if parts is None:
                return None
            chart = self._charts.get(parts) or await self._charted(master, parts)
            if chart is None:
                return None
            span = chart.find(job, parts)
            if span is not None:
                found = await self._pyramids.read(blob, [span])
                return found[0] if found is not None else None
        extract = chart.layout.extract(job.box, chart.source_size(job))
        memory_bytes = memory_estimate.decode_bytes("tiff", extract, job)
        deadline = Deadline.after(DEADLINES_S["tile"])
        careful = replace(
            self._pixels.encoding,
            jpeg_quality=min(100, self._pixels.encoding.jpeg_quality + MORE_QUALITY),
            webp_quality=min(100, self._pixels.encoding.webp_quality + MORE_QUALITY),
        )
        async with self._pixels.admission.admit(
            "tile", memory_bytes, deadline=deadline, client=trace().client
        ) as admitted:
            with trace().reading():
                found = await self._pyramids.read(blob, extract.spans)
            if found is None:
                return None
            piece = chart.layout.rebuild(extract, found)
            key = f"{blob.url} {blob.etag} (its pyramid)"
            return await replace(self._pixels, encoding=careful).decode(piece, job, admitted, quarantine_key=key)

    async def _found(self, blob: Blob) -> PackFile | None:
        """The pyramid, if one has come to be; not everybody looks."""
        now = monotonic()
        if now < self._looked_s.get(blob.url, 0.0) + POLL_S:
            return None
        self._looked_s = {url: then for url, then in self._looked_s.items() if now < then + POLL_S}
        self._looked_s[blob.url] = now
        return await self._pyramids.find(blob, self._promoter.name)

    async def _charted(self, master: Master, parts: PackFile) -> PyramidIndex | None:
        """What a pyramid's directories say; None, and no pyramid any more, where that is nonsense."""
        try:
            chart = await read_index(parts, Grid(master.layout.size, self._promoter.tile))
        except (Damaged, Malformed, OSError):
            await self._pyramids.discard(master.blob)
            return None
        self._charts[parts] = chart
        return chart


async def read_index(parts: PackFile, grid: Grid) -> PyramidIndex:
    """Read a pyramid's directories. Raises `Damaged`, `Malformed`, `OSError`."""
    parts.read(Span(0, HEAD_BYTES))
    parts.read(parts.last)
    blob, content = Blob("", parts.path.name, "", parts.size_bytes), _Unchecked(parts)
    layout = await drive(formats.parse(parts.size_bytes), content, blob)
    for level in range(grid.levels):  # all of the index, however long
        missing = layout.prepare(Box.whole(grid.full), grid.size(level))
        if missing is not None:
            layout = await drive(missing, content, blob, first_bytes=0, chunk_bytes=0)
    if not isinstance(layout, TiffLayout) or layout.levels != tuple(map(grid.size, range(grid.levels))):
        raise Malformed(f"{parts.path} is no pyramid of {grid.full} pixels")
    return PyramidIndex(grid, layout)


@dataclass(frozen=True, slots=True)
class _Unchecked:
    """A pyramid's bytes for the parser, which asks for more than it looks at."""

    parts: PackFile

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        return [self.parts.unchecked(span) for span in spans]
