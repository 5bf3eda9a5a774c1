"""The two sides of a comparison: a server that is asked over HTTP, or its answers recorded before."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from yarl import URL

from special.errors import ConfigurationError
from special.version import __version__

ANSWER_WITHIN_S = 60.0
MAX_BODY_BYTES = 256 * 2**20
MAX_RETRY_AFTER_S = 10.0
"""Longest that is waited before a server that was busy is asked once more."""
_CHUNK_BYTES = 2**20
_FORMAT_VERSION = 1
_SCHEMA = f"""
PRAGMA user_version = {_FORMAT_VERSION};
CREATE TABLE answers (path TEXT PRIMARY KEY, seconds REAL, status INTEGER, headers TEXT, body BLOB) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of a server."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes
    seconds: float
    """From the request to the last byte."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request that was not answered, or not to its end."""

    reason: str


class Server(Protocol):
    """Something that has answers to requests."""

    @property
    def base(self) -> str:
        """What addresses begin with, without user name and password; the file of a recording."""
        ...

    async def ask(self, path: str) -> Answer | NoAnswer:
        """The answer to a GET of a path below the base."""
        ...


class Pace:
    """Lets requests start evenly, at most `per_second`."""

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._next_s = 0.0

    async def wait(self) -> None:
        """Until it is this caller's turn."""
        self._next_s = max(self._next_s, monotonic())
        wait_s = self._next_s - monotonic()
        self._next_s += self._interval_s
        await asyncio.sleep(wait_s)


@dataclass(frozen=True, slots=True)
class WebServer:
    """A running server, asked no faster than its pace. Redirects are answers and are not followed."""

    url: str
    """What paths are appended to, ending in `/` or `=`; it may hold a user name and a password."""
    session: aiohttp.ClientSession
    pace: Pace

    @property
    def base(self) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def ask(self, path: str) -> Answer | NoAnswer:
        answer = await self._ask_once(path)
        if isinstance(answer, Answer) and answer.status in (429, 503):
            after = answer.headers.get("retry-after", "1")
            await asyncio.sleep(min(float(after) if after.isdecimal() else 1.0, MAX_RETRY_AFTER_S))
            return await self._ask_once(path)
        return answer

    async def _ask_once(self, path: str) -> Answer | NoAnswer:
        await self.pace.wait()
        start_s = monotonic()
        try:
            # yarl would decode what the log has encoded.
            async with self.session.get(URL(self.url + path, encoded=True), allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        return NoAnswer(f"more than {MAX_BODY_BYTES} bytes")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, bytes(body), monotonic() - start_s)
        except TimeoutError:
            return NoAnswer(f"no answer within {ANSWER_WITHIN_S:g} s")
        except (aiohttp.ClientError, ValueError) as error:
            return NoAnswer(type(error).__name__)

    async def page(self, path: str) -> str | None:
        """A page at the root of the server's origin; None where it has none."""
        try:
            async with self.session.get(URL(self.url).origin() / path) as response:
                return await response.text() if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, UnicodeDecodeError):
            return None


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections for the time of a run. Cookies of one answer are not sent with the next request."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
        headers={"User-Agent": f"special-compare/{__version__}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as opened:
        yield opened


class Recording:
    """Answers of a server in an SQLite file, by path. Holds nothing of the log but these paths."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.base = str(path)
        self._connection = connection

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new, empty one. Raises `ConfigurationError` where a file is there already, or cannot be made."""
        if path.exists():
            raise ConfigurationError(f"{path} is there already; name another file to record to")
        try:
            connection = sqlite3.connect(path, check_same_thread=False)
            connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path} cannot be written: {error}") from None
        return cls(path, connection)

    @classmethod
    def load(cls, path: Path) -> Self:
        """One that was made before. Raises `ConfigurationError` where it is none."""
        if not path.is_file():
            raise ConfigurationError(f"{path} is neither an http(s):// address nor a recording")
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path} is no recording: {error}") from None
        if version != _FORMAT_VERSION:
            raise ConfigurationError(f"{path} is no recording of this version of special")
        return cls(path, connection)

    def close(self) -> None:
        self._connection.close()

    def paths(self) -> list[str]:
        """All that it has an answer to."""
        with closing(self._connection.execute("SELECT path FROM answers")) as rows:
            return [path for (path,) in rows]

    async def ask(self, path: str) -> Answer | NoAnswer:
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> Answer | NoAnswer:
        query = "SELECT status, headers, body, seconds FROM answers WHERE path = ?"
        row = self._connection.execute(query, (path,)).fetchone()
        return Answer(row[0], json.loads(row[1]), row[2], row[3]) if row else NoAnswer("not recorded")

    async def add(self, path: str, answer: Answer) -> None:
        """Record an answer."""
        await asyncio.to_thread(self._write, path, answer)

    def _write(self, path: str, answer: Answer) -> None:
        row = (path, answer.seconds, answer.status, json.dumps(dict(answer.headers)), answer.body)
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A server whose answers are recorded as they come."""

    server: Server
    recording: Recording

    @property
    def base(self) -> str:
        return self.server.base

    async def ask(self, path: str) -> Answer | NoAnswer:
        answer = await self.server.ask(path)
        if isinstance(answer, Answer):
            await self.recording.add(path, answer)
        return answer
