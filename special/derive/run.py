"""One run of `special derive`, from its options to its exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from rich.console import Console

from special.derive import candidates, progress
from special.derive.candidates import Candidate, Naming
from special.derive.fleet import Pace, Work, derive_all
from special.derive.maker import Bounds, Draw, Maker
from special.derive.outcome import BAD
from special.derive.policy import DEFAULT_SIZES, Policy
from special.derive.progress import Bar, Display, JsonLines, Lines, Tally
from special.errors import ConfigurationError
from special.iiif import Job
from special.layout import Piece
from special.render import Encoding, Rendered, render_all
from special.settings import Settings
from special.sources import open_source
from special.spans import Source
from special.store import Store
from special.workers import Lane, Workers

DECODE_DEADLINE_S = 300.0
"""What one master may take to decode: nobody is waiting, so the dearest may have their time."""
READ_AHEAD = 2
"""Images that are read or written while as many as there are decoders are decoded."""

Task = Literal["make", "remake", "foresee", "verify"]
"""The default, `--force`, `--plan` and `--verify`."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one run is asked to do, beside the settings that it shares with the server."""

    task: Task = "make"
    sizes: str = DEFAULT_SIZES
    """As `Policy.parse` reads them."""
    max_unauthorised: int | None = None
    quality: int | None = None
    """Of JPEGs; None: the server's."""
    jobs: int | None = None
    """Decoder processes; None: as many as the settings say."""
    names_from: str | None = None
    """A file of identifiers, an S3 inventory, or `-`."""
    failed_to: Path | None = None
    """Where identifiers go that need another run; `names_from` takes it back."""
    prune: bool = False
    """Whether files that no sizes file names are taken away."""
    json: bool = False
    """Whether each outcome is a JSON object on standard output."""

    def policy(self, settings: Settings) -> Policy:
        """The renditions that every master should have. Raises `ConfigurationError`."""
        quality = self.quality or settings.jpeg_quality
        return Policy.parse(self.sizes, max_unauthorised=self.max_unauthorised, quality=quality)


async def run(
    settings: Settings,
    identifiers: Sequence[str],
    options: Options,
    *,
    out: TextIO = sys.stdout,
    console: Console | None = None,
) -> int:
    """Look after the renditions of the named images, or of all of the source's; 0 if all is well, 1 if not.

    Shows its progress and a summary on `console` (standard error). Raises `ConfigurationError` before any work.
    """
    console = console or Console(stderr=True, soft_wrap=True)
    policy = options.policy(settings)
    naming = Naming(settings.keys, settings.id_segments)
    tally = Tally()
    try:
        async with AsyncExitStack() as stack:
            source = open_source(settings.source)
            stack.push_async_callback(source.close)
            store = Store(open_source(settings.thumbs_url, create=True))
            stack.push_async_callback(store.close)
            if not identifiers and options.names_from is None:
                _refuse_renditions_as_masters(source, store.source)
            jobs = options.jobs or settings.decoders
            draw = (
                await _drawing(stack, settings, policy, jobs) if options.task in ("make", "remake") else _draw_nothing
            )
            maker = Maker(source, store, draw, policy, naming=naming, bounds=_bounds(settings))
            display = stack.enter_context(_display(options, out, console))
            failures = stack.enter_context(_failures(options.failed_to))
            if isinstance(display, Bar) and options.names_from != "-":
                stack.enter_context(_counting(_chosen(source, naming, identifiers, options), display))
            chosen = _chosen(source, naming, identifiers, options)
            pace = Pace(jobs + READ_AHEAD)
            outcomes = await stack.enter_async_context(aclosing(derive_all(chosen, _work(maker, options), pace=pace)))
            async for outcome in outcomes:
                tally.add(outcome)
                display.show(outcome, tally)
                if outcome.result in BAD:
                    failures.write(f"{outcome.identifier}\n")
                    failures.flush()
    finally:
        console.print(tally.summary(), markup=False, highlight=False)
    return 1 if tally.bad else 0


def _refuse_renditions_as_masters(source: Source, thumbs: Source) -> None:
    if thumbs.root.startswith(source.root):
        raise ConfigurationError(
            f"renditions at {thumbs.root} would be listed as masters of {source.root}: "
            "name a place outside it with --thumbs, or name the images"
        )


def _chosen(source: Source, naming: Naming, identifiers: Sequence[str], options: Options) -> AsyncIterator[Candidate]:
    if identifiers and options.names_from is not None:
        raise ConfigurationError("name images as arguments or in the file of --from, not both")
    if identifiers:
        return candidates.named(identifiers)
    if options.names_from is not None:
        return candidates.read(options.names_from, root=source.root, naming=naming)
    return candidates.listed(source, naming)


def _work(maker: Maker, options: Options) -> Work:
    match options.task:
        case "make":
            work = maker.make
        case "remake":
            work = maker.remake
        case "foresee":
            return maker.foresee
        case "verify":
            return maker.verify
    return maker.pruning(work) if options.prune else work


async def _drawing(stack: AsyncExitStack, settings: Settings, policy: Policy, jobs: int) -> Draw:
    """Decoder processes for as long as the stack is open."""
    lane = Lane(
        "derive", running=jobs, queue=READ_AHEAD, max_wait_s=DECODE_DEADLINE_S, deadline_s=2 * DECODE_DEADLINE_S
    )
    workers = Workers(jobs, memory_bytes=int(settings.decoder_memory), lanes=[lane], spare=0)
    await stack.enter_async_context(workers)
    encoding = Encoding(jpeg_quality=policy.quality)

    async def draw(piece: Piece, jobs: Sequence[Job]) -> Sequence[Rendered]:
        return await workers.run(render_all, piece, jobs, encoding, settings.max_master_pixels)

    return draw


async def _draw_nothing(piece: Piece, jobs: Sequence[Job]) -> Sequence[Rendered]:
    raise AssertionError("a run that only looks draws nothing")


def _bounds(settings: Settings) -> Bounds:
    return Bounds(int(settings.max_gap_bytes), int(settings.max_whole_bytes), settings.max_master_pixels)


@contextmanager
def _display(options: Options, out: TextIO, console: Console) -> Iterator[Display]:
    if options.json:
        yield JsonLines(out)
    elif console.is_terminal:
        with progress.bar(console) as shown:
            yield shown
    else:
        yield Lines(console)


@contextmanager
def _failures(path: Path | None) -> Iterator[TextIO]:
    """Where identifiers go that need another run."""
    try:
        file = open(path or os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConfigurationError(f"failed identifiers cannot be written to {path}: {error.strerror}") from None
    with file:
        yield file


@contextmanager
def _counting(chosen: AsyncIterator[Candidate], display: Bar) -> Iterator[None]:
    """Count all images beside the work on them: a listing is much faster, and then the time left is known."""

    async def count() -> None:
        total = 0
        async for _ in chosen:
            total += 1
        display.expect(total)

    task = asyncio.create_task(count())
    try:
        yield
    finally:
        task.cancel()
