"""A real S3 server, the proxy before it, and whole servers of special before that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from special.volume import DEFAULT_BLOCK_BYTES
from tests.soak.proxy import Exchange, Proxy, fair, proxy
from tests.support import live
from tests.support.live import LiveServer
from tests.support.servers import S3Server

DELAY_S = 0.02
"""What a request to a store takes within one region."""


@dataclass
class Library:
    """A bucket, the proxy before it, and a server that knows the bucket through the proxy only."""

    s3: S3Server
    between: Proxy
    server: LiveServer
    bucket: str
    block_bytes: int = DEFAULT_BLOCK_BYTES

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def volume(self) -> Path:
        """The server's volume."""
        return self.server.home / "volume"

    def put(self, data: bytes, name: str | None = None) -> str:
        """Store a master behind everybody's back; its identifier."""
        name = name or f"{uuid4().hex[:8]}.tif"
        self.s3.client().put_object(Bucket=self.bucket, Key=name, Body=data)
        return name

    async def put_aside(self, data: bytes, name: str) -> None:
        """The same from within an event loop."""
        await asyncio.to_thread(self.put, data, name)

    def heads(self, name: str) -> list[Exchange]:
        """The look-ups of a master: reads of whatever version is there."""
        return [each for each in self.gets(name) if each.match is None]

    def gets(self, name: str) -> list[Exchange]:
        """The GETs of a master, but those of its last bytes, which are asked for along with its first."""
        return [each for each in self.between.gets(name) if each.span is not None]

    def pinned(self, name: str) -> list[Exchange]:
        """The reads of one version of a master."""
        return [each for each in self.between.gets(name) if each.match is not None]


@contextmanager
def started(s3: S3Server, home: Path, *options: str, bucket: str | None = None, workers: int = 2) -> Iterator[Library]:
    """A server of so many processes behind a proxy, on an empty bucket or one that is there already.

    All its decoders are up from the start, so that what it holds before a load and after it can be compared.
    """
    bucket = bucket or s3.bucket()
    with proxy(s3.endpoint, delay_s=DELAY_S) as between:
        environ = replace(s3, endpoint=between.endpoint).environ | {
            "SPECIAL_DECODERS": "1",
            "SPECIAL_DECODER_IDLE_S": "0",
        }
        with live.special(f"s3://{bucket}", *options, home=home, settings=environ, workers=workers) as server:
            yield Library(s3, between, server, bucket)


@pytest.fixture(scope="session")
def running_library(seaweed_s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """For all tests that leave a server as they found it."""
    with started(seaweed_s3, tmp_path_factory.mktemp("library"), "--volume-size", "512MiB") as library:
        yield library


@pytest.fixture
def library(running_library: Library) -> Iterator[Library]:
    """The same, after whose use the weather is fair again."""
    yield running_library
    running_library.between.choose = fair
