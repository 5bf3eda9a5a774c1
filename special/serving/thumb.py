"""The route `thumb`: a stored rendition is the answer. One GET at most, no codec, the master untouched."""

from __future__ import annotations

from dataclasses import dataclass

from special.concurrency import Deadline
from special.errors import OutOfRange
from special.iiif import MEDIA
from special.images import Rendition
from special.renditions import RenditionStore
from special.serving.answers import Answer, AnswerHead, PlannedRequest
from special.storage import NotModified, Span, Unless


@dataclass(frozen=True, slots=True)
class ThumbRoute:
    """Copies renditions out of their store."""

    store: RenditionStore

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        return planned

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        rendition = _rendition(planned)
        found = self.store.peek_rendition(planned.asset.identifier, rendition)
        if found is None:
            return None
        blob = found.blob
        if unless and unless.hold(blob.etag, blob.modified):
            raise NotModified(blob.etag)
        return Answer(found.data, MEDIA[rendition.format], blob.etag, blob.size, modified=blob.modified)

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        rendition = _rendition(planned)
        try:
            async with deadline.limit("the store of renditions"):
                opened = await self.store.open_rendition(planned.asset.identifier, rendition, span=span, unless=unless)
        except ValueError as error:
            if span is None:
                raise
            raise OutOfRange(f"The stored image ends before byte {span.start}.") from error
        partial = opened.span if span else None
        return Answer(
            opened.body,
            MEDIA[rendition.format],
            opened.blob.etag,
            len(opened.span) if opened.span else 0,
            modified=opened.blob.modified,
            span=partial,
            total=opened.blob.size if partial else None,
        )

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        rendition = _rendition(planned)
        blob = await self.store.stat_rendition(planned.asset.identifier, rendition)
        if unless and unless.hold(blob.etag, blob.modified):
            raise NotModified(blob.etag)
        return AnswerHead(MEDIA[rendition.format], blob.etag, blob.size, blob.modified)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        return [Span.whole(await self.store.source.stat(_rendition(planned).key))]

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        return await self.store.source.signed_url(_rendition(planned).key)


def _rendition(planned: PlannedRequest) -> Rendition:
    assert planned.plan.name == "thumb", "routing chose this route"
    return planned.plan.rendition
