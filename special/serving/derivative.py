"""The route `derivative`: a larger stored rendition is shrunk. One GET of a small object, the master untouched.

The size that is a tile of a pyramid that exists is taken from there, and no codec works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from special import formats
from special.codecs import Encoding, memory_estimate
from special.concurrency import NEVER, Deadline
from special.errors import MasterError, Unreadable
from special.formats import solve
from special.geometry import Box
from special.iiif import MEDIA, Job
from special.images import Asset
from special.observability import trace
from special.renditions import RenditionStore
from special.serving.answers import Answer, AnswerHead, PlannedRequest, pixels_etag
from special.serving.master_pixels import MasterRenderer
from special.serving.routing import Derivative
from special.storage import NotModified, Span, Unless, body


class SmallestTile(Protocol):
    """Finds the full region in a pyramid."""

    async def __call__(self, asset: Asset, job: Job, *, deadline: Deadline) -> bytes | None:
        """The tile that is exactly that; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class DerivativeRoute:
    """Shrinks renditions."""

    store: RenditionStore
    renderer: MasterRenderer
    smallest_tile: SmallestTile

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        return planned

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        return None

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        plan, identifier, renderer = _plan(planned), planned.asset.identifier, self.renderer
        tile = await self.smallest_tile(planned.asset, planned.job, deadline=deadline)
        if tile is not None:
            head = self.renderer.head(_of_master(planned, renderer.encoding), unless=unless)
            return Answer(tile, head.media, head.etag, len(tile))
        if unless:  # a client that has it already need not wait for a decoder
            async with deadline.limit("the store of renditions"):
                await self._rendition_head(planned, unless)
        memory_bytes = memory_estimate.rendition_bytes(plan.rendition.size, plan.job)
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
                piece = replace(piece, density=layout.density)
                data = await renderer.decode(piece, job, admission, quarantine_key=blob.version)
            except MasterError as error:  # the master is not to blame, and may be sound
                raise Unreadable(
                    f"{blob.url} is no picture: {error}; `special derive --force` makes it again"
                ) from error
        etag = pixels_etag(blob.etag, plan.job, renderer.encoding)
        return Answer(data, MEDIA[job.format], etag, len(data), modified=blob.modified, incomplete=piece.incomplete)

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        if await self.smallest_tile(planned.asset, planned.job, deadline=NEVER) is not None:
            return self.renderer.head(_of_master(planned, self.renderer.encoding), unless=unless)
        return await self._rendition_head(planned, unless)

    async def _rendition_head(self, planned: PlannedRequest, unless: Unless | None) -> AnswerHead:
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


def _of_master(planned: PlannedRequest, encoding: Encoding) -> PlannedRequest:
    """The same request with the entity tag that the answer from the master itself has."""
    assert planned.asset.blob is not None, "only masters have pyramids"
    return replace(planned, etag=pixels_etag(planned.asset.blob.picture_tag, planned.job, encoding))


def _plan(planned: PlannedRequest) -> Derivative:
    assert planned.plan.name == "derivative", "routing chose this route"
    return planned.plan
