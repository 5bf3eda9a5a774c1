"""What a run works with, opened and closed together: masters, renditions, decoders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from special.auth import Rules
from special.catalogue import Catalogue, CatalogueOptions, open_catalogue, open_hooks, open_sources
from special.codecs import Rendered, render_all
from special.concurrency import Deadline
from special.derive.generator import Decode, Generator
from special.derive.plan import Consent
from special.derive.pyramids import PyramidPublisher
from special.derive.static import StaticWriter
from special.formats import Piece
from special.formats.tiff import Wanted
from special.iiif import Job
from special.images import KeyTemplates, Masters
from special.renditions import Policy, PyramidName, RenditionStore
from special.serving import MasterRenderer, PyramidMaker, ReadLimits
from special.storage import RetryPolicy, Source, check_source, open_source
from special.workers import AdmissionController, Begun, Lane, Workers

DECODE_DEADLINE_S = 300.0
"""What one master may take to decode: no client is waiting, so the most expensive may have their time."""
LANE = "derive"
PREFETCHED_MASTERS = 2
"""Masters that are read while as many as there are decoders are decoded; all of them are in memory."""
IMAGES_AT_ONCE = 32
"""Images in progress at once. Most wait for the store, for an answer of a few bytes."""
LONG_RETRY = RetryPolicy(deadline_s=120.0, retries=20, budgeted=False)
"""A throttling store is waited for: no client is waiting, and each failed image costs the operator another run."""
START_RETRY = replace(LONG_RETRY, deadline_s=30.0)
"""A store that does not answer at all is reported while the operator is still at the terminal."""


@dataclass(frozen=True, slots=True)
class ResourceOptions:
    """The part of the settings that a run works with. A cluster sends it to its workers."""

    source: str
    """URL of the masters."""
    thumbs: str
    """URL of the renditions."""
    templates: KeyTemplates
    catalogue: CatalogueOptions | None
    """What says where masters are; None where one source and its key templates do."""
    policy: Policy
    rules: Rules
    """The operator's access rules; no rendition is opened beyond them."""
    consent: Consent
    limits: ReadLimits
    decoders: int
    """Decoder processes."""
    decoder_memory_bytes: int
    """Address space of each of them."""
    memory_bytes: int
    """Memory for all pyramids that are made at a time."""
    pyramid_name: PyramidName
    wanted_pyramids: Wanted
    """Which masters get pyramids, where any do."""
    static: tuple[str, str] | None = None
    """Where static tile sets are written, and where they will be found; None: nowhere."""

    @property
    def masters_at_once(self) -> int:
        """Maximum number of masters in memory."""
        return self.decoders + PREFETCHED_MASTERS


@dataclass(frozen=True, slots=True)
class Resources:
    """What is open for as long as a run takes."""

    source: Source
    store: RenditionStore
    generator: Generator
    pyramids: PyramidPublisher
    static: StaticWriter | None
    templates: KeyTemplates
    catalogue: Catalogue | None


async def check(options: ResourceOptions) -> None:
    """Find out what no image could be made with. Raises `ConfigurationError`; costs a GET of each place."""
    for url, s3 in options.catalogue.sources if options.catalogue else ((options.source, None),):
        await check_source(url, retry_policy=START_RETRY, s3=s3)
    await check_source(options.thumbs, create=True, retry_policy=START_RETRY)


@asynccontextmanager
async def open_read_only(options: ResourceOptions) -> AsyncIterator[Resources]:
    """Resources for a run that decodes nothing: there are no decoder processes."""
    async with AsyncExitStack() as stack:
        yield _resources(stack, options, None)


@asynccontextmanager
async def open_with_decoders(options: ResourceOptions, begun: Begun | None = None) -> AsyncIterator[Resources]:
    """Resources for a run that makes renditions, with as many decoder processes as the options say.

    `begun` is the first of them, where it gets ready already.
    """
    async with AsyncExitStack() as stack:
        yield _resources(stack, options, await _decoders(stack, options, begun))


def _resources(stack: AsyncExitStack, options: ResourceOptions, workers: Workers | None) -> Resources:
    source: Source
    catalogue: Catalogue | None = None
    if options.catalogue is None:
        source = open_source(options.source, retry_policy=LONG_RETRY)
    else:
        source = sources = open_sources(options.catalogue.sources, retry_policy=LONG_RETRY)
        hooks = open_hooks(options.catalogue)
        catalogue = open_catalogue(options.catalogue, sources, hooks)
        stack.push_async_callback(catalogue.close)
        if hooks is not None:
            stack.push_async_callback(hooks.close)
    stack.push_async_callback(source.close)
    store = RenditionStore(open_source(options.thumbs, create=True, retry_policy=LONG_RETRY))
    stack.push_async_callback(store.close)
    generator = Generator(
        source,
        store,
        _decode_by(workers, options) if workers else _decode_nothing,
        options.policy,
        rules=options.rules,
        consent=options.consent,
        templates=options.templates,
        catalogue=catalogue,
        bounds=options.limits,
        masters_at_once=options.masters_at_once,
        pyramid_name=options.pyramid_name,
    )
    masters = Masters(
        source,
        templates=options.templates,
        max_gap_bytes=options.limits.max_gap_bytes,
        pdf_dpi=options.limits.pdf_dpi,
        locator=catalogue,
    )
    stack.push_async_callback(masters.close)
    pyramid_maker, static = None, None
    if workers is not None:
        admission = AdmissionController([_lane(options)], budget_bytes=options.memory_bytes)
        # Static tiles are sRGB: none of them has a profile.
        encoding = replace(options.policy.qualities, keep_profile=False) if options.static else options.policy.qualities
        renderer = MasterRenderer(masters, workers, admission, encoding, options.limits)
        pyramid_maker = PyramidMaker(renderer, source, options.pyramid_name.tile, lane=LANE)
        if options.static is not None:
            target = open_source(options.static[0], create=True, retry_policy=LONG_RETRY)
            stack.push_async_callback(target.close)
            static = StaticWriter(store, masters, pyramid_maker, target, options.static[1])
    pyramids = PyramidPublisher(store, masters, options.pyramid_name, pyramid_maker, options.wanted_pyramids)
    return Resources(source, store, generator, pyramids, static, options.templates, catalogue)


def _lane(options: ResourceOptions) -> Lane:
    return Lane(
        LANE,
        running=options.decoders,
        queue=IMAGES_AT_ONCE,  # all images in progress, while decoders start or are replaced
        deadline_s=2 * DECODE_DEADLINE_S,
    )


async def _decoders(stack: AsyncExitStack, options: ResourceOptions, begun: Begun | None) -> Workers:
    """Decoder processes for as long as the stack is open."""
    return await stack.enter_async_context(
        Workers(
            options.decoders,
            memory_bytes=options.decoder_memory_bytes,
            lanes=[_lane(options)],
            spare=0,
            begun=begun,
        )
    )


def _decode_by(workers: Workers, options: ResourceOptions) -> Decode:
    async def decode(piece: Piece, jobs: Sequence[Job]) -> Sequence[Rendered]:
        deadline = Deadline.after(DECODE_DEADLINE_S)
        return await workers.run(
            render_all,
            piece,
            jobs,
            options.policy.qualities,
            options.limits.max_pixels,
            deadline=deadline,
        )

    return decode


async def _decode_nothing(piece: Piece, jobs: Sequence[Job]) -> Sequence[Rendered]:
    raise AssertionError("a run that only reads decodes nothing")
