"""What a whole collection is made of, found by its masters' headers alone: `special inspect SOURCE --scan`.

Masters of one kind share a row: how many there are, what the first view and a tile of the largest one read, whether the
server will make a pyramid of each, and what would make them cheap. What is refused is listed by its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table

from special import formats
from special.errors import MasterError, Missing, NotAnImage, SourceError
from special.formats import Layout, drive
from special.formats.tiff import Grid, TiffLayout, Wanted
from special.geometry import Box, Size
from special.images import KeyTemplates
from special.storage import Blob, Chunk, Source, Span, body, runs_of

AT_ONCE: Final = 32
"""Masters whose headers are read at once."""
HEAD_BYTES: Final = 65536
MAX_LISTED: Final = 10
"""Identifiers that are named of each reason for a refusal; the others are counted."""
FIRST_VIEW: Final = 200
"""Longest side of the first view, a thumbnail."""
TILE: Final = 512
"""Side of the tile in the middle, at full resolution."""

TO_PYRAMID: Final = (
    "vips tiffsave IN OUT.tif --tile --pyramid --tile-width 512 --tile-height 512 --compression jpeg --Q 90"
)
TO_INDEXED: Final = "opj_compress -i IN.tif -o OUT.jp2 -n 7 -p RPCL -PLT -TLM -TP R -t 1024,1024"
"""Commands that make masters cheap: libvips' own, and OpenJPEG's."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request reads."""

    gets: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.gets} · {self.bytes:,}"


NOTHING: Final = Cost(0, 0)


@dataclass(slots=True)
class Kind:
    """Masters that are stored alike."""

    count: int = 0
    bytes: int = 0
    largest: Size | None = None
    first_view: Cost = NOTHING
    """Of the largest one."""
    tile: Cost = NOTHING
    has_pyramids: bool = False
    """Whether the server makes a pyramid of any of them."""
    advice: dict[str, None] = field(default_factory=dict)
    """What to know of them, each sentence once."""


@dataclass(slots=True)
class Findings:
    """What was found so far."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Identifiers by reason."""
    unread: dict[str, list[str]] = field(default_factory=dict)
    """Those that the store did not give."""
    others: int = 0
    """Objects that are no pictures."""

    @property
    def exit_code(self) -> int:
        """1 where an image cannot be shown or could not be read."""
        return int(bool(self.refused or self.unread))

    def add(self, blob: Blob, layout: Layout, tile: int, wanted: Wanted, *, max_gap_bytes: int) -> None:
        """Count a master that can be shown."""
        grid = Grid(layout.size, tile)
        kind = self.kinds.setdefault(name_of(layout), Kind())
        kind.count += 1
        kind.bytes += blob.size
        kind.has_pyramids |= wanted(layout, grid)
        kind.advice |= dict.fromkeys(layout.advice[: MAX_LISTED - len(kind.advice)])
        if kind.largest is None or layout.size.area > kind.largest.area:
            kind.largest = layout.size
            kind.first_view, kind.tile = costs(layout, max_gap_bytes=max_gap_bytes)


def name_of(layout: Layout) -> str:
    """The kind of a master, in words."""
    words: list[str] = [layout.format]
    if isinstance(layout, TiffLayout):
        words.append(layout.full.compression.name.lower().replace("_", " "))
    words.append("colour" if layout.has_color else "grey")
    if layout.tiling:
        words.append(f"tiles of {layout.tiling.tile.width}×{layout.tiling.tile.height}")
    if len(layout.levels) > 1:
        words.append("with smaller levels")
    return ", ".join(words)


def requests(size: Size) -> tuple[tuple[Box, Size], tuple[Box, Size]]:
    """The first view and the tile in the middle: boxes, and the sizes that they are asked for at."""
    scale = min(1.0, FIRST_VIEW / size.long_side)
    small = Size(max(1, round(size.width * scale)), max(1, round(size.height * scale)))
    width, height = min(TILE, size.width), min(TILE, size.height)
    middle = Box((size.width - width) // 2, (size.height - height) // 2, width, height)
    return (Box.whole(size), small), (middle, middle.size)


def costs(layout: Layout, *, max_gap_bytes: int) -> tuple[Cost, Cost]:
    """What the two requests read of a layout that is prepared for them, headers aside."""
    first, tile = (
        runs_of(layout.extract(box, size).spans, max_gap_bytes=max_gap_bytes) for box, size in requests(layout.size)
    )
    return Cost(len(first), sum(map(len, first))), Cost(len(tile), sum(map(len, tile)))


async def scan(
    source: Source,
    templates: KeyTemplates,
    console: Console,
    *,
    tile: int,
    wanted: Wanted,
    max_gap_bytes: int,
    progress: Console,
) -> int:
    """Read the headers of every master of a source and print what they are; the exit code.

    `tile` is the side of a pyramid's tiles, and `wanted` says which masters get pyramids.

    Costs one GET for each object, some more where headers are elsewhere in it, and the listing. Closes the source.
    Where it is cancelled it prints what it has. Raises `SourceError` where the source cannot be listed.
    """
    findings = Findings()
    bar = Progress(SpinnerColumn(), TextColumn("{task.completed} masters read"), console=progress, transient=True)
    try:
        with bar:
            task = bar.add_task("", total=None)
            queue: asyncio.Queue[Blob | None] = asyncio.Queue(AT_ONCE)

            async def read() -> None:
                while (blob := await queue.get()) is not None:
                    await _look_at(source, templates, blob, findings, tile, wanted, max_gap_bytes=max_gap_bytes)
                    bar.advance(task)

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(read())
                async for blob in _masters(source, templates):
                    await queue.put(blob)
                for _ in range(AT_ONCE):
                    await queue.put(None)
    except asyncio.CancelledError:
        _print(findings, console)
        console.print("Interrupted: not all masters were read.")
        raise
    finally:
        await source.close()
    _print(findings, console)
    return findings.exit_code


async def _masters(source: Source, templates: KeyTemplates) -> AsyncIterator[Blob]:
    async for blob in source.list():
        if templates.identifier_of(blob.key) is not None:
            yield blob


async def _look_at(
    source: Source,
    templates: KeyTemplates,
    blob: Blob,
    findings: Findings,
    tile: int,
    wanted: Wanted,
    *,
    max_gap_bytes: int,
) -> None:
    identifier = templates.identifier_of(blob.key) or blob.key
    try:
        layout = await _prepared(source, blob, max_gap_bytes=max_gap_bytes)
    except NotAnImage:
        findings.others += 1
    except MasterError as error:
        findings.refused.setdefault(str(error), []).append(identifier)
    except Missing:
        pass  # it was deleted since it was listed
    except SourceError as error:
        findings.unread.setdefault(error.sentence, []).append(identifier)
    else:
        findings.add(blob, layout, tile, wanted, max_gap_bytes=max_gap_bytes)


async def _prepared(source: Source, blob: Blob, *, max_gap_bytes: int) -> Layout:
    """The layout, with what is needed to plan the two requests."""
    if not blob.size:
        return await drive(formats.parse(0), source, blob)
    opened = await source.open(blob.key, span=Span(0, min(HEAD_BYTES, blob.size)))
    head = await body(opened)
    seen: list[Chunk] = [(Span(0, len(head)), head)]
    layout = await drive(
        formats.parse(opened.blob.size), source, opened.blob, chunk_bytes=2048, max_gap_bytes=max_gap_bytes, seen=seen
    )
    for box, size in requests(layout.size):
        missing = layout.prepare(box, size)
        if missing is not None:
            layout = await drive(missing, source, opened.blob, first_bytes=0, chunk_bytes=0, seen=seen)
    return layout


def _print(findings: Findings, console: Console) -> None:
    table = Table(
        "kind",
        Column("images", justify="right"),
        Column("bytes", justify="right"),
        Column("largest", justify="right"),
        Column(f"first view, {FIRST_VIEW} px: GETs · bytes", justify="right"),
        Column(f"tile of {TILE} px: GETs · bytes", justify="right"),
        "pyramid is made",
    )
    by_bytes = sorted(findings.kinds.items(), key=lambda it: -it[1].bytes)
    for name, kind in by_bytes:
        table.add_row(
            name,
            f"{kind.count:,}",
            f"{kind.bytes:,}",
            f"{kind.largest.width}×{kind.largest.height}" if kind.largest else "",
            str(kind.first_view),
            str(kind.tile),
            "yes" if kind.has_pyramids else "no",
        )
    console.print(table)
    for name, kind in by_bytes:
        if kind.advice:
            console.print(f"[bold]{name}[/]", highlight=False)
            _print_list(console, list(kind.advice))
            command = (TO_INDEXED if kind.advice else "") if name.startswith("jp2") else TO_PYRAMID
            if kind.has_pyramids and command:
                console.print(f"  cheap after: {command}", highlight=False)
    for title, reasons in (("refused", findings.refused), ("not read", findings.unread)):
        for reason, identifiers in sorted(reasons.items(), key=lambda it: -len(it[1])):
            console.print(f"[bold]{len(identifiers)} {title}[/]: {escape(reason)}", highlight=False)
            more = [f"… {len(identifiers) - MAX_LISTED} more"] if len(identifiers) > MAX_LISTED else []
            _print_list(console, [*identifiers[:MAX_LISTED], *more])
    shown = sum(kind.count for kind in findings.kinds.values())
    refused = sum(map(len, findings.refused.values()))
    unread = sum(map(len, findings.unread.values()))
    console.print(
        f"{shown:,} can be shown, {refused:,} are refused, {unread:,} could not be read, "
        f"{findings.others:,} objects are no pictures.",
        highlight=False,
    )


def _print_list(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"  • {line}", highlight=False, markup=False)
