"""What the connection answers by itself is what the application would have answered, byte for byte."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.types import Receive, Scope, Send

from special.auth import Rules
from special.auth.access import PatternRule
from special.images import Rule
from special.observability import logs, metrics
from special.settings import load
from special.web.app import App
from special.web.protocol import RequestLimits
from tests.support.in_process import LIMITS, serving
from tests.support.live import MASTERS
from tests.support.logins import SECRET, token

pytestmark = pytest.mark.service

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

    async def is_at_hand(self, path: str, *more: str) -> bool:
        """Ask once more; whether the application was not asked."""
        before = self.app.asked
        await self.get(path, *more)
        return self.app.asked == before + 1  # for the page that closes the connection

    async def warm(self, *paths: str) -> None:
        for path in paths:
            for _ in range(3):
                assert (await self.get(path)).startswith(b"HTTP/1.1 200"), path


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


@pytest.fixture
async def site(library: Path, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_of(library, tmp_path) as opened:
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
    login = {"jwt_key": library / "key"} if "jwt_cookie" in chosen else {}
    async with site_of(library, tmp_path, **chosen, **login) as site:
        sent, answered = await compare(site, 21, 200)
    assert sent > 300
    assert answered > 40


@pytest.mark.long
@pytest.mark.parametrize("chosen", WAYS)
async def test_both_ways_answer_many_requests_the_same(library: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    login = {"jwt_key": library / "key"} if "jwt_cookie" in chosen else {}
    async with site_of(library, tmp_path, **chosen, **login) as site:
        sent, answered = await compare(site, 2026, 10_000)
    assert sent > 15_000
    assert answered > 5_000

