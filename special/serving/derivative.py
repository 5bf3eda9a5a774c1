"""The route `derivative`: a larger stored rendition is shrunk. One GET of a small object, the master untouched."""

from __future__ import annotations

from dataclasses import dataclass, replace

from special import formats
from special.codecs import memory_estimate
from special.concurrency import Deadline
from special.errors import MasterError, Unreadable
from special.formats import solve
from special.geometry import Box
from special.iiif import MEDIA
from special.observability import trace
from special.renditions import RenditionStore
from special.serving.answers import Answer, AnswerHead, PlannedRequest, pixels_etag
from special.serving.master_pixels import MasterRenderer
from special.serving.routing import Derivative
from special.storage import NotModified, Span, Unless, body


@dataclass(frozen=True, slots=True)
class DerivativeRoute:
    """Shrinks renditions."""

    store: RenditionStore
    renderer: MasterRenderer

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        return planned

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        return None

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        plan, identifier = _plan(planned), planned.asset.identifier
        if unless:  # a client that has it already need not wait for a decoder
            async with deadline.limit("the store of renditions"):
                await self.head(planned, unless=unless)
        renderer, memory_bytes = self.renderer, memory_estimate.rendition_bytes(plan.rendition.size, plan.job)
        async with renderer.admission.admit(
            "tile", memory_bytes, deadline=deadline, client=trace().client
        ) as admission:
            with trace().reading():
                async with deadline.limit("the store of renditions"):
                    opened = await self.store.open_rendition(identifier, plan.rendition)
                    data = await body(opened)
            blob = opened.blob
            try:
                layout = solve(formats.parse(len(data)), data)
                # Another tool's sizes file may be a pixel off: what the object itself says, counts.
                job = replace(plan.job, box=Box.whole(layout.size))
                piece = layout.rebuild(layout.extract(job.box, job.size), [data])
                data = await renderer.decode(piece, job, admission, quarantine_key=blob.version)
            except MasterError as error:  # the master is not to blame, and may be sound
                raise Unreadable(
                    f"{blob.url} is no picture: {error}; `special derive --force` makes it again"
                ) from error
        etag = pixels_etag(blob.etag, plan.job, renderer.encoding)
        return Answer(data, MEDIA[job.format], etag, len(data), modified=blob.modified, incomplete=piece.incomplete)

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        plan = _plan(planned)
        blob = await self.store.stat_rendition(planned.asset.identifier, plan.rendition)
        etag = pixels_etag(blob.etag, plan.job, self.renderer.encoding)
        if unless and unless.hold(etag, blob.modified):
            raise NotModified(etag)
        return AnswerHead(MEDIA[plan.job.format], etag, None, blob.modified)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        return [Span.whole(await self.store.source.stat(_plan(planned).rendition.key))]

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        return None


def _plan(planned: PlannedRequest) -> Derivative:
    assert planned.plan.name == "derivative", "routing chose this route"
    return planned.plan
