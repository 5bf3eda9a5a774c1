"""Fixtures that several rooms share: the object stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.servers import S3Server


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """A forgiving S3 server: quick, accepts any credentials."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server: it checks signatures and keeps a request log (`server.logged(bucket)`)."""
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
