"""The table in tests/README.md of what requests read: bytes and GETs for each sample master, beside the whole object.

Exact and the same on every machine: each request is planned on the sample masters, read through
a source that counts, and nothing is timed. `python -m tests.bench bytes` prints the table;
`tests/bench/test_table.py` holds that copy to it.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from special import composition, iiif
from special.auth.access import ANONYMOUS
from special.geometry import Box
from special.iiif import ImageRequest
from special.observability.trace import tracing
from special.serving.engine import Engine
from special.settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "tests" / "README.md"
MASTERS = ROOT / "fixtures" / "masters"
THUMBNAIL = "full/!200,200"
TILE_SIDE = 512
_PLACE = re.compile(r"(<!-- bytes: [^>]*-->\n).*(<!-- /bytes -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Cost:
    """What was read."""

    gets: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.gets} · {self.bytes:,}"


@dataclass(frozen=True, slots=True)
class Row:
    """One master."""

    name: str
    whole: Cost
    """All of it, in one GET."""
    headers: Cost
    """What tells its layout, once for each version."""
    thumbnail: Cost
    tile: Cost

    def __str__(self) -> str:
        parts = (self.whole, self.headers, self.thumbnail, self.tile)
        return f"| `{self.name}` | {' | '.join(map(str, parts))} |"


def table() -> str:
    """The table in Markdown."""
    head = (
        f"| Master | whole | headers, once | `{THUMBNAIL}` | {TILE_SIDE}² tile at 1:1 |",
        "|---|--:|--:|--:|--:|",
    )
    return "\n".join([*head, *map(str, asyncio.run(_rows()))])


def written() -> str:
    """tests/README.md with this table in its place."""
    text = README.read_text("utf-8")
    if not _PLACE.search(text):
        raise ValueError("tests/README.md lacks the markers <!-- bytes: … --> and <!-- /bytes -->")
    return _PLACE.sub(lambda place: f"{place[1]}{table()}\n{place[2]}", text)


async def _rows() -> list[Row]:
    async with AsyncExitStack() as stack:
        home = stack.enter_context(TemporaryDirectory())
        # Neither decoders nor the volume are started: planning and reading need none.
        engine = composition.engine(Settings(source=str(MASTERS), home=Path(home)))
        stack.push_async_callback(engine.close)
        return [await _row(engine, path.name) for path in sorted(MASTERS.iterdir())]


async def _row(engine: Engine, name: str) -> Row:
    with tracing() as looked:
        master = engine.catalog.master(await engine.catalog.find(name))
    size = master.layout.size
    side = min(TILE_SIDE, size.width, size.height)
    x, y = (length // 2 // side * side for length in (size.width, size.height))
    middle = Box(x, y, side, side).within(size)
    assert middle is not None, "the image's middle is inside it"
    return Row(
        name,
        Cost(1, master.blob.size),
        Cost(looked.gets, looked.bytes),
        await _cost(engine, name, THUMBNAIL),
        await _cost(engine, name, f"{middle}/max"),
    )


async def _cost(engine: Engine, name: str, request: str) -> Cost:
    parsed = iiif.parse(f"{name}/{request}/0/default.jpg")
    assert isinstance(parsed, ImageRequest), request
    runs = await engine.estimate(await engine.plan(parsed, version=3, identity=ANONYMOUS))
    return Cost(len(runs), sum(len(run) for run in runs))
