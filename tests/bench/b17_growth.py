"""B17: what a request costs as the collection grows, and what a second process gains."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from special.catalogue import SqliteOptions
from special.catalogue.sqlite import SqliteKind
from tests.bench import webserver
from tests.bench.bench import Ask, Bench, Rate, Result, Side, Trial, running
from tests.bench.thumbs import lay_out
from tests.support import live
from tests.support.live import LiveServer

SEEN, KNOWN, FEW, ROWS = 100_000, 10_000, 100, 1_000_000
"""Images that a server has seen; those that it keeps in memory; some; rows of a table."""
FRESH = 20_000
"""More images than are looked at in one turn."""
LOOK_UPS = 10_000
SECONDS_PER_IMAGE = 1 / 800
"""More than a first look takes on a small machine."""
FLAT, TWICE, P99_MS = 0.9, 1.8, 1.0
_ALIKE = "location ~ ^/thumbs/[^/]+/(.+)$ {{ alias {folder}/$1; }}"
"""Every image is stored, with the same files."""


def run(bench: Bench) -> Iterator[Result]:
    """Thumbnails out of S3 that nobody has asked for, late and early; of many images that are known and of few.

    Then look-ups in a table; and answers from memory by one process and by two, which share the processors with the
    clients.
    """
    buckets = bench.folder / "buckets"
    some = lay_out(buckets)[0]
    with webserver.store(bench.folder / "store", buckets, more=_ALIKE.format(folder=buckets / "thumbs" / some)) as aws:
        yield from _images(bench, aws)
        yield _rows(bench)
        yield from _processes(bench, aws)


def _images(bench: Bench, aws: dict[str, str]) -> Iterator[Result]:
    settings = aws | {"SPECIAL_HOT_SIZE": "0", "SPECIAL_ASSET_TTL_S": "86400"}
    with _special(bench, "late", settings) as late, _special(bench, "early", settings) as early:
        _ask(bench, late, range(SEEN), seconds=SEEN * SECONDS_PER_IMAGE)
        fresh = count(SEEN, FRESH)

        def look(server: LiveServer) -> float:
            start = next(fresh)
            return 1000 / _ask(bench, server, range(start, start + FRESH), seconds=bench.seconds).per_s

        job = f"1,000 first looks at a thumbnail, after {SEEN:,} others"
        yield bench.sooner(job, FLAT, Trial("special", partial(look, late)), Trial("at first", partial(look, early)))
        _ask(bench, early, range(KNOWN), seconds=KNOWN * SECONDS_PER_IMAGE)
        known, few = (
            Side(name, running(early), [_thumb(number) for number in range(images)], bench.folder)
            for name, images in (("special", KNOWN), (f"{FEW} images", FEW))
        )
        yield bench.faster(f"thumbnail out of S3, of {KNOWN:,} images", FLAT, known, few)


def _ask(bench: Bench, server: LiveServer, numbers: Iterable[int], *, seconds: float) -> Rate:
    return Side("special", running(server), [_thumb(number) for number in numbers], bench.folder).measure(seconds)


def _rows(bench: Bench) -> Result:
    many, few = (_p99_ms(_table(bench.folder, rows), rows) for rows in (ROWS, KNOWN))
    job, said = f"look-up in SQLite of {ROWS:,} rows, p99", f"{KNOWN:,} rows: {few:.2f} ms"
    return Result(job, f"{many:.2f} ms", said, None, f"< {P99_MS:.0f} ms", many < P99_MS)


def _processes(bench: Bench, aws: dict[str, str]) -> Iterator[Result]:
    with _special(bench, "one", aws) as one, _special(bench, "two", aws, workers=2) as two:
        thumb = _thumb(1)
        (known,) = {it.headers["etag"] for it in Side("one process", running(one), [thumb], bench.folder).check()}
        for job, ask in {"thumbnail from memory": thumb, "304": Ask(thumb.path, known)}.items():
            mine = Side("special", running(two), [ask], bench.folder)
            yield bench.faster(f"{job}, two processes", TWICE, mine, Side("one", running(one), [ask], bench.folder))


@contextmanager
def _special(bench: Bench, name: str, settings: dict[str, str], *, workers: int = 1) -> Iterator[LiveServer]:
    home = bench.folder / name
    home.mkdir()
    options = ("s3://masters", "--thumbs", "s3://thumbs")
    with live.special(*options, home=home, settings=settings, workers=workers) as server:
        yield server


def _thumb(number: int) -> Ask:
    return Ask(f"/thumbs/image-{number}/full/!200,200/0/default.jpg")


def _table(folder: Path, rows: int) -> Path:
    file = folder / f"{rows}.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE images (identifier TEXT PRIMARY KEY, url TEXT) WITHOUT ROWID")
        names = ((f"image-{number}", f"s3://masters/{number}.tif") for number in range(rows))
        database.executemany("INSERT INTO images VALUES (?, ?)", names)
    return file


def _p99_ms(file: Path, rows: int) -> float:
    """Of look-ups all over a table, one after the other."""
    chance, kind = random.Random(rows), SqliteKind(SqliteOptions(file))

    async def look_up() -> list[float]:
        seconds: list[float] = []
        for _ in range(LOOK_UPS):
            start = perf_counter()
            assert await kind.locate(f"image-{chance.randrange(rows)}", None) is not None
            seconds.append(perf_counter() - start)
        await kind.close()
        return seconds

    return 1000 * quantiles(asyncio.run(look_up()), n=100)[-1]
