"""The kind `sqlite`: a table with a row for each image, in a file that may be replaced while it is read.

Rows are read in one thread: a look-up takes some microseconds, and SQLite gains nothing from more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from special.catalogue.entry import FIELDS, Entry
from special.errors import CatalogueError, ConfigurationError

log = logging.getLogger(__name__)
T = TypeVar("T")

ROWS_AT_ONCE = 1000
BUSY_S = 1.0
"""How long a file that is being written is waited for."""


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """A table of images."""

    file: Path
    table: str = "images"
    """A table or a view with a column `identifier`, which should be its key, and columns as `Entry.of` reads them."""


class SqliteKind:
    """Knows the rows of a table. Raises `ConfigurationError` for a file that has no such table."""

    def __init__(self, options: SqliteOptions) -> None:
        self._options = options
        self._table = '"' + options.table.replace('"', '""') + '"'
        self._thread = ThreadPoolExecutor(1, "special-catalogue")
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        """Device and inode of the file that is open."""
        self._query = ""
        try:
            with closing(self._connect()):
                pass
        except sqlite3.Error as error:
            raise ConfigurationError(f"the catalogue {options.file} cannot be used: {error}") from error

    @property
    def name(self) -> str:
        return f"sqlite {self._options.file}"

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        try:
            row = await self._in_thread(partial(self._row, identifier))
            return Entry.of(row) if row is not None else None
        except ValueError as fault:
            raise CatalogueError(f"{self.name} cannot be understood of '{identifier}': {fault}") from None

    def identifiers(self, after: str = "") -> AsyncIterator[str]:
        return self._listed(after)

    async def identifiers_of(self, place: str) -> Sequence[str]:
        """One query. It reads the whole table unless there is an index of `url`."""
        query = f"SELECT identifier FROM {self._table} WHERE url = ?"  # noqa: S608 - the operator's own table
        return [row[0] for row in await self._in_thread(partial(self._rows, query, (place,)))]

    async def close(self) -> None:
        self._thread.shutdown(wait=False)
        if self._connection is not None:
            self._connection.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise CatalogueError(f"{self.name} cannot be read: {error}") from error

    async def _listed(self, after: str) -> AsyncIterator[str]:
        query = f"SELECT identifier FROM {self._table} WHERE identifier > ? ORDER BY identifier LIMIT ?"  # noqa: S608
        while True:
            page = await self._in_thread(partial(self._rows, query, (after, ROWS_AT_ONCE)))
            for (identifier,) in page:
                yield identifier
            if len(page) < ROWS_AT_ONCE:
                return
            after = page[-1][0]

    def _rows(self, query: str, values: tuple[object, ...]) -> list[tuple[str, ...]]:
        return self._current().execute(query, values).fetchall()

    def _row(self, identifier: str) -> dict[str, object] | None:
        with closing(self._current().execute(self._query, (identifier,))) as cursor:
            for found, *row in cursor:
                # A column may compare loosely (NOCASE, numbers): rules and caches would not know the other spelling.
                if str(found) == identifier:
                    return dict(zip((it[0] for it in cursor.description[1:]), row, strict=True))
        return None

    def _current(self) -> sqlite3.Connection:
        """A connection to the file that has the name now."""
        found = os.stat(self._options.file)
        if self._connection is None or self._opened != (found.st_dev, found.st_ino):
            connection = self._connect()
            if self._connection is not None:
                self._connection.close()
            self._connection, self._opened = connection, (found.st_dev, found.st_ino)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self._options.file.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
        try:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({self._table})")]
            if "identifier" not in columns or "url" not in columns:
                raise sqlite3.OperationalError(
                    f"it needs a table {self._table} with columns identifier and url, and has {columns}"
                )
        except sqlite3.Error:
            connection.close()
            raise
        chosen = ", ".join(f'"{name}"' for name in FIELDS if name in columns)
        self._query = f"SELECT identifier, {chosen} FROM {self._table} WHERE identifier = ?"  # noqa: S608 - as above
        plan = connection.execute(f"EXPLAIN QUERY PLAN {self._query}", ("",)).fetchall()
        if any(step[3].startswith("SCAN") for step in plan):
            log.warning("%s is read to its end for each image: make identifier the key, or create an index", self.name)
        return connection
