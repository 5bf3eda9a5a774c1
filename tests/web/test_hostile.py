"""Bad input gets a clear 4xx, before any upstream call (promise P8)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from special import composition
from special.images.masters import Masters
from special.renditions import RenditionStore
from special.serving.engine import Engine
from special.settings import Settings, load
from special.storage import open_source
from special.volume import Volume
from special.web.app import App
from special.workers import Lane, Workers
from tests.support.fakes import CountingSource
from tests.support.hostile import addresses, exercise

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]

NOT_IN_HEADERS = re.compile(rb"[\x00-\x1f\x7f]")
WORDS = ["a\r\nX-Injected: 1", "a\nSet-Cookie: b=1", "<script>", "\x00", "é\r\n\r\nbody", "a b", '"', "%0d%0aX: y"]


@dataclass
class Site:
    """A server that writes down whatever it asks of its stores."""

    app: App
    masters: CountingSource
    thumbs: CountingSource

    async def get(self, path: str, *headers: tuple[bytes, bytes], query: str = "") -> tuple[int, list[Any], bytes]:
        """Status, headers and body of what is answered; as uvicorn asks, but with no word about what may be asked."""
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8"),
            "query_string": query.encode("utf-8"),
            "headers": [(b"host", b"a.example"), *headers],
            "client": ("127.0.0.1", 4711),
        }

        async def receive() -> dict[str, Any]:
            raise AssertionError("nobody waits for the client where nothing is made")

        async def send(message: Any) -> None:
            sent.append(message)

        self.masters.clear()
        self.thumbs.clear()
        await self.app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], list(sent[0]["headers"]), body

    @property
    def calls(self) -> int:
        """How many requests reached a store."""
        return len(self.masters.calls) + len(self.thumbs.calls)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = tmp_path_factory.mktemp("hostile")
    (root / "masters").mkdir()
    (root / "secret").write_bytes(b"a key of this test suite, which is 64 bytes long or a little more!")
    Image.new("RGB", (64, 48), "teal").save(root / "masters" / "plain.png")
    masters = CountingSource(open_source(str(root / "masters")))
    thumbs = CountingSource(open_source(str(root / "thumbs"), create=True))
    lane = Lane("tile", running=1, queue=1, deadline_s=10.0)

    def made(chosen: Settings) -> Engine:
        return composition.assemble(
            chosen,
            source=masters,
            store=RenditionStore(thumbs),
            masters=Masters(masters),
            volume=Volume(root / "volume", size_bytes=2**24),
            workers=Workers(1, memory_bytes=2**31, lanes=[lane], spare=0),
        )

    chosen = load(
        source=str(root / "masters"),
        home=root,
        jwt_key=root / "secret",
        jwt_algorithms="HS256",
        jwt_cookie="login",
        auth_profile="external",
    )
    app = App(chosen, made)
    async with app.running():
        yield Site(app, masters, thumbs)


def check(site: Site, path: str, answer: tuple[int, list[Any], bytes]) -> None:
    """That an address was refused by itself, in one plain sentence, without a word to any store."""
    status, headers, body = answer
    named = dict(headers)
    assert 400 <= status < 500, f"{path}: {status}"
    assert site.calls == 0, f"{path}: {site.masters.calls} {site.thumbs.calls}"
    assert named[b"content-type"] == b"text/plain; charset=utf-8"
    assert named[b"cache-control"] == b"no-store"
    assert not any(NOT_IN_HEADERS.search(part) for pair in headers for part in pair)
    assert body.count(b"\n") == 1
    assert b"Traceback" not in body


def refused(site: Site, path: str) -> Coroutine[Any, Any, None]:
    async def asked() -> None:
        check(site, path, await site.get(path))

    return asked()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=addresses())
async def test_bad_addresses_are_refused_before_any_store_is_asked(site: Site, path: str) -> None:
    await refused(site, path)


@pytest.mark.long
@settings(max_examples=50_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=addresses())
async def test_many_bad_addresses_are_refused_before_any_store_is_asked(site: Site, path: str) -> None:
    await refused(site, path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=60), prefix=st.sampled_from(["iiif/", "thumbs/3/", "auth/"]))
async def test_any_text_at_all_is_answered(site: Site, text: str, prefix: str) -> None:
    """Whatever it is, it is no server's failure, and no word of it gets into a header as it stands."""
    status, headers, _ = await site.get(f"/{prefix}{text}", query=text)
    assert status < 500
    assert not any(NOT_IN_HEADERS.search(part) for pair in headers for part in pair)


@settings(max_examples=300, deadline=None)
@given(
    path=st.from_regex(r"(2/|v3/)?[a-c%0-9]{1,5}/[a-z0-9,:.]{1,12}/[!^a-z0-9,:.]{1,9}/!?[0-9.]{1,4}/[a-z]+\.(jpg|png)")
)
async def test_a_canonical_address_gives_the_same_job(path: str) -> None:
    exercise(path.encode())


async def test_an_identifier_is_decoded_exactly_once(site: Site) -> None:
    status, _, _ = await site.get("/iiif/%252e%252e%252fetc%252fpasswd/info.json")
    assert status == 404
    assert {call.key for call in site.masters.calls} == {"%2e%2e%2fetc%2fpasswd"}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "name",
    ["host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-for", "accept", "range", "if-none-match",
     "if-modified-since", "if-range", "authorization", "cookie", "origin"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/iiif/plain.png", "/iiif/3/plain.png/info.json", "/auth/token"])
async def test_no_header_of_a_request_breaks_a_header_of_an_answer(site: Site, path: str, name: str, word: str) -> None:
    query = f"messageId={word}&origin={word}"
    status, headers, _ = await site.get(path, (name.encode(), word.encode("utf-8")), query=query)
    assert status < 500
    assert not any(NOT_IN_HEADERS.search(part) for pair in headers for part in pair)
    assert {header for header, _ in headers} & {b"x-injected", b"set-cookie"} == set()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/viewer/..%2F..%2Fsettings.py", id="out of the viewer's folder"),
        pytest.param("/viewer/../settings.py", id="the same, plainly"),
        pytest.param("/viewer/%00", id="NUL"),
        pytest.param("/static/x", id="no such page"),
    ],
)
async def test_pages_lead_nowhere_else(site: Site, path: str) -> None:
    status, _, _ = await site.get(path)
    assert status == 404
    assert site.calls == 0


async def test_the_library_is_not_written_into_refusals(site: Site, tmp_path: Path) -> None:
    _, _, body = await site.get("/iiif/nothing.png/info.json")
    assert site.masters.root.encode() not in body
