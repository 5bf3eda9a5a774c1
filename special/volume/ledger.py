"""The ledger of a volume: what is on the disk, how large, when last read, and what is about to be written.

A small SQLite database in WAL mode that all processes of a machine share. Every change is one
short transaction, and holding that transaction is also the right to make or remove files.
It is never synced: after a power cut it may be lost, and is made again from the maps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from special.volume.blocks import FORMAT_VERSION, PAGE_MARK, BlockMap, Damaged

WAL_PAGES = 64
"""Pages after which the write-ahead log starts over."""
TOUCHES = 32
"""Maximum number of rows that one transaction updates, so that the log stays small: each dirties four pages at most."""
HEADROOM_BYTES = 1 << 20
"""What the database's files may grow by in one transaction and its checkpoint: above 4 × 32 + 64 pages."""
BUSY_S = 10.0

_SCHEMA = """
CREATE TABLE objects (
    name TEXT PRIMARY KEY, url TEXT, etag TEXT, size_bytes INTEGER, block_bytes INTEGER,
    disk_bytes INTEGER, made_s REAL, used_s REAL, hits INTEGER DEFAULT 0,
    misses INTEGER DEFAULT 0, stale INTEGER DEFAULT 0
);
CREATE INDEX objects_by_url ON objects (url);
CREATE INDEX objects_by_age ON objects (stale DESC, used_s, name);
CREATE TABLE holds (id INTEGER PRIMARY KEY, owner INTEGER, name TEXT, bytes INTEGER);
CREATE TABLE totals (disk_bytes INTEGER, hits INTEGER, misses INTEGER, evictions INTEGER);
INSERT INTO totals VALUES (0, 0, 0, 0);
CREATE TRIGGER entered AFTER INSERT ON objects
    BEGIN UPDATE totals SET disk_bytes = disk_bytes + new.disk_bytes; END;
CREATE TRIGGER weighed AFTER UPDATE OF disk_bytes ON objects
    BEGIN UPDATE totals SET disk_bytes = disk_bytes + new.disk_bytes - old.disk_bytes; END;
CREATE TRIGGER struck AFTER DELETE ON objects
    BEGIN UPDATE totals SET disk_bytes = disk_bytes - old.disk_bytes; END;
"""


BROKEN = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # our statements are right: a table must be missing
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
)


def is_broken(error: sqlite3.Error) -> bool:
    """Whether a ledger is damaged for good, where another fault of a disk may pass."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    # A file that is shorter than its header says has lost pages for good.
    damaged = code & 0xFF in BROKEN or code == sqlite3.SQLITE_IOERR_SHORT_READ
    return isinstance(error, sqlite3.DatabaseError) and damaged


def files_of(path: Path) -> list[Path]:
    """A database and what SQLite keeps beside it."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as the ledger has it."""

    name: str
    """Its name on disk."""
    url: str
    """Where it comes from."""
    etag: str
    """Which version it is."""
    size_bytes: int
    """Length of the object at its source."""
    disk_bytes: int
    """What it takes on disk, bounded from above."""
    made_s: float
    """When it was first read, in seconds since 1970."""
    used_s: float
    """When it was last read, to a few seconds."""
    hits: int
    """Blocks that were here when they were wanted."""
    misses: int
    """Blocks that had to be fetched."""
    stale: int
    """1 if a newer version has been read since."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All objects together, those long evicted included."""

    disk_bytes: int
    """What the objects take on disk."""
    hits: int
    """Blocks that were here when they were wanted."""
    misses: int
    """Blocks that had to be fetched."""
    evictions: int
    """Objects that were evicted."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one process has read of an object since the last report."""

    name: str
    """The object's name on disk."""
    used_s: float
    """When, in seconds since 1970."""
    hits: int
    """Blocks that were here."""
    misses: int
    """Blocks that were not."""


class Ledger:
    """An open ledger; for one thread at a time. Everything raises `sqlite3.Error` when it breaks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_new = not path.exists() or path.is_symlink()
        """Whether it was not there before: then it does not know what is on the disk."""
        if self.is_new:
            self.remove()  # a link, and what SQLite kept beside one that was removed
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(
                    "BEGIN IMMEDIATE;" + _SCHEMA + f"PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
                )
            elif version != FORMAT_VERSION:
                raise Damaged(f"{path} is of version {version}, not {FORMAT_VERSION}")
        except BaseException:
            self._db.close()
            raise

        self._inode = path.stat().st_ino

    @property
    def is_current(self) -> bool:
        """Whether it is open, and still the file of its name."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the database. SQLite leaves the files of another one alone that has taken its name."""
        self._inode = -1
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens at once or not at all, and no other process writes meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a fault may have ended it
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def check(self) -> None:
        """Read all of it. Raises `sqlite3.DatabaseError` where it is broken."""
        answers = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        added = self._db.execute("SELECT sum(disk_bytes) FROM objects").fetchone()[0] or 0
        if answers != [("ok",)] or self._db.execute("SELECT disk_bytes FROM totals").fetchall() != [(added,)]:
            raise sqlite3.DatabaseError(f"{self.path}: {answers}, {added} bytes in all")

    def files(self) -> list[Path]:
        """What the ledger takes on disk."""
        return files_of(self.path)

    def remove(self) -> None:
        """Remove its files; processes that have them open notice by `is_current`."""
        for file in self.files():
            file.unlink(missing_ok=True)

    def promised_bytes(self) -> int:
        """What objects take, and what is about to be written."""
        objects = self.totals().disk_bytes
        (reserved,) = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM holds").fetchone()
        return int(objects) + int(reserved)

    def add_object(self, blocks: BlockMap, disk_bytes: int, used_s: float) -> None:
        """A new object. Other versions of it have gone stale."""
        self._db.execute("UPDATE objects SET stale = 1 WHERE url = ?", (blocks.url,))
        self._db.execute(
            "INSERT INTO objects (name, url, etag, size_bytes, block_bytes, disk_bytes, made_s, used_s)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                blocks.name,
                blocks.url,
                blocks.etag,
                blocks.size_bytes,
                blocks.block_bytes,
                disk_bytes,
                used_s,
                used_s,
            ),
        )

    def contains(self, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM objects WHERE name = ?", (name,)).fetchone() is not None

    def weigh(self, name: str, disk_bytes: int) -> None:
        """What an object takes on disk by now."""
        self._db.execute("UPDATE objects SET disk_bytes = ? WHERE name = ?", (disk_bytes, name))

    def remove_object(self, name: str) -> None:
        self._db.execute("DELETE FROM objects WHERE name = ?", (name,))

    def evicted(self) -> None:
        """Count an object that was evicted."""
        self._db.execute("UPDATE totals SET evictions = evictions + 1")

    def reserve(self, owner: int, name: str, size_bytes: int) -> int:
        """Reserve space for what `owner` will write; returns the number to `release` it by."""
        row = self._db.execute("INSERT INTO holds (owner, name, bytes) VALUES (?, ?, ?)", (owner, name, size_bytes))
        assert row.lastrowid is not None
        return row.lastrowid

    def release(self, reservation: int) -> None:
        self._db.execute("DELETE FROM holds WHERE id = ?", (reservation,))

    def reservations(self) -> list[tuple[int, int, str]]:
        """Number, owner and object of each reservation."""
        return self._db.execute("SELECT id, owner, name FROM holds").fetchall()

    def touch(self, uses: Iterable[Use]) -> None:
        """Record what was read. At most `TOUCHES` in one transaction."""
        for use in uses:
            self._db.execute(
                "UPDATE objects SET used_s = max(used_s, ?), hits = hits + ?, misses = misses + ? WHERE name = ?",
                (use.used_s, use.hits, use.misses, use.name),
            )
            self._db.execute("UPDATE totals SET hits = hits + ?, misses = misses + ?", (use.hits, use.misses))

    def oldest(self, skip: int) -> list[str]:
        """A few objects in the order in which they are evicted, after the first `skip`."""
        query = "SELECT name FROM objects ORDER BY stale DESC, used_s, name LIMIT 64 OFFSET ?"
        return [name for (name,) in self._db.execute(query, (skip,))]

    def objects(self) -> list[Entry]:
        """Every object, the last read first."""
        query = (
            "SELECT name, url, etag, size_bytes, disk_bytes, made_s, used_s, hits, misses, stale"
            " FROM objects ORDER BY used_s DESC, name"
        )
        rows: list[tuple[Any, ...]] = self._db.execute(query).fetchall()
        return [Entry(*row) for row in rows]

    def names(self, url: str | None) -> list[str]:
        """The names of all versions of one object and of its pages, or of all objects."""
        query = "SELECT name FROM objects WHERE ?1 IS NULL OR url = ?1 OR (url > ?2 AND url < ?3)"
        pages = (f"{url}{PAGE_MARK}", f"{url}{PAGE_MARK}:")  # a colon comes behind all digits
        return [name for (name,) in self._db.execute(query, (url, *pages))]

    def current(self, url: str) -> str | None:
        """The name of the version of an object that was entered last."""
        query = "SELECT name FROM objects WHERE url = ? AND NOT stale ORDER BY made_s DESC LIMIT 1"
        row = self._db.execute(query, (url,)).fetchone()
        return None if row is None else str(row[0])

    def totals(self) -> Totals:
        row = self._db.execute("SELECT disk_bytes, hits, misses, evictions FROM totals").fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"{self.path}: the totals are gone")
        return Totals(*row)
