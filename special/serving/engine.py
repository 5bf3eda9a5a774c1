"""One open server's services: from a request to its plan, and from the plan to the answer by its route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from special import iiif
from special.auth import ANONYMOUS, Grant, Identity, access
from special.catalogue import Caller, GuardedHooks
from special.concurrency import Deadline
from special.errors import Archived, Denied, Missing, NotFound, RequestError
from special.iiif import ImageRequest, Job, Limits, Version
from special.images import Asset, Description
from special.serving import info, routing
from special.serving.answers import Access, Answer, AnswerHead, InfoDocument, PlannedRequest, Route
from special.serving.catalog import Catalog
from special.serving.gallery import Gallery
from special.serving.info import Services
from special.serving.routing import LaneName, Plan, Thumb
from special.storage import Source, Span, Unless
from special.workers import AdmissionController


@dataclass(frozen=True, slots=True)
class Resources:
    """What an engine opens when it starts and closes when it stops."""

    opened: tuple[AbstractAsyncContextManager[object], ...] = ()
    """Entered in this order, left in reverse: volume, decoders."""
    closed_last: tuple[Callable[[], Awaitable[object]], ...] = ()
    """Called after those were left: sources."""
    closed_first: tuple[Callable[[], Awaitable[object]], ...] = ()
    """Called before those are left: background work."""


class Engine:
    """Plans requests and answers them. Enter it before use; `special.composition` makes it from settings."""

    def __init__(
        self,
        catalog: Catalog,
        routes: Mapping[str, Route],
        *,
        source: Source,
        hooks: GuardedHooks | None = None,
        description: Description = Description(),  # noqa: B008 - immutable
        measures: bool = False,
        admission: AdmissionController,
        resources: Resources,
        limits: Limits,
        upscale_percent: int,
        deadlines_s: Mapping[LaneName, float],
        is_ready: Callable[[], bool],
        remove: Callable[[str, Sequence[str]], Awaitable[None]],
    ) -> None:
        """`routes` by the name of the plan; `deadlines_s`: seconds from arrival to answer, by lane.

        `remove` takes an image's tiles from memory, and its master's URLs from the volume. `description`: what is said
        of every image of which the catalogue does not say otherwise. `measures`: whether info.json has the physical
        dimensions of images whose masters tell their resolution.
        """
        self.catalog = catalog
        self.source = source
        self.hooks = hooks
        self.description = description
        self._measures = measures
        self.gallery = Gallery(source, catalog.templates, catalog.catalogue)
        self.admission = admission
        self.limits = limits
        self.deadlines_s = deadlines_s
        self._routes = routes
        self._resources = resources
        self._upscale_percent = upscale_percent
        self._is_ready = is_ready
        self._remove = remove
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the volume and start decoders."""
        async with AsyncExitStack() as stack:
            for close in self._resources.closed_last:
                stack.push_async_callback(close)
            for resource in self._resources.opened:
                await stack.enter_async_context(resource)
            for close in (*self._resources.closed_first, self.gallery.close):
                stack.push_async_callback(close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def close(self) -> None:
        """Close an engine that was never entered: it plans and estimates, and answers nothing."""
        for close in reversed(self._resources.closed_last):
            await close()

    @property
    def ready(self) -> bool:
        """Whether any decoder is up."""
        return self._is_ready()

    async def purge(self, identifier: str) -> None:
        """Forget all that this process has in memory of an image, and remove its master from the volume.

        Nothing is removed from the store. What is being read at the moment stays until the next purge.
        """
        urls = await self.catalog.purge(identifier)
        await self._remove(identifier, urls)

    # Documents

    async def info(
        self, identifier: str, uri: str, *, version: Version, identity: Identity, services: Services = ()
    ) -> InfoDocument:
        """info.json at level 2, at level 0 for callers who may see less. `services` lead them to a login."""
        asset = await self._find(identifier)
        if asset.blob is None:
            return await self.thumbs_info(identifier, uri, version=version, identity=identity, services=services)
        grant = access.grant(asset, identity)
        seen: Access = "full" if grant.unlimited else "part" if grant.max_side else "none"
        described = Grant() if seen == "none" else grant
        document = info.info(asset, uri, version=version, limits=self.limits, grant=described, services=services)
        document = await self._described(document, asset, version)
        return InfoDocument(document, info.level(described), asset, seen, grant.is_personal)

    async def thumbs_info(
        self, identifier: str, uri: str, *, version: Version, identity: Identity, services: Services = ()
    ) -> InfoDocument:
        """info.json of `/thumbs/`, at level 0."""
        asset = await self.catalog.find_stored(identifier)
        grant = access.grant(asset, identity)
        seen: Access = "full" if grant.unlimited else "part" if info.listed_thumbs(asset, grant) else "none"
        described = Grant() if seen == "none" else grant
        document = info.info_thumbs(asset, uri, version=version, grant=described, services=services)
        return InfoDocument(await self._described(document, asset, version), 0, asset, seen, grant.is_personal)

    async def _described(self, document: dict[str, Any], asset: Asset, version: Version) -> dict[str, Any]:
        """With what settings, catalogue and the operator's own code say of the image."""
        said = asset.description.over(self.description) if asset.description is not None else self.description
        document = info.described(document, said, version)
        if self._measures and asset.density is not None:
            document = info.measured(document, asset.density)
        if self.hooks is None or not self.hooks.describes:
            return document
        entry = await self.catalog.entry(asset.identifier)
        image, _ = self.catalog.form.split(asset.identifier)
        return {**await self.hooks.describe(image, entry, document), **document}

    # Callers

    @property
    def authorises(self) -> bool:
        """Whether the operator's own code is to be asked who may see what of an image."""
        return self.hooks is not None and self.hooks.judges

    async def authorised(self, identity: Identity, caller: Caller) -> Identity:
        """The identity with what the operator's own code allows it of one image. Raises `Missing`, `HookError`."""
        assert self.hooks is not None, "there is such code"
        identifier = self.catalog.form.join(caller.identifier, caller.page)
        verdict = await self.hooks.verdict(caller, await self.catalog.entry(identifier))
        return replace(identity, verdict=verdict)

    async def _find(self, identifier: str) -> Asset:
        """The image; what is stored of it, where its master is gone, archived or denied. Raises as `Catalog.find`."""
        try:
            return await self.catalog.find(identifier)
        except (Missing, Denied, Archived) as fault:
            try:
                return await self.catalog.find_stored(identifier)
            except NotFound:
                raise fault from None

    # Plans

    async def plan(self, request: ImageRequest, *, version: Version, identity: Identity) -> PlannedRequest:
        """How to answer a request for any region and size. Raises `RequestError`, `Missing`, `MasterError`."""
        asset = await self._find(request.identifier)

        def choose(grant: Grant) -> tuple[Job, Plan]:
            # `max` is what info.json tells this caller; any other size is refused by the grant, not cut down to it.
            bounded = isinstance(request.size.form, iiif.Max)
            limits = info.granted(self.limits, grant) if bounded else self.limits
            job = _marked(iiif.resolve(request, asset.size, version=version, limits=limits), asset, identity)
            return job, routing.plan(asset, job, grant)

        return self._planned(asset, identity, choose, version)

    async def plan_thumb(self, request: ImageRequest, *, version: Version, identity: Identity) -> PlannedRequest:
        """How to answer a request by stored renditions alone. Raises `RequestError`."""
        routing.check_thumb(request)
        asset = await self.catalog.find_stored(request.identifier)
        bounds = request.size.form.bounds if isinstance(request.size.form, iiif.Within) else None

        def choose(grant: Grant) -> tuple[Job, Plan]:
            job = _marked(routing.thumb_job(request, asset, grant, version=version), asset, identity)
            plan = routing.plan_thumb(asset, job, grant, bounds=bounds, upscale_percent=self._upscale_percent)
            # What the canonical link names is what is sent.
            return replace(job, size=plan.rendition.size) if isinstance(plan, Thumb) else job, plan

        return self._planned(asset, identity, choose, version)

    def _planned(
        self, asset: Asset, identity: Identity, choose: Callable[[Grant], tuple[Job, Plan]], version: Version
    ) -> PlannedRequest:
        grant = access.grant(asset, identity)
        job, plan = choose(grant)
        private = grant.is_personal
        if asset.restricted and not private:
            try:
                private = any(choose(it) != (job, plan) for it in (access.grant(asset, ANONYMOUS), Grant()))
            except RequestError:
                private = True
        canonical = iiif.canonical(job, asset.size, version=version, limits=self.limits, has_color=asset.has_color)
        route = self._routes[plan.name]
        return route.complete(PlannedRequest(asset, plan, job, grant, canonical, route, private=private))

    # Answers

    def cached(self, planned: PlannedRequest, *, unless: Unless | None = None) -> Answer | None:
        """The answer, if it is in memory as it is sent. Raises `NotModified`."""
        return planned.route.cached(planned, unless=unless)

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None = None, span: Span | None = None
    ) -> Answer:
        """Make the answer by its route; see `Route.answer`."""
        return await planned.route.answer(planned, deadline=deadline, unless=unless, span=span)

    async def head(self, planned: PlannedRequest, *, unless: Unless | None = None) -> AnswerHead:
        """What the headers of the answer say, without making it. Raises `NotModified`, and `SourceError`."""
        return await planned.route.head(planned, unless=unless)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        """The GETs that `answer` would send, as spans of one object."""
        return await planned.route.estimate(planned)

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        """Where a proxy can fetch the answer from its store; None where it must be made or passed on."""
        return await planned.route.signed_url(planned)


def _marked(job: Job, asset: Asset, identity: Identity) -> Job:
    """The job with what the operator's own code draws over its region for this caller."""
    verdict = identity.verdict
    if verdict is None or not verdict.marks:
        return job
    marks = (mark.of_region(job.box, asset.size) for mark in verdict.marks)
    return replace(job, marks=tuple(mark for mark in marks if mark is not None))
