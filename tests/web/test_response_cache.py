"""What the connection answers by itself is what the application would have answered, byte for byte."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from starlette.types import Receive, Scope, Send

from special.auth import Rules
from special.auth.access import PatternRule
from special.images import Rule
from special.observability import logs, metrics
from special.settings import load
from special.web import response_cache
from special.web.app import App
from special.web.protocol import RequestLimits
from tests.support.in_process import LIMITS, serving
from tests.support.live import MASTERS
from tests.support.logins import SECRET, token
from tests.support.servers import S3Server

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]

TILED = "herbarium.tif"
"""Its tiles of 256 pixels pass through undecoded."""
TILES = [f"/iiif/3/{TILED}/{256 * x},{256 * y},256,256/max/0/default.jpg" for x in range(3) for y in range(3)]
THUMB = "/thumbs/open.png/full/!200,200/0/default.jpg"
AT_HAND = [
    THUMB,
    "/thumbs/v3/open.png/full/100,75/0/default.jpg",
    "/iiif/open.png/full/200,/0/default.jpg",
    "/iiif/2/open%2Epng/full/200,/0/default.jpg",
    "/iiif/open.png/info.json",
    "/iiif/3/open.png/info.json",
    "/thumbs/open.png/info.json",
    f"/iiif/v2/{TILED}/info.json",
    *TILES,
]
OTHERS = [
    "/iiif/3/open.png/0,0,40,40/max/0/default.jpg",
    "/thumbs/open.png/full/50,/0/default.jpg",
    "/iiif/3/closed.png/info.json",
    "/iiif/3/closed.png/full/100,/0/default.jpg",
    "/iiif/3/closed.png/full/200,/0/default.jpg",
    "/thumbs/closed.png/full/200,150/0/default.jpg",
    "/iiif/open.png",
    "/iiif/missing.png/info.json",
    "/iiif/3/open.png/full/0,/0/default.jpg",
    "/iiif/%2e%2e/info.json",
    "/readyz",
    "/nothing",
]
HOSTS = ["a.example", "a.example", "A.example:8080", "b.example", "evil.test", "a b", ""]
ACCEPTS = [
    "image/avif,image/webp,*/*",
    "application/ld+json",
    'application/ld+json;profile="http://iiif.io/api/image/2/context.json"',
]
MORE = [
    ("User-Agent", ["curl/8", "Mozilla/5.0 (X11; Linux x86_64)"]),
    ("Accept-Encoding", ["gzip, deflate, br"]),
    ("Connection", ["keep-alive", "keep-alive", "close", "upgrade"]),
    ("Range", ["bytes=0-99", "bytes=5-", "bytes=9-1", "x"]),
    ("If-Range", ['"x"']),
    ("Authorization", [f"Bearer {token('reader')}", f"Bearer {token('reader', lasts_s=-60)}", "Basic eDp5"]),
    ("Cookie", [f"login={token('reader')}", "theme=dark", "login=x"]),
    ("Origin", ["https://viewer.example", "https://other.example"]),
    ("X-Forwarded-For", ["192.0.2.1", "192.0.2.2, 127.0.0.1"]),
    ("X-Forwarded-Host", ["b.example", "evil.test", "a b"]),
    ("X-Forwarded-Proto", ["https", "ftp"]),
    ("X-Forwarded-Port", ["8443"]),
    ("X-Forwarded-Prefix", ["/images", "nonsense"]),
    ("X-Forwarded-Path", ["/other"]),
    ("Forwarded", ["for=192.0.2.1;host=b.example;proto=https"]),
    ("X-Offload-To", ["/stored/"]),
    ("Expect", ["100-continue"]),
    ("Upgrade", ["websocket", "h2c"]),
    ("Content-Length", ["0"]),
    ("X-Real-IP", ["192.0.2.7"]),
    ("Host", ["a.example"]),
]


class CountedApp(App):
    """Counts the requests that reach it."""

    asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += scope["type"] == "http"
        await super().__call__(scope, receive, send)


@dataclass
class Site:
    """One running application behind two ports: on one it leaves answers at hand, on the other it cannot."""

    app: CountedApp
    port: int
    ordinary: int

    async def ask(self, data: bytes, *, port: int | None = None) -> bytes:
        """All that is answered to some requests, the last of which closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(data)
        async with asyncio.timeout(30):
            answered = await reader.read()
        writer.close()
        return answered

    async def get(self, path: str, *more: str) -> bytes:
        return await self.ask(request(path, *more) + CLOSING)

    async def is_cached(self, path: str, *more: str) -> bool:
        """Ask once more; whether the application was not asked."""
        before = self.app.asked
        await self.get(path, *more)
        return self.app.asked == before + 1  # for the page that closes the connection

    async def warm(self, *paths: str) -> None:
        """Ask until the answers are at hand: blocks of a master may be in memory later than they are first answered."""
        for path in paths:
            for _ in range(20):
                assert (await self.get(path)).startswith(b"HTTP/1.1 200"), path
                if await self.is_cached(path):
                    break
            else:
                pytest.fail(f"{path} is never at hand")


def request(path: str, *more: str, method: str = "GET", host: str = "a.example", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", f"Host: {host}", *more, "", ""]).encode("latin-1")


CLOSING = request("/readyz", "Connection: close")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("library")
    (root / "masters").mkdir()
    (root / "masters" / TILED).write_bytes((MASTERS / TILED).read_bytes())
    picture = Image.effect_noise((400, 300), 80).convert("RGB")
    for name in ("open.png", "closed.png", TILED):
        if name != TILED:
            picture.save(root / "masters" / name)
        for folder in ("open", "auth"):
            (root / "thumbs" / name / folder).mkdir(parents=True)
            for side in (100, 200):
                picture.resize((side, side * 3 // 4)).save(root / "thumbs" / name / folder / f"{side}.jpg")
        sizes = {"o": [[100, 75]], "a": [[200, 150]]} if name == "closed.png" else {"o": [[200, 150], [100, 75]]}
        (root / "thumbs" / name / "s.json").write_text(json.dumps({"o": []} if name == TILED else sizes))
    (root / "key").write_bytes(SECRET)
    return root


@asynccontextmanager
async def site_of(
    library: Path, home: Path, *, proxies: str = "10.0.0.1", limits: RequestLimits = LIMITS, **chosen: Any
) -> AsyncIterator[Site]:
    settings = {
        "source": str(library / "masters"),
        "thumbs": str(library / "thumbs"),
        "home": home,
        "decoders": 1,
        "asset_ttl_s": 3600,
        "trusted_proxies": [proxies],
        **chosen,
    }
    app = CountedApp(load(**settings))

    async def ordinary(scope: Scope, receive: Receive, send: Send) -> None:
        await App.__call__(app, scope, receive, send)

    async with (
        app.running(),
        serving(app, limits=limits, proxies=proxies) as port,
        serving(ordinary, limits=limits, proxies=proxies) as other,
    ):
        yield Site(app, port, other)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(library: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site_of(library, tmp_path_factory.mktemp("home")) as opened:
        yield opened


# The same both ways


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    """What the log says of requests, but for times."""
    lines: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = record.__dict__["fields"]
            lines.append({name: value for name, value in fields.items() if not name.endswith("ms")})

    logger, handler = logging.getLogger(logs.LOGGER), Kept()
    level, logger.propagate = logger.level, False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True


def counted() -> Counter[tuple[str, ...]]:
    """What the metrics say of answers, but for times."""
    metrics.flush()
    families = [*metrics.ANSWERS.collect(), *metrics.ANSWER_SECONDS.collect()]
    samples = (it for family in families for it in family.samples if it.name.endswith(("_total", "_count")))
    return Counter({(it.name, *it.labels.values()): int(it.value) for it in samples})


def comparable(answers: bytes) -> bytes:
    """Answers without what no two answers have in common."""
    answers = re.sub(rb"\r\ndate: [^\r]+", b"\r\ndate: -", answers)
    return re.sub(rb"\r\nserver-timing: [^\r]+ decode;dur=(?!0\.0,)[^\r]+", b"\r\nserver-timing: -", answers)


async def observed(site: Site, port: int, data: bytes) -> tuple[bytes, Counter[tuple[str, ...]], list[dict[str, Any]]]:
    """Everything that some requests cause."""
    before = counted()
    with logged() as lines:
        answers = comparable(await site.ask(data, port=port))
    return answers, counted() - before, lines


def difference(data: bytes, found: bytes, expected: bytes) -> str:
    """Where two answers part, and what was asked."""
    at = next((at for at, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), 0)
    return f"{data!r}\n{found[at - 60 : at + 60]!r}\n{expected[at - 60 : at + 60]!r}"


def conditions(rng: random.Random, known: dict[str, list[str]], path: str) -> Iterator[str]:
    """`If-None-Match` and `If-Modified-Since`, mostly such as come from clients that have the image."""
    etag, *modified = known.get(path, ['"x"'])
    if rng.random() < 0.4:
        value = rng.choice([etag, etag, etag, f"W/{etag}", "*", f'"a", {etag}', '"other"', "x"])
        yield f"If-None-Match: {value}"
    if modified and rng.random() < 0.2:
        yield f"If-Modified-Since: {rng.choice([*modified, 'Thu, 01 Jan 1970 00:00:00 GMT', 'yesterday'])}"


def any_request(rng: random.Random, known: dict[str, list[str]]) -> bytes:
    path = rng.choice(AT_HAND if rng.random() < 0.9 else OTHERS)
    more = list(conditions(rng, known, path))
    if rng.random() < 0.3:
        more.append(f"Accept: {rng.choice(ACCEPTS)}")
    for name, values in rng.sample(MORE, rng.choice([0, 0, 0, 0, 0, 1, 1, 2, 4])):
        more.append(f"{name}: {rng.choice(values)}")
    rng.shuffle(more)
    target = path
    if rng.random() < 0.1:
        target = rng.choice([f"{path}?", f"{path}?x=1", f"{path}#x", f"http://b.example{path}", f"{path}/"])
    return request(
        target,
        *more,
        method=rng.choice(["GET"] * 8 + ["HEAD"] * 3 + ["OPTIONS", "POST"]),
        host=rng.choice(HOSTS) if rng.random() < 0.4 else "a.example",
        version="1.0" if rng.random() < 0.03 else "1.1",
    )


async def learn(site: Site) -> dict[str, list[str]]:
    """Have everything in memory; entity tags and dates by path."""
    known = {}
    for path in (*AT_HAND, *OTHERS):
        for _ in range(3):
            head = (await site.get(path)).partition(b"\r\n\r\n")[0].decode("latin-1")
        known[path] = re.findall(r"\r\netag: ([^\r]+)", head) + re.findall(r"\r\nlast-modified: ([^\r]+)", head)
    return {path: found for path, found in known.items() if found}


CLOSED = Rules((PatternRule.of("open*", Rule(150, frozenset({"reader"}))),))


async def compare(site: Site, seed: int, batches: int) -> tuple[int, int]:
    """Ask the same of both; how many requests were sent, and how many of them the application never saw."""
    rng, known, sent, answered = random.Random(seed), await learn(site), 0, 0
    requests = [any_request(rng, known) for _ in range(batches // 4)]
    in_force = site.app.engine.catalog.in_force
    opened = in_force.rules
    for turn in range(batches):
        if turn % 50 == 0:  # an image is closed for a while
            in_force.rules = CLOSED if turn % 200 == 150 else opened
        data = b"".join(rng.choices(requests, k=rng.choice([1, 1, 1, 2, 3, 6]))) + CLOSING
        expected = await observed(site, site.ordinary, data)
        before = site.app.asked
        found = await observed(site, site.port, data)
        assert found[0] == expected[0], difference(data, found[0], expected[0])
        assert found[1:] == expected[1:], data
        asked = site.app.asked - before
        came = found[0].count(b"HTTP/1.1 ") - found[0].count(b"HTTP/1.1 100")
        sent, answered = sent + came, answered + came - asked
    in_force.rules = opened
    return sent, answered


WAYS = [
    pytest.param({"base_url": "https://images.example"}, id="a site with an address"),
    pytest.param({"proxies": "127.0.0.1"}, id="behind a proxy"),
    pytest.param({"allowed_hosts": ["*.example"]}, id="some hosts"),
    pytest.param(
        {
            "proxies": "127.0.0.1",
            "jwt_algorithms": "HS256",
            "jwt_cookie": "login",
            "auth_profile": "external",
            "auth_origins": ["https://viewer.example"],
        },
        id="with a login",
    ),
]


@pytest.mark.parametrize("chosen", WAYS)
async def test_both_ways_answer_count_and_log_the_same(library: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    login: dict[str, Any] = {"jwt_key": library / "key"} if "jwt_cookie" in chosen else {}
    async with site_of(library, tmp_path, **chosen, **login) as site:
        sent, answered = await compare(site, 21, 200)
    assert sent > 300
    assert answered > 40


@pytest.mark.long
@pytest.mark.parametrize("chosen", WAYS)
async def test_both_ways_answer_many_requests_the_same(library: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    login: dict[str, Any] = {"jwt_key": library / "key"} if "jwt_cookie" in chosen else {}
    async with site_of(library, tmp_path, **chosen, **login) as site:
        sent, answered = await compare(site, 2026, 10_000)
    assert sent > 15_000
    assert answered > 5_000


# What it depends on


async def test_everything_that_is_in_memory_is_cached(site: Site) -> None:
    await site.warm(*AT_HAND)
    for path in AT_HAND:
        etag = re.findall(rb"\r\netag: ([^\r]+)", await site.get(path))[0].decode()
        for method in ("GET", "HEAD"):
            asked = request(path, f"If-None-Match: {etag}", method=method) + CLOSING
            first = await site.ask(asked)
            before = site.app.asked
            assert comparable(await site.ask(asked)) == comparable(first)
            assert first.startswith(b"HTTP/1.1 304")
            assert site.app.asked == before + 1


async def test_what_is_made_refused_or_restricted_is_never_cached(site: Site) -> None:
    for path in OTHERS:
        for _ in range(4):
            await site.get(path)
        assert not await site.is_cached(path), path


async def test_every_header_that_is_read_is_in_the_key_or_leads_the_ordinary_way() -> None:
    """The modules that read request headers name them as bytes."""
    package = Path(response_cache.__file__).parents[1]
    read: set[bytes] = set()
    for module in ("web/request.py", "web/proxies.py", "auth/identity.py"):
        read |= set(re.findall(rb'b"([a-z][a-z-]+)"', (package / module).read_bytes()))
    read |= set(re.findall(rb'header\(b"([a-z-]+)"\)', (package / "web/images.py").read_bytes()))
    assert len(read) > 15
    known = response_cache.ResponseCache([], credentials=["Authorization", "Cookie"])
    # What is in memory is neither a range nor fetched by a proxy; who is behind a proxy does not matter to it.
    assert read - known.of_clients.keys() == {b"if-range", b"x-offload-to"}
    assert read - known.of_proxies.keys() == {b"if-range", b"x-offload-to", b"x-forwarded-for"}


async def test_a_body_is_held_by_no_more_than_its_cache(library: Path, tmp_path: Path) -> None:
    small = (library / "thumbs" / "open.png" / "open" / "100.jpg").stat().st_size
    large = (library / "thumbs" / "open.png" / "open" / "200.jpg").stat().st_size
    other = "/thumbs/open.png/full/100,75/0/default.jpg"
    async with site_of(library, tmp_path, hot_size=max(small, large) + 1) as site:
        await site.warm(THUMB)
        assert await site.is_cached(THUMB)
        await site.warm(other)  # which takes its place
        assert not await site.is_cached(THUMB)


# Read of its store

STORED = "open.png/open/200.jpg"


@pytest.fixture
def bucket(library: Path, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The thumbnails in a bucket, whose small objects are read as a whole."""
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    name = moto_s3.bucket()
    for path in (library / "thumbs").rglob("*.j*"):
        moto_s3.client().upload_file(str(path), name, str(path.relative_to(library / "thumbs")))
    return name


async def test_a_stored_size_that_is_not_in_memory_is_read_and_written_without_the_application(
    library: Path, tmp_path: Path, bucket: str
) -> None:
    stored = (library / "thumbs" / STORED).read_bytes()
    async with site_of(library, tmp_path, hot_size=0, thumbs=f"s3://{bucket}") as site:
        await site.warm(THUMB)
        before, asked = counted(), site.app.asked
        with logged() as lines:
            answer = await site.get(THUMB)
        assert site.app.asked == asked + 1
        assert stored in answer
        assert b'desc="gets=1 bytes=%d"' % len(stored) in answer
        assert (counted() - before)["special_answers_total", "thumb", "200"] == 1
        assert [(it["status"], it["gets"], it["bytes"]) for it in lines] == [(200, 1, len(stored))]
        asked = site.app.asked
        await asyncio.gather(*(site.get(THUMB) for _ in range(20)))
        assert site.app.asked == asked + 20, "the closing ones"
        assert (await site.ask(request(THUMB) * 10 + CLOSING)).count(stored) == 10
        data = request(THUMB, "If-None-Match: x") + request(THUMB, method="HEAD") + request(THUMB) + CLOSING
        for _ in range(3):
            assert await observed(site, site.port, data) == await observed(site, site.ordinary, data)


async def test_what_was_replaced_or_removed_in_its_store_is_answered_as_the_application_does(
    library: Path, tmp_path: Path, bucket: str, moto_s3: S3Server
) -> None:
    client, other = moto_s3.client(), (library / "thumbs" / "open.png" / "open" / "100.jpg").read_bytes()
    async with site_of(library, tmp_path, hot_size=0, thumbs=f"s3://{bucket}") as site:
        await site.warm(THUMB)
        assert await site.is_cached(THUMB)
        client.put_object(Bucket=bucket, Key=STORED, Body=other)
        answer = await site.get(THUMB)
        assert other in answer
        assert b"gets=2" in answer, "it was read twice"
        await site.warm(THUMB)
        assert await site.is_cached(THUMB)
        outcomes = []
        for port in (site.port, site.ordinary):
            client.delete_object(Bucket=bucket, Key=STORED)
            outcomes.append(await observed(site, port, request(THUMB) + CLOSING))
            client.put_object(Bucket=bucket, Key=STORED, Body=other)
            await site.warm(THUMB)
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][0].startswith(b"HTTP/1.1 404")


# As on any connection

MANY = 4000
"""Requests for tiles, whose answers are more than the kernel buffers for a connection."""


async def body_of_one(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer, which is a 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes, whether the connection is then closed or reset."""
    received = []
    with suppress(ConnectionResetError):
        while data := await reader.read(1 << 20):
            received.append(data)
    return b"".join(received)


async def test_a_pipeline_is_answered_in_its_order(site: Site) -> None:
    await site.warm(*TILES)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    bodies = {}
    for path in (*TILES, OTHERS[0]):
        writer.write(request(path))
        bodies[path] = await body_of_one(reader)
    assert len(set(bodies.values())) == len(bodies)
    order = [*TILES, OTHERS[0], TILES[0], OTHERS[0], *TILES[::-1]]
    writer.write(b"".join(map(request, order)))
    for path in order:
        assert await body_of_one(reader) == bodies[path], path
    writer.close()


async def test_a_client_that_does_not_read_is_not_written_to_without_end(site: Site) -> None:
    await site.warm(TILES[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
    before = counted()
    writer.write(request(TILES[0]) * MANY)
    await asyncio.sleep(0.5)
    written = (counted() - before)["special_answers_total", "tile", "200"]
    assert 0 < written < MANY / 2, "what fits into the kernel's buffers"
    for _ in range(MANY):
        await body_of_one(reader)
    writer.close()


async def test_a_client_that_takes_nothing_loses_its_connection(library: Path, tmp_path: Path) -> None:
    limits = RequestLimits(4096, 16384, receive_s=30.0, write_s=0.3)
    async with site_of(library, tmp_path, limits=limits) as site:
        await site.warm(TILES[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
        writer.write(request(TILES[0]) * MANY)
        await asyncio.sleep(2.0)
        async with asyncio.timeout(20):
            received = await read_to_the_end(reader)
        assert received.count(b"HTTP/1.1 200 OK") < MANY
        writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(site: Site) -> None:
    await site.warm(THUMB)
    async with serving(site.app, keep_alive_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(5):
            writer.write(request(THUMB))
            await body_of_one(reader)
            await asyncio.sleep(0.4)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_a_server_that_stops_closes_connections_that_wait_for_nothing(site: Site) -> None:
    await site.warm(THUMB)
    async with serving(site.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(THUMB))
        await body_of_one(reader)
    assert await reader.read() == b""
    writer.close()


async def test_one_connection_too_many_is_refused_what_is_cached(site: Site) -> None:
    await site.warm(THUMB)
    async with serving(site.app, connections=4, proxies="10.0.0.1") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(THUMB))
        await body_of_one(reader)
        assert (await site.ask(request(THUMB) + CLOSING, port=port)).startswith(b"HTTP/1.1 503")
        writer.close()
