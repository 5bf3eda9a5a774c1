"""A real S3 server behind a proxy that counts and misbehaves, and mounts of its buckets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.soak.proxy import Proxy, fair, proxy
from tests.support.mounts import FUSE, LiveMount, special_mount
from tests.support.servers import S3Server


@pytest.fixture(scope="session")
def fuse() -> None:
    if not FUSE.exists():
        pytest.skip(f"no {FUSE}")


@dataclass(frozen=True, slots=True)
class Shop:
    """A bucket, and the way to it."""

    bucket: str
    s3: S3Server
    """The S3 server, by way of the proxy."""
    between: Proxy

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    def put(self, key: str, data: bytes) -> str:
        """Store an object; its entity tag."""
        return str(self.s3.client().put_object(Bucket=self.bucket, Key=key, Body=data)["ETag"])

    def requests(self, since: int) -> list[tuple[str, str]]:
        """Method and key of the requests from a place in the log on."""
        return [(each.method, each.key) for each in self.between.log[since:]]


@pytest.fixture(scope="module")
def between(seaweed_s3: S3Server) -> Iterator[Proxy]:
    with proxy(seaweed_s3.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def shop(fuse: None, seaweed_s3: S3Server, between: Proxy) -> Shop:
    """A bucket of a module's own: a test takes keys of its own."""
    return Shop(seaweed_s3.bucket(), replace(seaweed_s3, endpoint=between.endpoint), between)


@pytest.fixture(autouse=True)
def fair_weather(request: pytest.FixtureRequest) -> Iterator[None]:
    """`shop.between.choose` may be set for the length of a test."""
    yield
    if "shop" in request.fixturenames:
        request.getfixturevalue("between").choose = fair


@pytest.fixture(scope="module")
def live(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMount]:
    """The bucket, mounted. A name is asked for again after a moment."""
    settings = {**shop.s3.environ, "SPECIAL_ASSET_TTL_S": "0.2"}
    with special_mount(shop.url, "--timeout", "3", home=tmp_path_factory.mktemp("home"), settings=settings) as running:
        yield running
