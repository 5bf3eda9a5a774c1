"""One run of `special compare`, from its options to its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import ClientSession
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn
from rich.table import Column, Table

from special.compare import report, sample
from special.compare.differences import DifferenceKind, compare
from special.compare.reads import Meter, Prices
from special.compare.sample import Request, Sample
from special.compare.servers import NoAnswer, Pace, Recorded, Recording, Server, WebServer, session
from special.compare.totals import Totals
from special.errors import ConfigurationError, SpecialError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked, how fast, and what counts."""

    old: str
    """Address of the old server, or the file of a recording of it."""
    new: str | None = None
    """Address of the new server; None: the old one is recorded, and nothing compared."""
    prefix: str | None = None
    """What the addresses of the log begin with; None: the path of `old`."""
    limit: int = 10_000
    """Maximum number of lines that are asked."""
    rate: float = 10.0
    """Maximum number of requests a second to each server."""
    concurrency: int = 4
    """Maximum number of addresses that are asked at a time."""
    psnr_db: float = 30.0
    """Pictures that are less alike differ."""
    ignore: frozenset[DifferenceKind] = frozenset({"headers"})
    """Kinds of differences that do not count."""
    tolerate_percent: float = 0.0
    """How many of the requests may differ."""
    record: Path | None = None
    """Where the old server's answers are recorded."""
    prices: Prices = field(default_factory=Prices)
    report: Path | None = None
    """Where the HTML report is written."""
    json: bool = False
    """Whether all of the report is printed, as JSON."""


async def run(logs: Sequence[str], options: Options, *, out: Console, progress: Console) -> int:
    """Ask both servers and report: 0 where no more differ than are tolerated, 1 otherwise.

    Where it is cancelled it reports on what was asked. Raises `ConfigurationError` where something cannot work, before
    the log is asked.
    """
    if options.new is None and options.record is None:
        raise ConfigurationError("name the new server with --new, or a file to record the old one to with --record")
    if options.report and not options.report.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder for the report {options.report}")
    with ExitStack() as stack:
        recording = None if _is_url(options.old) else stack.enter_context(closing(Recording.load(Path(options.old))))
        chosen = _chosen(logs, options, recording)
        async with session() as connections:
            old: Server = recording or await _reached(options.old, connections, options.rate)
            new = None if options.new is None else await _reached(options.new, connections, options.rate)
            if options.record:
                old = Recorded(old, stack.enter_context(closing(Recording.create(options.record))))
            if new is None:
                with _bar(progress, len(chosen.requests)) as advance:
                    await _for_each(chosen.requests, options.concurrency, _recorder(old, advance))
                return 0
            totals, interrupted = Totals(options.ignore), False
            before = Meter.of(await new.page("metrics"))
            with _bar(progress, len(chosen.requests)) as advance:
                work = _comparer(old, new, totals, options, advance)
                try:
                    await _for_each(enumerate(chosen.requests), options.concurrency, work)
                except asyncio.CancelledError:
                    interrupted = True
            after = Meter.of(await new.page("metrics"))
    metered = {"gets": after.gets - before.gets, "bytes": after.bytes - before.bytes} if before and after else None
    document = _document((old.base, new.base), chosen, totals, options)
    document |= {"metered": metered, "interrupted": interrupted}
    if options.report:
        page = await asyncio.to_thread(report.html, document, totals)
        await asyncio.to_thread(options.report.write_text, page, encoding="utf-8")
    if options.json:
        out.file.write(report.plain_json(document) + "\n")
    else:
        _print(document, out)
    if interrupted:
        progress.print(f"Interrupted: {document['addresses']:,} of {len(chosen.requests):,} addresses were asked.")
        raise asyncio.CancelledError
    return 0 if document["alike"] else 1


def _recorder(old: Server, advance: Callable[[], None]) -> Callable[[Request], Awaitable[None]]:
    async def record(request: Request) -> None:
        await old.ask(request.path)
        advance()

    return record


def _comparer(
    old: Server, new: Server, totals: Totals, options: Options, advance: Callable[[], None]
) -> Callable[[tuple[int, Request]], Awaitable[None]]:
    async def ask(numbered: tuple[int, Request]) -> None:
        number, request = numbered
        # One after the other, so that they do not slow each other down; and in turns, since the second one may find
        # warm what the first one read.
        if number % 2:
            after = await new.ask(request.path)
            before = await old.ask(request.path)
        else:
            before = await old.ask(request.path)
            after = await new.ask(request.path)
        bases = old.base, new.base
        found = await asyncio.to_thread(compare, request, before, after, bases=bases, psnr_db=options.psnr_db)
        totals.add(found, before, after)
        advance()

    return ask


async def _for_each(items: Iterable[T], concurrency: int, work: Callable[[T], Awaitable[None]]) -> None:
    remaining = iter(items)

    async def take() -> None:
        for item in remaining:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(take())
    except* SpecialError as failed:
        raise failed.exceptions[0] from None


def _chosen(logs: Sequence[str], options: Options, recording: Recording | None) -> Sample:
    if recording and not logs:
        found = sample.distinct(recording.paths())
        return Sample(found, len(found), 0)
    if not logs:
        raise ConfigurationError("name an access log or a list of URLs, or - for standard input")
    if options.prefix is None and recording:
        raise ConfigurationError("--prefix says what the addresses of the log begin with: a recording has no address")
    prefix = options.prefix if options.prefix is not None else _target(options.old)
    chosen = sample.read(logs, prefix=prefix, limit=options.limit)
    if not chosen.requests:
        raise ConfigurationError(
            f"none of the {chosen.others:,} lines is a GET of an image or info.json below '{prefix}': "
            "--prefix says what their addresses begin with"
        )
    return chosen


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _base(url: str) -> str:
    """What paths are appended to."""
    if not (_is_url(url) and urlsplit(url).hostname):
        raise ConfigurationError(f"'{url}' is no address of a server, such as https://example.org/iiif/2")
    return url if url.endswith(("/", "=")) else f"{url}/"


def _target(url: str) -> str:
    """Path and query of a base, as its requests have it in a log."""
    parts = urlsplit(_base(url))
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


async def _reached(url: str, connections: ClientSession, rate: float) -> WebServer:
    server = WebServer(_base(url), connections, Pace(rate))
    answer = await server.ask("")
    if isinstance(answer, NoAnswer):
        raise ConfigurationError(f"{server.base} does not answer: {answer.reason}")
    return server


def _document(bases: tuple[str, str], chosen: Sample, totals: Totals, options: Options) -> dict[str, Any]:
    return {
        "old": bases[0],
        "new": bases[1],
        "alike": totals.differing_percent <= options.tolerate_percent,
        "tolerated_percent": options.tolerate_percent,
        "psnr_db": options.psnr_db,
        "log": {"fitting": chosen.fitting, "others": chosen.others},
        **totals.plain(),
        "reads": totals.reads.plain(options.prices),
    }


def _print(document: dict[str, Any], out: Console) -> None:
    table = Table("difference", Column("addresses", justify="right"), Column("lines", justify="right"), "most frequent")
    for kind, it in document["differences"].items():
        frequent = next(iter(it["details"]))
        counts = "" if kind not in document["ignored"] else " (does not count)"
        table.add_row(f"{kind}{counts}", f"{it['addresses']:,}", f"{it['lines']:,}", escape(frequent))
    if table.row_count:
        out.print(table)
    for kind, it in document["requests"].items():
        old, new = ("/".join(f"{ms:g}" for ms in it[side].values()) or "–" for side in ("old_ms", "new_ms"))
        out.print(f"{kind}: {it['addresses']:,} addresses; p50/p95/p99 {old} ms → {new} ms", highlight=False)
    reads = document["reads"]
    if reads["answers"]:
        each = reads["per_1000"]
        out.print(
            f"the new server read {each['gets']:,.0f} GETs and {each['bytes']:,.0f} bytes for 1,000 requests: "
            f"{each['cost']:.6f} {reads['prices']['currency']}",
            highlight=False,
        )
    out.print(
        f"{document['differing_percent']:.2f} % of {document['lines']:,} requests differ; "
        f"{document['tolerated_percent']:g} % are tolerated.",
        highlight=False,
    )


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, and nothing elsewhere; yields what moves it on by one."""
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("requests", total=total)
        yield lambda: progress.advance(task)
