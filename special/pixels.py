"""From a version of a master to an answer's bytes: plan, read, rebuild, render.

`stream` and `tile` are this one function with another reader.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from special import render
from special.errors import Malformed, Unsupported
from special.geometry import Box, Size
from special.iiif import Job
from special.layout import Layout, Piece, Stored
from special.masters import Master, Masters
from special.observe import trace
from special.render import Encoding
from special.settings import Settings
from special.spans import Blob, Reader, read_spans
from special.volume import VolumeReader
from special.workers import Workers

PIXELS_VERSION = 1
"""Goes up when the same request on the same master gives other bytes than before."""
log = logging.getLogger(__name__)


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
            layout = await self.masters.prepared(master, job.box, job.size, reader)
            stored = stored_tile(layout, job)
            if stored:
                return stored.assemble(await reader.read(blob, stored.spans))
            piece = await self.piece(blob, layout, job.box, job.size, reader)
        return await self.draw(piece, job, lane=lane, culprit=f"{blob.url} {blob.etag}")

    async def piece(self, blob: Blob, layout: Layout, box: Box, size: Size, reader: Reader) -> Piece:
        """A small file that shows the box, from a layout that is prepared for it.

        A master whose headers lied is read whole, this time and from now on.
        """
        extract = layout.extract(box, size)
        if extract.pixels > self.settings.max_master_pixels:
            raise Unsupported(
                f"{blob.url}: {extract.pixels} pixels would have to be decoded, more than max_master_pixels allows"
            )
        wanted = sum(len(span) for span in extract.spans)
        if wanted > self.settings.max_whole_bytes:
            raise Unsupported(f"{blob.url}: {wanted} bytes would have to be read, more than max_whole_bytes allows")
        if isinstance(reader, VolumeReader):  # it merges spans by itself, into blocks
            parts = await reader.read(blob, extract.spans)
        else:
            parts = await read_spans(reader, blob, extract.spans, max_gap_bytes=self.settings.max_gap_bytes)
        try:
            if layout.format == "jp2":  # trying and sorting packets takes tens of milliseconds
                return await asyncio.to_thread(layout.rebuild, extract, parts)
            return layout.rebuild(extract, parts)
        except Malformed as lie:
            whole = layout.distrusted(str(lie))
            if whole is None:
                raise
            log.warning("%s is read whole from now on: %s", blob.url, lie)
            self.masters.keep(blob, whole)
            return await self.piece(blob, whole, box, size, reader)

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
