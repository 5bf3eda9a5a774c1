"""Rows of a table, read-only, from a file that is replaced while it is read."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from special.catalogue.entry import Entry
from special.catalogue.sqlite import SqliteKind, SqliteOptions
from special.errors import CatalogueError, ConfigurationError

COLUMNS = "identifier TEXT PRIMARY KEY, url TEXT, max_unauthorised INTEGER, roles TEXT, rights TEXT, extra BLOB"


def table(file: Path, rows: Iterable[tuple[object, ...]], name: str = "images") -> Path:
    """A new database in place of the old one."""
    new = file.with_suffix(".new")
    with closing(sqlite3.connect(new)) as connection, connection:
        connection.execute(f'CREATE TABLE "{name}" ({COLUMNS})')
        connection.executemany(f'INSERT INTO "{name}" VALUES (?, ?, ?, ?, ?, NULL)', rows)  # noqa: S608 - a test's own name
    return new.replace(file)


async def test_rows(tmp_path: Path) -> None:
    file = table(
        tmp_path / "c.sqlite",
        [
            ("a", "s3://b/a", None, None, None),
            ("b", "s3://b/b", 400, "staff", "http://r"),
            ("é/'x", "s3://b/c", 0, "", ""),
        ],
    )
    kind = SqliteKind(SqliteOptions(file))
    assert await kind.locate("a", None) == Entry(("s3://b/a",))
    b = await kind.locate("b", None)
    assert b is not None
    assert (b.max_unauthorised, b.roles, b.description.rights) == (400, {"staff"}, "http://r")
    assert await kind.locate("é/'x", None) == Entry(("s3://b/c",), max_unauthorised=0, roles=frozenset())
    assert await kind.locate("none", None) is None
    assert [it async for it in kind.identifiers()] == ["a", "b", "é/'x"]
    assert [it async for it in kind.identifiers("a")] == ["b", "é/'x"]
    assert await kind.identifiers_of("s3://b/b") == ["b"]
    await kind.close()


@pytest.mark.parametrize(
    ("column", "known", "others"),
    [
        pytest.param("TEXT COLLATE NOCASE", "private/1", ["Private/1", "PRIVATE/1"], id="any case"),
        pytest.param("TEXT COLLATE RTRIM", "private/1", ["private/1 "], id="blanks at the end"),
        pytest.param("INTEGER", "7", ["007", "7.0", " 7"], id="numbers"),
    ],
)
async def test_another_spelling_of_an_identifier_is_another_image(
    column: str, known: str, others: list[str], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "c")) as connection, connection:
        connection.execute(f"CREATE TABLE images (identifier {column} PRIMARY KEY, url TEXT)")
        connection.execute("INSERT INTO images VALUES (?, 's3://b/a')", (known,))
    kind = SqliteKind(SqliteOptions(tmp_path / "c"))
    assert await kind.locate(known, None) == Entry(("s3://b/a",))
    assert [await kind.locate(other, None) for other in others] == [None] * len(others)
    await kind.close()


async def test_rows_that_differ_in_case_are_images_of_their_own(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "c")) as connection, connection:
        connection.execute("CREATE TABLE images (identifier TEXT COLLATE NOCASE, url TEXT)")
        connection.executemany("INSERT INTO images VALUES (?, ?)", [("a", "s3://b/a"), ("A", "s3://b/A")])
    kind = SqliteKind(SqliteOptions(tmp_path / "c"))
    assert [await kind.locate(it, None) for it in "Aa"] == [Entry(("s3://b/A",)), Entry(("s3://b/a",))]
    await kind.close()


@pytest.mark.parametrize(
    ("columns", "warned"),
    [("identifier TEXT PRIMARY KEY, url TEXT", False), ("identifier TEXT, url TEXT", True)],
)
async def test_a_table_without_an_index_is_told_of(
    columns: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(tmp_path / "c")) as connection:
        connection.execute(f"CREATE TABLE images ({columns})")
    await SqliteKind(SqliteOptions(tmp_path / "c")).close()
    assert ("is read to its end for each image" in caplog.text) is warned


async def test_more_rows_than_are_read_at_once(tmp_path: Path) -> None:
    names = [f"{number:05}" for number in range(2000)]
    kind = SqliteKind(SqliteOptions(table(tmp_path / "c", [(it, it, None, None, None) for it in names])))
    assert [it async for it in kind.identifiers()] == names
    await kind.close()


async def test_a_file_that_is_replaced_counts_at_once(tmp_path: Path) -> None:
    file = table(tmp_path / "c.sqlite", [("a", "s3://b/old", None, None, None)])
    kind = SqliteKind(SqliteOptions(file))
    for number in range(10):
        asking = [asyncio.create_task(kind.locate("a", None)) for _ in range(5)]
        table(file, [("a", f"s3://b/{number}", number, None, None)])
        assert await kind.locate("a", None) == Entry((f"s3://b/{number}",), max_unauthorised=number)
        await asyncio.gather(*asking)
    await kind.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.unlink(), id="gone"),
        pytest.param(
            lambda file: file.with_suffix(".x").write_bytes(b"x" * 9000) and file.with_suffix(".x").replace(file)
        ),
        pytest.param(lambda file: table(file, [], "others"), id="another table"),
        pytest.param(lambda file: table(file, [("a", "s3://b/a", "all", None, None)]), id="a limit that is no number"),
        pytest.param(lambda file: table(file, [("a", None, None, None, None)]), id="no place"),
    ],
)
async def test_what_cannot_be_read_is_an_error(tmp_path: Path, damage: object) -> None:
    file = table(tmp_path / "c.sqlite", [("a", "s3://b/a", None, None, None)])
    kind = SqliteKind(SqliteOptions(file))
    await kind.locate("a", None)
    assert callable(damage)
    damage(file)
    with pytest.raises(CatalogueError):
        await kind.locate("a", None)
    table(file, [("a", "s3://b/again", None, None, None)])
    assert await kind.locate("a", None) == Entry(("s3://b/again",))
    await kind.close()


def test_a_start_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"c\.sqlite"):
        SqliteKind(SqliteOptions(tmp_path / "c.sqlite"))
    assert not (tmp_path / "c.sqlite").exists()
    with pytest.raises(ConfigurationError, match="identifier and url"):
        SqliteKind(SqliteOptions(table(tmp_path / "c.sqlite", [], "others")))
    SqliteKind(SqliteOptions(table(tmp_path / "c.sqlite", [], "odd name"), "odd name"))


@pytest.mark.long
async def test_a_million_rows(tmp_path: Path) -> None:
    """Prints the p50 and p99 of a look-up; what it finds is what was put there."""
    from random import Random
    from time import perf_counter

    count = 1_000_000
    file = table(
        tmp_path / "c.sqlite", ((f"id-{it}", f"s3://b/{it}.tif", it % 1000, None, None) for it in range(count))
    )
    kind, times, random = SqliteKind(SqliteOptions(file)), [], Random(1)
    for number in (random.randrange(count) for _ in range(20_000)):
        start = perf_counter()
        entry = await kind.locate(f"id-{number}", None)
        times.append(perf_counter() - start)
        assert entry == Entry((f"s3://b/{number}.tif",), max_unauthorised=number % 1000)
    times.sort()
    print(f"\n{count:,} rows: p50 {times[10_000] * 1000:.3f} ms, p99 {times[19_800] * 1000:.3f} ms")
    await kind.close()
