"""Masters that nobody has asked for yet, in a real S3 server that takes 20 ms for each request.

Every trial takes a key of its own, so that servers need not be started anew to be cold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import httpx

from tests.bench.bench import Bench, timed
from tests.bench.big import big
from tests.soak.proxy import Exchange, Proxy, proxy
from tests.support import servers
from tests.support.servers import S3Server

DELAY_S = 0.02


@dataclass(frozen=True, slots=True)
class SlowBucket:
    """A bucket of equal masters behind the delay."""

    bucket: str
    keys: tuple[str, ...]
    s3: S3Server
    """The S3 server, by way of the proxy."""
    between: Proxy
    home: Path
    """A new folder, for the state of one server."""


@contextmanager
def slow_bucket(bench: Bench, name: str, copies: int, *, folder: Path | None = None) -> Iterator[SlowBucket]:
    """So many copies of a big master, or of one in a folder, behind 20 ms per request."""
    data = ((folder or big(name, bench.cache)) / name).read_bytes()
    state, home = bench.folder / f"seaweed-{name}", bench.folder / f"home-{name}"
    state.mkdir()
    home.mkdir()
    with servers.seaweed(state) as s3, proxy(s3.endpoint, delay_s=DELAY_S) as between:
        bucket = s3.bucket()
        keys = tuple(f"{number}-{name}" for number in range(copies))
        for key in keys:
            s3.client().put_object(Bucket=bucket, Key=key, Body=data)
        yield SlowBucket(bucket, keys, replace(s3, endpoint=between.endpoint), between, home)


class Visits:
    """Requests to one server, each time for the next key."""

    def __init__(self, url: str, prefix: str, keys: Sequence[str], tiles: Sequence[str]) -> None:
        self._url, self._prefix, self._tiles = url, prefix, tiles
        self._keys = iter(keys)
        self.next()  # a first look at another master: connections and folders are known from then on

    def next(self) -> float:
        """Ask for all tiles of the next master at once; the seconds until the last has come."""
        key = next(self._keys)
        return timed(lambda: asyncio.run(self._ask([f"{self._prefix}/{key}/{tile}" for tile in self._tiles])))

    async def _ask(self, paths: Sequence[str]) -> None:
        limits = httpx.Limits(max_connections=len(paths))
        async with httpx.AsyncClient(base_url=self._url, timeout=120, limits=limits) as client:
            for answer in await asyncio.gather(*map(client.get, paths)):
                answer.raise_for_status()


def rounds(gets: Sequence[Exchange]) -> int:
    """How many of these requests were in series: those that came after the first one's delay was over, and so on."""
    starts = sorted(get.arrived_s for get in gets)
    for number in count():
        if not starts:
            return number
        starts = [start for start in starts if start >= starts[0] + DELAY_S]
    raise AssertionError("count() has no end")
