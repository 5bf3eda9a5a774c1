"""The route `stream`: the full region, from just the byte ranges of the master that its pixels need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from special.concurrency import Deadline
from special.renditions import RenditionWriter
from special.serving.answers import Answer, AnswerHead, PlannedRequest, pixels_etag
from special.serving.master_pixels import MasterRenderer
from special.serving.routing import lane_of
from special.storage import NotModified, Reader, Span, Unless


@dataclass(frozen=True, slots=True)
class StreamRoute:
    """Reads from the source itself, past the volume."""

    renderer: MasterRenderer
    reader: Reader
    writer: RenditionWriter | None = None
    """Stores what was made, where `store_on_miss` asks for it."""

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        assert planned.asset.blob is not None, "routing chose a master"
        return replace(planned, etag=pixels_etag(planned.asset.blob.etag, planned.job, self.renderer.encoding))

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        if unless and planned.etag and unless.hold(planned.etag):
            raise NotModified(planned.etag)
        return None

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        self.cached(planned, unless=unless)
        lane = lane_of(planned.plan)
        make = partial(self.renderer.render, job=planned.job, reader=self.reader, lane=lane, deadline=deadline)
        master, answer = await self.renderer.answer(planned, make)
        # What one caller was granted by the operator's own code may be nobody else's to find stored as open.
        if self.writer and isinstance(answer.body, bytes) and not planned.grant.is_personal:
            self.writer.submit(planned.asset, master, planned.job, answer.body)
        return answer

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        return self.renderer.head(planned, unless=unless)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        return await self.renderer.estimate(planned)

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        return None
