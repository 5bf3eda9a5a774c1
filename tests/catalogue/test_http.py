"""A real catalogue behind HTTP: what it knows, what it does not, and what it fails at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from special.catalogue.catalogue import Catalogue
from special.catalogue.http import HttpKind, HttpOptions
from special.errors import CatalogueError, ConfigurationError, Missing
from special.storage import Sources, open_source
from tests.support.catalogue_server import TOKEN, CatalogueServer, catalogue_server

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueServer]:
    with catalogue_server(tmp_path_factory.mktemp("catalogue"), {}) as server:
        yield server


@pytest.fixture
def server(running: CatalogueServer) -> CatalogueServer:
    (running.folder / "requests.log").unlink(missing_ok=True)
    return running


@pytest_asyncio.fixture
async def kind(server: CatalogueServer) -> AsyncIterator[HttpKind]:
    kind = HttpKind(HttpOptions(server.url, TOKEN, timeout_s=5))
    yield kind
    await kind.close()


async def test_what_it_knows(server: CatalogueServer, kind: HttpKind) -> None:
    server.say({"a/b c?": {"url": "s3://b/k", "max_unauthorised": 400}})
    entry = await kind.locate("a/b c?", None)
    assert entry is not None
    assert (entry.places, entry.max_unauthorised) == (("s3://b/k",), 400)
    assert await kind.locate("other", None) is None
    assert server.asked() == ["200 a/b c?", "404 other"]


async def test_an_answer_that_comes_in_many_pieces(server: CatalogueServer, kind: HttpKind) -> None:
    described = [{"id": f"https://example.org/{number}", "type": "Dataset"} for number in range(15_000)]
    server.say({"a": {"url": "s3://b/k", "seeAlso": described}})
    entry = await kind.locate("a", None)
    assert entry is not None
    assert list(entry.description.see_also) == described


async def test_it_is_asked_whether_an_entry_is_still_so(server: CatalogueServer, kind: HttpKind) -> None:
    server.say({"a": {"url": "s3://b/k"}})
    entry = await kind.locate("a", None)
    assert await kind.locate("a", entry) is entry
    server.say({"a": {"url": "s3://b/k", "max_unauthorised": 0}})
    changed = await kind.locate("a", entry)
    assert changed is not None
    assert changed.max_unauthorised == 0
    assert server.asked() == ["200 a", "304 a", "200 a"]


@pytest.mark.parametrize(
    "images",
    [
        pytest.param({"__status__": 500}, id="it fails"),
        pytest.param({"__status__": 403}, id="it refuses"),
        pytest.param({"__status__": 302}, id="it sends elsewhere"),
        pytest.param({"__status__": 304}, id="not modified, unasked"),
        pytest.param({"a": ["s3://b/k"]}, id="no object"),
        pytest.param({"a": {"place": "s3://b/k"}}, id="no place"),
        pytest.param({"a": {"url": "s3://b/k", "max_unauthorised": "none"}}, id="no limit"),
        pytest.param({"a": {"url": "s3://b/" + "k" * 2**20}}, id="too much"),
    ],
)
async def test_an_answer_that_is_none(server: CatalogueServer, kind: HttpKind, images: dict[str, object]) -> None:
    server.say(images)
    with pytest.raises(CatalogueError):
        await kind.locate("a", None)


async def test_a_wrong_token(server: CatalogueServer) -> None:
    server.say({"a": {"url": "s3://b/k"}})
    kind = HttpKind(HttpOptions(server.url, "wrong"))
    with pytest.raises(CatalogueError, match="401"):
        await kind.locate("a", None)
    await kind.close()


async def test_one_that_does_not_answer_in_time(server: CatalogueServer) -> None:
    server.say({"a": {"url": "s3://b/k"}, "__wait_s__": 0.5})
    kind = HttpKind(HttpOptions(server.url, TOKEN, timeout_s=0.05))
    with pytest.raises(CatalogueError, match="does not answer"):
        await kind.locate("a", None)
    await kind.close()


async def test_one_that_is_not_there() -> None:
    kind = HttpKind(HttpOptions("http://127.0.0.1:9/{id}"))
    with pytest.raises(CatalogueError, match="does not answer"):
        await kind.locate("a", None)
    await kind.close()


async def test_unknown_images_are_asked_for_once(server: CatalogueServer, kind: HttpKind, tmp_path: Path) -> None:
    server.say({})
    catalogue = Catalogue([kind], Sources([open_source(str(tmp_path))]), ttl_s=60)
    for _ in range(3):
        with pytest.raises(Missing):
            await catalogue.locate("none")
    assert server.asked() == ["404 none"]


@pytest.mark.parametrize(
    ("url", "token", "message"),
    [
        ("ftp://host/{id}", None, "no http"),
        ("https://host/", None, "{id}"),
        ("http://host/{id}", "secret", "without TLS"),
    ],
)
def test_what_cannot_be_a_catalogue(url: str, token: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions(url, token)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
