"""From a version of a master to an answer's bytes: plan, read, rebuild, render.

`stream` and `tile` are this one function with another reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from special import render
from special.geometry import Box, Size
from special.iiif import Job
from special.layout import Layout, Piece, Stored
from special.masters import Master, Masters
from special.observe import trace
from special.pieces import Bounds, cut
from special.render import Encoding
from special.settings import Settings
from special.spans import Blob, Chunk, Reader
from special.volume import VolumeReader
from special.workers import Workers

PIXELS_VERSION = 1
"""Goes up when the same request on the same master gives other bytes than before."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """What it takes to show a part of a master."""

    settings: Settings
    masters: Masters
    workers: Workers
    encoding: Encoding

    async def show(self, master: Master, job: Job, reader: Reader, *, lane: str) -> bytes:
        """What the job asks for, from the master. Raises `SourceError`, `MasterError`, `DecodeError`."""
        blob = master.blob
        with trace().reading():
            seen = self.masters.head(blob)
            layout = await self.masters.prepared(master, job.box, job.size, reader, seen=seen)
            stored = stored_tile(layout, job)
            if stored:
                return stored.assemble(await reader.read(blob, stored.spans))
            piece = await self.piece(blob, layout, job.box, job.size, reader, seen=seen)
        return await self.draw(piece, job, lane=lane, culprit=f"{blob.url} {blob.etag}")

    async def piece(
        self, blob: Blob, layout: Layout, box: Box, size: Size, reader: Reader, *, seen: Sequence[Chunk] = ()
    ) -> Piece:
        """A small file that shows the box, from a layout that is prepared for it. Raises as `pieces.cut` does."""
        bounds = Bounds.of(self.settings)
        if isinstance(reader, VolumeReader):  # it merges spans by itself, into blocks
            bounds = replace(bounds, max_gap_bytes=0)
        piece, followed = await cut(reader, blob, layout, box, size, bounds=bounds, seen=seen)
        if followed is not layout:
            self.masters.keep(blob, followed)
        return piece

    async def draw(self, piece: Piece, job: Job, *, lane: str, culprit: str) -> bytes:
        """What the job asks for, from a piece that shows its box."""
        rendered = await self.workers.run(
            render.render, piece, job, self.encoding, self.settings.max_master_pixels, lane=lane, culprit=culprit
        )
        trace().decode_ms += rendered.decode_ms
        trace().encode_ms += rendered.encode_ms
        return rendered.data


def stored_tile(layout: Layout, job: Job) -> Stored | None:
    """The stored tile that is the answer as it lies, if there is one."""
    return layout.stored(job.box, job.size) if job.plain and job.format == "jpg" else None
