"""What a run works with, opened and closed together: masters, renditions, decoders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from special.codecs import Rendered, render_all
from special.concurrency import Deadline
from special.derive.generator import Decode, Generator
from special.derive.inputs import Naming
from special.derive.policy import Policy
from special.formats import Piece
from special.iiif import Job
from special.renditions import RenditionStore
from special.serving import ReadLimits
from special.settings import Settings
from special.storage import RetryPolicy, Source, check_source, open_source
from special.workers import Lane, Workers

DECODE_DEADLINE_S = 300.0
"""What one master may take to decode: nobody is waiting, so the dearest may have their time."""
READ_AHEAD = 2
"""Masters that are read while as many as there are decoders are decoded: so many are in memory at once."""
IMAGES_AT_ONCE = 32
"""Images under way at once. Most wait for the store, for an answer of a few bytes."""
OVERNIGHT = RetryPolicy(deadline_s=120.0, retries=20, budgeted=False)
"""A store that asks for less haste is waited for: nobody else is waiting, and a failed image is one to look after."""
AT_START = replace(OVERNIGHT, deadline_s=30.0)
"""One that does not answer at all is told of while somebody is still looking."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The rooms that a run goes through."""

    source: Source
    store: RenditionStore
    maker: Generator
    naming: Naming


async def check(settings: Settings) -> None:
    """Find out what no image could be made with. Raises `ConfigurationError`; costs a GET of each place."""
    await check_source(settings.source, patience=AT_START)
    await check_source(settings.thumbs_url, create=True, patience=AT_START)


@asynccontextmanager
async def open_read_only(settings: Settings, policy: Policy) -> AsyncIterator[Resources]:
    """Rooms for a run that only looks: there are no decoders."""
    async with AsyncExitStack() as stack:
        yield _rooms(stack, settings, policy, _draw_nothing)


@asynccontextmanager
async def open_with_decoders(settings: Settings, policy: Policy) -> AsyncIterator[Resources]:
    """Rooms for a run that makes renditions, with as many decoder processes as the settings say."""
    async with AsyncExitStack() as stack:
        yield _rooms(stack, settings, policy, await _drawing(stack, settings, policy))


def _rooms(stack: AsyncExitStack, settings: Settings, policy: Policy, draw: Decode) -> Resources:
    source = open_source(settings.source, patience=OVERNIGHT)
    stack.push_async_callback(source.close)
    store = RenditionStore(open_source(settings.thumbs_url, create=True, patience=OVERNIGHT))
    stack.push_async_callback(store.close)
    naming = Naming(settings.keys, settings.id_segments)
    bounds = ReadLimits.of(settings)
    at_once = _masters_at_once(settings)
    maker = Generator(source, store, draw, policy, naming=naming, bounds=bounds, masters_at_once=at_once)
    return Resources(source, store, maker, naming)


def _masters_at_once(settings: Settings) -> int:
    return settings.decoders + READ_AHEAD


async def _drawing(stack: AsyncExitStack, settings: Settings, policy: Policy) -> Decode:
    """Decoder processes for as long as the stack is open."""
    lane = Lane(
        "derive",
        running=settings.decoders,
        queue=_masters_at_once(settings),  # all of them, while decoders start or are replaced
        deadline_s=2 * DECODE_DEADLINE_S,
    )
    memory_bytes = int(settings.decoder_memory)
    workers = await stack.enter_async_context(
        Workers(settings.decoders, memory_bytes=memory_bytes, lanes=[lane], spare=0)
    )

    async def draw(piece: Piece, jobs: Sequence[Job]) -> Sequence[Rendered]:
        deadline = Deadline.after(lane.deadline_s)
        return await workers.run(render_all, piece, jobs, policy.care, settings.max_master_pixels, deadline=deadline)

    return draw


async def _draw_nothing(piece: Piece, jobs: Sequence[Job]) -> Sequence[Rendered]:
    raise AssertionError("a run that only looks draws nothing")
