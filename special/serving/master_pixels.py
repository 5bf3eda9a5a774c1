"""From a version of a master to an answer's bytes: plan, read, rebuild, decode.

`stream` and `tile` are this one function with another reader.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from special.codecs import Encoding, memory_estimate, render
from special.concurrency import Deadline
from special.errors import Changed
from special.formats import Layout, Piece, Stored
from special.iiif import MEDIA, Job
from special.images import Master, Masters
from special.observability import metrics, trace
from special.serving.answers import Answer, AnswerHead, PlannedRequest, pixels_etag
from special.serving.read_piece import ReadLimits, plan_extract, read_extract
from special.storage import Blob, Chunk, NotModified, Reader, Span, Unless, runs_of
from special.volume import VolumeReader
from special.workers import Admission, AdmissionController, Workers


@dataclass(frozen=True, slots=True)
class MasterRenderer:
    """What it takes to show a part of a master."""

    masters: Masters
    workers: Workers
    admission: AdmissionController
    encoding: Encoding
    limits: ReadLimits

    async def answer(
        self, planned: PlannedRequest, make: Callable[[Master], Awaitable[bytes]]
    ) -> tuple[Master, Answer]:
        """What `make` gives of the master's current version, tried a second time if it is overwritten meanwhile."""
        identifier = planned.asset.identifier
        master = await self.masters.find(identifier)
        try:
            data = await make(master)
        except Changed:
            self.masters.forget(identifier, master)
            master = await self.masters.find(identifier)
            if master.layout.size != planned.asset.size:
                raise
            data = await make(master)
        etag = planned.etag if master.blob == planned.asset.blob else None
        etag = etag or pixels_etag(master.blob.picture_tag, planned.job, self.encoding)
        incomplete = self.masters.incomplete(master.blob)
        if incomplete:
            metrics.INCOMPLETE_ANSWERS.inc()
        return master, Answer(data, MEDIA[planned.job.format], etag, len(data), incomplete=incomplete)

    async def render(self, master: Master, job: Job, reader: Reader, *, lane: str, deadline: Deadline) -> bytes:
        """What the job asks for. Raises `SourceError`, `MasterError`, `DecodeError`."""
        blob = master.blob
        with trace().reading():
            async with deadline.limit(f"reading {blob.url}"):
                seen = self.masters.pop_head(blob)
                layout = await self.masters.prepared(master, job.box, job.size, reader, seen=seen)
                stored = stored_tile(layout, job)
                if stored:
                    return stored.assemble(await reader.read(blob, stored.spans))
        # A request that will be refused is not even planned for.
        self.admission.check(lane, deadline=deadline, client=trace().client, master=blob.version)
        async with self.piece(blob, layout, job, reader, lane=lane, deadline=deadline, seen=seen) as (piece, admission):
            return await self.decode(piece, job, admission, quarantine_key=blob.version)

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
        """A small file that shows the job's box, from a layout that is prepared for it, and its admission.

        Nothing is read before it is admitted, and its memory is reserved until the block ends. A master whose
        headers were wrong is planned and admitted again. Raises `TooExpensive`, `Busy`, `TimedOut`, `Malformed`,
        `SourceError`.
        """
        limits = self.limits
        if isinstance(reader, VolumeReader):  # it merges spans by itself, into blocks
            limits = replace(limits, max_gap_bytes=0)
        while True:
            extract = await plan_extract(blob, layout, job.box, job.size, limits=limits)
            memory_bytes = memory_estimate.decode_bytes(layout.format, extract, job)
            async with self.admission.admit(
                lane, memory_bytes, deadline=deadline, client=trace().client, master=blob.version
            ) as admission:
                with trace().reading():
                    async with deadline.limit(f"reading {blob.url}"):
                        found = await read_extract(reader, blob, layout, extract, limits=limits, seen=seen)
                if isinstance(found, Piece):
                    if found.incomplete:
                        self.masters.put_incomplete(blob, found.incomplete)
                    yield found, admission
                    return
            layout = found
            self.masters.put_layout(blob, layout)

    async def decode(
        self, piece: Piece, job: Job, admission: Admission, *, quarantine_key: str, encoding: Encoding | None = None
    ) -> bytes:
        """What the job asks for, from a piece that shows its box. Raises `MasterError`, `DecodeError`."""
        rendered = await self.workers.run(
            render,
            piece,
            job,
            encoding or self.encoding,
            self.limits.max_pixels,
            lane=admission.lane,
            client=trace().client,
            deadline=admission.deadline,
            quarantine_key=quarantine_key,
        )
        trace().drawn(rendered.decode_ms, rendered.encode_ms)
        return rendered.data

    def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        """What the headers of an answer from the master say. Raises `NotModified`."""
        assert planned.etag is not None, "an answer from the master has an entity tag from the start"
        if unless and unless.hold(planned.etag):
            raise NotModified(planned.etag)
        return AnswerHead(MEDIA[planned.job.format], planned.etag, None, None)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        """The GETs for an answer from the master, as if nothing of it were in the volume."""
        job = planned.job
        master = await self.masters.find(planned.asset.identifier)
        layout = await self.masters.prepared(master, job.box, job.size, self.masters.source)
        stored = stored_tile(layout, job)
        spans = stored.spans if stored else layout.extract(job.box, job.size).spans
        return runs_of(spans, max_gap_bytes=self.limits.max_gap_bytes)


def stored_tile(layout: Layout, job: Job) -> Stored | None:
    """The stored tile that is the answer as it is, if there is one."""
    return layout.stored(job.box, job.size) if job.plain and job.format == "jpg" else None
