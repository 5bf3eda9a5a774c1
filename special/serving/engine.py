"""Answers requests: the one room that joins sources, store, volume, formats and decoders.

    asset    what is known of an image, from the store of renditions and the master's headers
    plan     which route answers (room `route`), once the caller's grant is known
    run      the route, to bytes or to a stream of them

`stream` and `tile` are one function (room `pixels`) with another reader: to orchestrate is to read
the same spans through the volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from special import composition, formats, iiif
from special.auth import Grant, Identity, access
from special.codecs import Encoding, memory_estimate
from special.concurrency import Deadline, LRUCache
from special.errors import Changed, OutOfRange
from special.formats import Stored, solve
from special.geometry import Box
from special.iiif import MEDIA, ImageRequest, Job, Limits, Version
from special.images import Asset, Master, Masters, Rendition
from special.observability import trace
from special.renditions import RenditionStore, RenditionWriter
from special.serving import info, pyramid_builder, routing
from special.serving.catalog import Catalog
from special.serving.info import Services
from special.serving.master_pixels import DEADLINES_S, PIXELS_VERSION, MasterRenderer, stored_tile
from special.serving.prefetch import Prefetcher
from special.serving.pyramid_builder import PyramidBuilder
from special.serving.routing import Derivative, Plan, Stream, Thumb, Tile
from special.serving.tile import TileRenderer
from special.settings import Settings
from special.storage import NotModified, Source, Span, Unless, body, open_source, runs_of
from special.volume import Volume
from special.workers import AdmissionController, Lane, Workers, standard_lanes

LARGE_PIXELS = 4_000_000
"""Full regions above this many pixels wait in a lane of their own."""


@dataclass(frozen=True, slots=True)
class InfoDocument:
    """info.json, and how it may be passed on."""

    document: dict[str, Any]
    level: int
    """The compliance level that it describes."""
    restricted: bool
    """Whether it is not everybody's."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request that may be answered, with the way to do it. Nothing has been read of any pixel."""

    asset: Asset
    plan: Plan
    job: Job
    """What was asked for, in pixels of `asset.size`."""
    grant: Grant
    canonical: str
    """`{region}/{size}/{rotation}/{quality}.{format}` in canonical form."""
    etag: str | None
    """The answer's entity tag, where it is known without asking the store."""
    stored: Stored | None = None
    """The master's own tile that is the answer as it lies, where there is one and its place is known."""
    final: bool = True
    """False where the master's index must be read first: then the plan may be better the next time."""

    @property
    def restricted(self) -> bool:
        """Whether the answer is not everybody's."""
        return self.asset.restricted


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What can be said of an answer that is not made."""

    media: str
    etag: str
    size: int | None
    """Length of the body in bytes, where it is known."""
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out, but for the headers."""

    body: bytes | AsyncGenerator[bytes, None]
    """A stream must be exhausted or closed."""
    media: str
    etag: str
    size: int
    """Length of the body in bytes."""
    modified: datetime | None = None
    span: Span | None = None
    """Which bytes of a larger object the body is; None for all of it."""
    total: int | None = None
    """Length of that larger object."""


class Engine:
    """One server's rooms, opened and joined."""

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        store: RenditionStore,
        masters: Masters,
        volume: Volume,
        workers: Workers,
    ) -> None:
        self.settings = settings
        self.source = source
        self.store = store
        self.masters = masters
        self.volume = volume
        self.workers = workers
        self.limits = Limits(settings.max_width, settings.max_height, settings.max_area, settings.upscaling)
        self._encoding = Encoding(jpeg_quality=settings.jpeg_quality, webp_quality=settings.webp_quality)
        self.admission = AdmissionController(_lanes(settings), budget_bytes=settings.decode_budget_bytes)
        self._pixels = MasterRenderer(settings, masters, workers, self.admission, self._encoding)
        reader = volume.reader(source)
        self._promoter = PyramidBuilder(
            self._pixels, volume, reader, after=settings.promote_after, tile=settings.tile_size
        )
        self._ahead = Prefetcher(volume, source, masters, is_busy=lambda: workers.busy) if settings.read_ahead else None
        self._tiles = TileRenderer(self._pixels, volume, reader, self._promoter, self._ahead)
        self._keeper = RenditionWriter(store, self._encoding) if settings.store_on_miss else None
        self.catalog = Catalog(store, masters, composition.rules(settings), tiling_for=self._promoter.tiling)
        self._hot_tiles: LRUCache[tuple[str, str], bytes] = LRUCache(int(settings.hot_size), len)
        self._stack = AsyncExitStack()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """An engine made as the settings say; it must be entered before use."""
        source = open_source(settings.source)
        thumbs = open_source(settings.thumbs_url, create=True)
        store = RenditionStore(thumbs, ttl_s=settings.asset_ttl_s, hot_bytes=int(settings.hot_size))
        volume = Volume(settings.volume_directory, size_bytes=int(settings.volume_size))
        masters = Masters(
            source,
            keys=settings.keys,
            ttl_s=settings.asset_ttl_s,
            max_gap_bytes=settings.max_gap_bytes,
            notes=volume.metadata,
        )
        workers = Workers(
            settings.decoders,
            memory_bytes=int(settings.decoder_memory),
            lanes=_lanes(settings),
        )
        return cls(settings, source=source, store=store, masters=masters, volume=volume, workers=workers)

    async def __aenter__(self) -> Self:
        """Start decoders and open the volume."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.source.close)
            stack.push_async_callback(self.store.close)
            stack.push_async_callback(self.masters.close)
            await stack.enter_async_context(self.volume)
            await stack.enter_async_context(self.workers)
            if self._keeper:
                stack.push_async_callback(self._keeper.close)
            stack.push_async_callback(self._promoter.close)
            if self._ahead is not None:
                stack.push_async_callback(self._ahead.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # What is known

    async def info(
        self, identifier: str, uri: str, *, version: Version, identity: Identity, services: Services = ()
    ) -> InfoDocument:
        """info.json at level 2, at 0 for those who may see less. `services` lead callers of restricted images on."""
        asset = await self.catalog.find(identifier)
        grant = access.grant(asset, identity)
        document = info.info(asset, uri, version=version, limits=self.limits, grant=grant, services=services)
        return InfoDocument(document, info.level(grant), asset.restricted)

    async def thumbs_info(
        self, identifier: str, uri: str, *, version: Version, identity: Identity, services: Services = ()
    ) -> InfoDocument:
        """info.json at level 0."""
        asset = await self.catalog.find_stored(identifier)
        grant = access.grant(asset, identity)
        document = info.info_thumbs(asset, uri, version=version, grant=grant, services=services)
        return InfoDocument(document, 0, asset.restricted)

    async def images(self, *, after: str, count: int) -> list[str]:
        """Some of the source's identifiers, in its own order. For the gallery; costs a listing."""
        found: list[str] = []
        listing = self.source.list("", after=after)
        async for blob in listing:
            found.append(blob.key)
            if len(found) == count:
                break
        return found

    # Plans

    async def plan(self, request: ImageRequest, *, version: Version, identity: Identity) -> PlannedRequest:
        """How to answer a request for any region and size. Raises `RequestError`, `Missing`, `MasterError`."""
        asset = await self.catalog.find(request.identifier)
        grant = access.grant(asset, identity)
        # `max` is what info.json tells this caller; any other size is refused by the grant, not cut down to it.
        bounded = isinstance(request.size.form, iiif.Max)
        limits = info.granted(self.limits, grant) if bounded else self.limits
        job = iiif.resolve(request, asset.size, version=version, limits=limits)
        plan = routing.plan(asset, job, grant)
        return self._planned(asset, plan, job, grant, version)

    async def plan_thumb(self, request: ImageRequest, *, version: Version, identity: Identity) -> PlannedRequest:
        """How to answer a request by stored renditions alone. Raises `RequestError`."""
        asset = await self.catalog.find_stored(request.identifier)
        grant = access.grant(asset, identity)
        job = routing.thumb_job(request, asset, grant, version=version)
        plan = routing.plan_thumb(asset, job, grant, upscale_percent=self.settings.upscale_percent)
        return self._planned(asset, plan, job, grant, version)

    def _planned(self, asset: Asset, plan: Plan, job: Job, grant: Grant, version: Version) -> PlannedRequest:
        canonical = iiif.canonical(job, asset.size, version=version, limits=self.limits, has_color=asset.has_color)
        etag = self._etag(plan.blob.etag, job) if isinstance(plan, Stream | Tile) else None
        planned = PlannedRequest(asset, plan, job, grant, canonical, etag)
        if not isinstance(plan, Tile):
            return planned
        master = self.catalog.master(asset)
        layout = self.masters.peek_prepared(master, job.box, job.size)
        if layout is None:
            return replace(planned, final=False)
        return replace(planned, stored=stored_tile(layout, job))

    def _etag(self, master_etag: str, job: Job) -> str:
        words = (PIXELS_VERSION, master_etag, job, self._encoding)
        return f'"{hashlib.sha256(repr(words).encode()).hexdigest()[:32]}"'

    # Routes

    def cached(self, planned: PlannedRequest, *, unless: Unless | None = None) -> Answer | None:
        """The answer, where it is in memory as it is sent: nothing is waited for, and nothing decoded.

        Raises `NotModified` where `unless` holds of what is known.
        """
        if unless and planned.etag and unless.hold(planned.etag):
            raise NotModified(planned.etag)
        if isinstance(planned.plan, Thumb):
            held = self.store.peek_rendition(planned.asset.identifier, planned.plan.rendition)
            if held is None:
                return None
            if unless and unless.hold(held.blob.etag, held.blob.modified):
                raise NotModified(held.blob.etag)
            return Answer(
                held.data,
                MEDIA[planned.plan.rendition.format],
                held.blob.etag,
                held.blob.size,
                modified=held.blob.modified,
            )
        if not isinstance(planned.plan, Tile) or planned.etag is None:
            return None
        name, blob = (planned.asset.identifier, planned.etag), planned.plan.blob
        data = self._hot_tiles.get(name)
        if data is not None:
            self.volume.in_use(blob)  # it is not evicted meanwhile: its other tiles will be asked for
        else:
            data = self._tiles.cached(blob, planned.job, planned.stored)
            if data is None:
                return None
            self._hot_tiles.put(name, data)
        return Answer(data, MEDIA["jpg"], planned.etag, len(data))

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        """Where a proxy can fetch the answer from its store by itself; None where it must be made or passed on."""
        if not isinstance(planned.plan, Thumb):
            return None
        return await self.store.source.link(planned.plan.rendition.key)

    async def answer(
        self, planned: PlannedRequest, *, unless: Unless | None = None, span: Span | None = None
    ) -> Answer:
        """Make the answer; `span` is what is wanted of a stored rendition that is copied.

        Raises `NotModified` where `unless` holds, before a decoder is troubled; `SourceError`, `MasterError`,
        `DecodeError`.
        """
        if unless and planned.etag and unless.hold(planned.etag):
            raise NotModified(planned.etag)
        match planned.plan:
            case Thumb(rendition):
                return await self._copied(planned.asset.identifier, rendition, unless, span)
            case Derivative(rendition, job):
                return await self._shrunk(planned.asset.identifier, rendition, job, unless)
            case Stream(_, job):
                return await self._from_master(planned, job, self._stream)
            case Tile(_, job):
                return await self._from_master(planned, job, self._tiles.render)

    async def head(self, planned: PlannedRequest, *, unless: Unless | None = None) -> AnswerHead:
        """What the headers of the answer say, without making it: one HEAD where a rendition would answer.

        Raises `NotModified`, and `SourceError`.
        """
        media, modified, size = MEDIA[planned.job.format], None, None
        etag = planned.etag
        if isinstance(planned.plan, Thumb | Derivative):
            blob = await self.store.stat_rendition(planned.asset.identifier, planned.plan.rendition)
            modified = blob.modified
            etag = blob.etag if isinstance(planned.plan, Thumb) else self._etag(blob.etag, planned.plan.job)
            size = blob.size if isinstance(planned.plan, Thumb) else None
        assert etag is not None, "what comes from the master has an entity tag from the start"
        if unless and unless.hold(etag, modified):
            raise NotModified(etag)
        return AnswerHead(media, etag, size, modified)

    async def _copied(self, identifier: str, rendition: Rendition, unless: Unless | None, span: Span | None) -> Answer:
        try:
            opened = await self.store.open_rendition(identifier, rendition, span=span, unless=unless)
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

    async def _shrunk(self, identifier: str, rendition: Rendition, job: Job, unless: Unless | None) -> Answer:
        if unless:  # who has it already need not wait for a decoder to hear so
            blob = await self.store.stat_rendition(identifier, rendition)
            if unless.hold(self._etag(blob.etag, job), blob.modified):
                raise NotModified(self._etag(blob.etag, job))
        memory_bytes = memory_estimate.rendition_bytes(rendition.size, job)
        deadline = Deadline.after(DEADLINES_S["tile"])
        async with self.admission.admit("tile", memory_bytes, deadline=deadline, client=trace().client) as admitted:
            with trace().reading():
                async with deadline.limit(f"reading {rendition.key}"):
                    opened = await self.store.open_rendition(identifier, rendition)
                    data = await body(opened)
            blob = opened.blob
            layout = solve(formats.parse(len(data)), data)
            # Another tool's sizes file may be a pixel off: what the object itself says, counts.
            fitted = replace(job, box=Box.whole(layout.size))
            piece = layout.rebuild(layout.extract(fitted.box, fitted.size), [data])
            data = await self._pixels.decode(piece, fitted, admitted, quarantine_key=f"{blob.url} {blob.etag}")
        return Answer(data, MEDIA[job.format], self._etag(blob.etag, job), len(data), modified=blob.modified)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        """The GETs that `run` would send, as spans of one object: renditions by their size, masters by their plan.

        Reads what the plan itself rests on (large tile indexes), and no pixel. Asks for nobody in particular: whose
        plan it is was decided when it was made.
        """
        match planned.plan:
            case Thumb(rendition) | Derivative(rendition, _):
                return [Span.whole(await self.store.source.stat(rendition.key))]
            case Stream(_, job) | Tile(_, job):
                master = await self.masters.find(planned.asset.identifier)
                layout = await self.masters.prepared(master, job.box, job.size, self.source)
                stored = stored_tile(layout, job)
                spans = stored.spans if stored else layout.extract(job.box, job.size).spans
                return runs_of(spans, max_gap_bytes=self.settings.max_gap_bytes)

    async def _from_master(
        self, planned: PlannedRequest, job: Job, show: Callable[[Master, Job], Awaitable[bytes]]
    ) -> Answer:
        identifier = planned.asset.identifier
        master = await self.masters.find(identifier)
        try:
            data = await show(master, job)
        except Changed:
            # Somebody has overwritten it: once more, from its new headers.
            self.masters.forget(identifier, master)
            master = await self.masters.find(identifier)
            if master.layout.size != planned.asset.size:
                raise
            data = await show(master, job)
        if self._keeper and isinstance(planned.plan, Stream):
            self._keeper.submit(planned.asset, master, job, data)
        etag = planned.etag if master.blob == planned.asset.blob else None
        return Answer(data, MEDIA[job.format], etag or self._etag(master.blob.etag, job), len(data))

    async def _stream(self, master: Master, job: Job) -> bytes:
        lane = "full" if job.output.area <= LARGE_PIXELS else "max"
        return await self._pixels.render(master, job, self.source, lane=lane)


def _lanes(settings: Settings) -> tuple[Lane, ...]:
    return *standard_lanes(settings.decoders), pyramid_builder.LANE
