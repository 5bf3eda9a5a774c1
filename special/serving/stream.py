"""The route `stream`: the full region, from just the byte ranges of the master that its pixels need.

Of a large flat master it needs all of them; where that has a pyramid, the picture is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from special.concurrency import Deadline
from special.iiif import Job
from special.images import Asset, Master
from special.renditions import RenditionWriter
from special.serving.answers import Answer, AnswerHead, PlannedRequest, pixels_etag
from special.serving.master_pixels import MasterRenderer
from special.serving.routing import lane_of
from special.storage import NotModified, Reader, Span, Unless


class FromPyramid(Protocol):
    """Makes the full region of a master from its pyramid."""

    async def __call__(self, asset: Asset, master: Master, job: Job, *, deadline: Deadline) -> bytes | None:
        """The picture; None where it has to be made of the master itself."""
        ...


@dataclass(frozen=True, slots=True)
class StreamRoute:
    """Reads from the source itself, past the volume."""

    renderer: MasterRenderer
    reader: Reader
    writer: RenditionWriter | None = None
    """Stores what was made of masters, where `store_on_miss` asks for it."""
    from_pyramid: FromPyramid | None = None
    """Makes full regions from pyramids."""

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        assert planned.asset.blob is not None, "routing chose a master"
        return replace(planned, etag=pixels_etag(planned.asset.blob.picture_tag, planned.job, self.renderer.encoding))

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        if unless and planned.etag and unless.hold(planned.etag):
            raise NotModified(planned.etag)
        return None

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        self.cached(planned, unless=unless)
        lane = lane_of(planned.plan)
        from_pyramid = False

        async def make(master: Master) -> bytes:
            nonlocal from_pyramid
            if self.from_pyramid is not None:
                data = await self.from_pyramid(planned.asset, master, planned.job, deadline=deadline)
                if data is not None:
                    from_pyramid = True
                    return data
            return await self.renderer.render(master, planned.job, self.reader, lane=lane, deadline=deadline)

        master, answer = await self.renderer.answer(planned, make)
        # What the operator's own code granted to one caller must not be stored as open to all others.
        is_stored = not from_pyramid and not planned.grant.is_personal
        if self.writer and is_stored and isinstance(answer.body, bytes):
            self.writer.submit(planned.asset, master, planned.job, answer.body)
        return answer

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        return self.renderer.head(planned, unless=unless)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        return await self.renderer.estimate(planned)

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        return None
