"""One run of `special derive`, from its options to its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console

from special import composition
from special.derive import inputs, progress
from special.derive.cluster import derive_on_cluster
from special.derive.concurrency import BatchOptions, derive_all
from special.derive.inputs import InputImage
from special.derive.options import CONTINUES, READS_ONLY, Options
from special.derive.outcome import BAD, Outcome
from special.derive.plan import Consent
from special.derive.progress import Display, JsonLines, Lines, Notice, Report, Tally
from special.derive.queue_worker import QueueWorker
from special.derive.resources import IMAGES_AT_ONCE, ResourceOptions, Resources, check, open_read_only
from special.derive.sqs import SqsQueue
from special.derive.takedown import take_down
from special.errors import ConfigurationError, SpecialError
from special.formats import tiff
from special.images import LeftOut, PurgeList
from special.renditions import PyramidName
from special.serving import PIXELS_VERSION
from special.settings import Settings
from special.storage import Bucket, Folder, Source, check_apart
from special.workers import Begun

__all__ = ["Options", "derive_images", "forget_images"]


async def derive_images(
    settings: Settings,
    identifiers: Sequence[str],
    options: Options,
    *,
    out: TextIO | None = None,
    console: Console | None = None,
    begun: Begun | None = None,
) -> int:
    """Look after the renditions of the named images, or of all of the source's; 0, or 1 where any failed or is wrong.

    Outcomes as JSON go to `out` (standard output), progress and summary to `console` (standard error). Where it is
    cancelled, the console says what was done. `begun` is a decoder that gets ready already. Raises
    `ConfigurationError` before any work.
    """
    if identifiers and (options.names_from is not None or options.queue is not None):
        raise ConfigurationError("name images as arguments, or by --from or --queue, not both")
    console = console or Console(stderr=True, soft_wrap=True)
    for source in (settings.source, *(it.url for it in settings.sources)):
        check_apart(source, thumbs=settings.thumbs_url, home=settings.home, volume=settings.volume_directory)
    resource_options = resource_options_of(settings, options.consent, strict=options.strict, static=options.static)
    await check(resource_options)
    tally = Tally()
    try:
        async with _opened(resource_options, options, begun) as resources:
            if options.consent.open_restricted and options.task not in READS_ONLY:
                await _list_openings(resources, identifiers, options, console)
            if options.missing:
                await _require_masters(resources.source)
            outcomes = _outcomes(resources, resource_options, identifiers, options, tally)
            # What comes through a pipe or a queue comes once only, and is not counted.
            is_lasting = options.queue is None and not inputs.comes_once(options.names_from or "")
            countable = is_lasting and not options.quiet
            counted = _chosen(resources, identifiers, options) if countable else None
            with (
                _written(options.failed_to, "failed identifiers") as failures,
                _written(options.report, "the report") as report_file,
                _written(options.summary, "the summary") as summary,
                _display(options, out, console) as display,
                _counting(counted, tally) if counted is not None else nullcontext(),
            ):
                try:
                    await _follow(outcomes, tally, display, failures, Report(report_file))
                except asyncio.CancelledError:
                    tally.interrupted = True
                    raise
                finally:
                    summary.write(json.dumps(tally.plain()) + "\n")
    except asyncio.CancelledError:
        left = "" if tally.left is None else f"{tally.left:,} images are left. "
        done = "what is done is skipped" if options.task in CONTINUES else "it begins from the start"
        for line in (f"Interrupted. {tally.summary()}", *tally.notices(), f"{left}Run it again: {done}."):
            console.print(line, markup=False, highlight=False)
        raise
    always: tuple[Notice, ...] = ("would open", "would close") if options.task == "estimate" else ()
    if not options.quiet:
        for line in (tally.summary(), *tally.notices(always), *tally.estimate(settings.decoders)):
            console.print(line, markup=False, highlight=False)
        if settings.thumbs is None and tally.written:
            where = (
                f"The renditions are in {settings.thumbs_url}, where this user's servers look; --thumbs names a place."
            )
            console.print(where, markup=False, highlight=False)
    # What failed on its way through a queue comes again there.
    return 1 if tally.bad > options.allowed_failures and options.queue is None else 0


async def _require_masters(source: Source) -> None:
    """Raise `ConfigurationError` where all masters seem to be gone, or cannot be told from those that are denied."""
    if not isinstance(source, Bucket | Folder):
        raise ConfigurationError("--missing looks for masters in one source: leave out the catalogue")
    if await source.hides_absence() or await source.is_empty():
        raise ConfigurationError(
            f"{source.root} is empty, or does not say what is missing: permit s3:ListBucket, or correct the source"
        )


async def forget_images(settings: Settings, identifiers: Sequence[str], *, out: TextIO) -> int:
    """Remove all that is ours of these images, a line each on `out`; 1 where any failed. The masters stay.

    Raises `ConfigurationError` before any work.
    """
    options = resource_options_of(settings, Consent())
    await check(options)
    code = 0
    purges = PurgeList(settings.home / "purges")
    outcomes = take_down(options, identifiers, volume=settings.volume_directory, purges=purges)
    async for outcome in outcomes:
        code = 1 if outcome.result in BAD else code
        out.write(f"{outcome.result}: {outcome.identifier}: {outcome.detail}\n")
    return code


def resource_options_of(
    settings: Settings, consent: Consent, *, strict: bool = False, static: str | None = None
) -> ResourceOptions:
    """The part of the settings that a run works with. Raises `ConfigurationError`."""
    if static is not None and settings.base_url is None:
        raise ConfigurationError("--static needs to know where its files will be found: set base_url")
    return ResourceOptions(
        source=settings.source,
        thumbs=settings.thumbs_url,
        templates=composition.key_templates(settings),
        catalogue=composition.catalogue_options(settings),
        policy=composition.rendition_policy(settings),
        rules=composition.rules(settings),
        consent=consent,
        limits=replace(composition.read_limits(settings), strict=strict),
        decoders=settings.decoders,
        decoder_memory_bytes=int(settings.decoder_memory),
        memory_bytes=settings.decode_budget_bytes,
        pyramid_name=PyramidName(settings.tile_size, settings.jpeg_quality, PIXELS_VERSION),
        wanted_pyramids=tiff.WANTED[settings.pyramids],
        static=None if static is None else (static, (settings.base_url or "").rstrip("/")),
    )


def _opened(
    resource_options: ResourceOptions, options: Options, begun: Begun | None
) -> AbstractAsyncContextManager[Resources]:
    # On a cluster the decoders are elsewhere; this process only lists the images.
    return open_read_only(resource_options) if options.scheduler else options.open(resource_options, begun)


def _outcomes(
    resources: Resources, resource_options: ResourceOptions, identifiers: Sequence[str], options: Options, tally: Tally
) -> AsyncGenerator[Outcome, None]:
    generator, batching = resources.generator, BatchOptions(IMAGES_AT_ONCE)
    if options.queue is not None:
        follow = partial(generator.follow, gone=generator.retain if options.keep_removed else generator.remove)
        queue = SqsQueue(options.queue)
        worker = QueueWorker(queue, follow, resources.source.root, resources.templates, batching)
        return _follow_queue(replace(worker, catalogue=resources.catalogue))
    chosen = _chosen(resources, identifiers, options, tally.leave_out)
    if options.scheduler is not None:
        return derive_on_cluster(chosen, resource_options, options, scheduler=options.scheduler)
    return derive_all(chosen, options.work(resources), batching=batching)


async def _follow_queue(worker: QueueWorker) -> AsyncGenerator[Outcome, None]:
    """Follow a queue until SIGTERM or SIGINT, then finish what is under way."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with aclosing(worker.run(stop)) as outcomes:
            async for outcome in outcomes:
                yield outcome
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _chosen(
    resources: Resources,
    identifiers: Sequence[str],
    options: Options,
    leave_out: Callable[[str, LeftOut], None] = lambda key, why: None,
) -> AsyncIterator[InputImage]:
    if identifiers:
        images = inputs.named(identifiers)
    elif options.missing:
        images = inputs.stored(resources.store.source)
    elif options.names_from is not None:
        root, templates = resources.source.root, resources.templates
        images = inputs.read(options.names_from, root=root, templates=templates, catalogue=resources.catalogue)
    else:
        images = inputs.listed(resources.source, resources.templates, resources.catalogue, leave_out=leave_out)
    return inputs.matching(images, options.include, options.exclude)


async def _list_openings(resources: Resources, identifiers: Sequence[str], options: Options, console: Console) -> None:
    """Name and count the restricted images that the run opens, before it opens any: two GETs for each image."""
    images, count = _chosen(resources, identifiers, options), 0
    estimates = derive_all(images, resources.generator.estimate, batching=BatchOptions(IMAGES_AT_ONCE))
    async with aclosing(estimates):
        async for outcome in estimates:
            if outcome.access == "opened":
                count += 1
                console.print(f"opens: {outcome.identifier}", markup=False, highlight=False)
            elif outcome.result == "failed":
                console.print(f"may open: {outcome.identifier}: {outcome.detail}", markup=False, highlight=False)
    console.print(f"{count:,} restricted images will be opened.", markup=False, highlight=False)


async def _follow(
    outcomes: AsyncGenerator[Outcome, None], tally: Tally, display: Display, failures: TextIO, report: Report
) -> None:
    """Count and show outcomes until there are no more."""
    async with aclosing(outcomes):
        async for outcome in outcomes:
            tally.add(outcome)
            display.update(outcome, tally)
            report.add(outcome)
            if outcome.result in BAD:
                failures.write(f"{outcome.identifier}\n")
                failures.flush()


@contextmanager
def _display(options: Options, out: TextIO | None, console: Console) -> Iterator[Display]:
    if options.json:
        yield JsonLines(out or sys.stdout)
    elif options.quiet or not console.is_terminal:
        yield Lines(console, quiet=options.quiet)
    else:
        with progress.bar(console) as bar:
            yield bar
            bar.finish()


@contextmanager
def _written(path: Path | None, what: str) -> Iterator[TextIO]:
    """The file for what a run leaves behind, to be written from its start; without a path it goes nowhere."""
    try:
        file = open(path or os.devnull, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be written to {path}: {error.strerror}") from None
    with file:
        yield file


@contextmanager
def _counting(chosen: AsyncIterator[InputImage], tally: Tally) -> Iterator[None]:
    """Count all images beside the work on them: a listing is much faster, and then it is known what is left."""

    async def count() -> None:
        total = 0
        try:
            async for _ in chosen:
                total += 1
        except SpecialError:
            return  # the work goes through the same list and will say so
        tally.expected = total

    task = asyncio.create_task(count())
    try:
        yield
    finally:
        task.cancel()
