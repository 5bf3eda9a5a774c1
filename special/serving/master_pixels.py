"""From a version of a master to an answer's bytes: plan, read, rebuild, render.

`stream` and `tile` are this one function with another reader.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from special.codecs import Encoding, memory_estimate, render
from special.concurrency import Deadline
from special.formats import Layout, Piece, Stored
from special.iiif import Job
from special.images import Master, Masters
from special.observability import trace
from special.serving import read_piece
from special.serving.read_piece import ReadLimits
from special.settings import Settings
from special.storage import Blob, Chunk, Reader
from special.volume import VolumeReader
from special.workers import Admission, AdmissionController, Workers, standard_lanes

DEADLINES_S = {lane.name: lane.deadline_s for lane in standard_lanes(1)}

PIXELS_VERSION = 1
"""Goes up when the same request on the same master gives other bytes than before."""


@dataclass(frozen=True, slots=True)
class MasterRenderer:
    """What it takes to show a part of a master."""

    settings: Settings
    masters: Masters
    workers: Workers
    admission: AdmissionController
    encoding: Encoding

    async def render(self, master: Master, job: Job, reader: Reader, *, lane: str) -> bytes:
        """What the job asks for, from the master. Raises `SourceError`, `MasterError`, `DecodeError`."""
        blob = master.blob
        with trace().reading():
            seen = self.masters.pop_head(blob)
            layout = await self.masters.prepared(master, job.box, job.size, reader, seen=seen)
            stored = stored_tile(layout, job)
            if stored:
                return stored.assemble(await reader.read(blob, stored.spans))
        deadline = Deadline.after(DEADLINES_S[lane])
        self.admission.check(lane, deadline=deadline, client=trace().client)  # a refused one is not even planned
        async with self.piece(blob, layout, job, reader, lane=lane, deadline=deadline, seen=seen) as (piece, admitted):
            return await self.decode(piece, job, admitted, quarantine_key=f"{blob.url} {blob.etag}")

    @asynccontextmanager
    async def piece(
        self,
        blob: Blob,
        layout: Layout,
        job: Job,
        reader: Reader,
        *,
        lane: str,
        deadline: Deadline,
        seen: Sequence[Chunk] = (),
    ) -> AsyncGenerator[tuple[Piece, Admission], None]:
        """A small file that shows the job's box, from a layout that is prepared for it, and the place that it has.

        Nothing is read before the gate lets it in, and its memory is set aside until the block ends. A master whose
        headers lied is planned and let in anew. Raises `TooDear`, `Busy`, `TimedOut`, `Malformed`, `SourceError`.
        """
        bounds = ReadLimits.of(self.settings)
        if isinstance(reader, VolumeReader):  # it merges spans by itself, into blocks
            bounds = replace(bounds, max_gap_bytes=0)
        while True:
            extract = await read_piece.plan_extract(blob, layout, job.box, job.size, bounds=bounds)
            memory_bytes = memory_estimate.decode_bytes(layout.format, extract, job)
            async with self.admission.admit(lane, memory_bytes, deadline=deadline, client=trace().client) as admitted:
                with trace().reading():
                    async with deadline.limit(f"reading {blob.url}"):
                        found = await read_piece.read_extract(reader, blob, layout, extract, bounds=bounds, seen=seen)
                if isinstance(found, Piece):
                    yield found, admitted
                    return
            layout = found
            self.masters.put_layout(blob, layout)

    async def decode(self, piece: Piece, job: Job, admitted: Admission, *, quarantine_key: str) -> bytes:
        """What the job asks for, from a piece that shows its box. Raises `MasterError`, `DecodeError`."""
        rendered = await self.workers.run(
            render,
            piece,
            job,
            self.encoding,
            self.settings.max_master_pixels,
            lane=admitted.lane,
            client=trace().client,
            deadline=admitted.deadline,
            quarantine_key=quarantine_key,
        )
        trace().drawn(rendered.decode_ms, rendered.encode_ms)
        return rendered.data


def stored_tile(layout: Layout, job: Job) -> Stored | None:
    """The stored tile that is the answer as it lies, if there is one."""
    return layout.stored(job.box, job.size) if job.plain and job.format == "jpg" else None
