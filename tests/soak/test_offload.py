"""nginx in front fetches stored renditions by itself, and nobody sees a difference but in who did the work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import jwt
import pytest

from tests.support.live import MASTERS, LiveServer
from tests.support.nginx import OFFLOAD, needs_nginx, nginx
from tests.support.servers import S3Server

NAMES = ("leaf.jpg", "shelf/1 & more é.jpg")
SECRET = "0123456789abcdef0123456789abcdef"
SIZES = {"o": [[400, 300], [200, 150]], "a": []}
PIXELS = bytes(range(256)) * 40
THEIRS = ("date", "server", "server-timing", "connection", "accept-ranges", "expires")
"""Headers that tell of the server and the moment, not of the answer. Cache-Control overrides Expires."""
pytestmark = needs_nginx


@dataclass(frozen=True)
class Site:
    """The same images, with and without nginx in front."""

    s3: S3Server
    thumbs: str
    front: str
    back: str


@pytest.fixture(scope="module")
def site(
    serve: Callable[..., LiveServer], seaweed_s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    masters, thumbs, client = seaweed_s3.bucket(), seaweed_s3.bucket(), seaweed_s3.client()
    client.upload_file(str(MASTERS / "moon.jpg"), masters, "leaf.jpg")
    for name in NAMES:
        client.put_object(Bucket=thumbs, Key=f"{name}/s.json", Body=json.dumps(SIZES).encode())
        client.put_object(Bucket=thumbs, Key=f"{name}/open/400.jpg", Body=PIXELS, ContentType="image/jpeg")
    # Where an older site keeps it, and nginx does not look.
    legacy = "leaf.jpg/full/200,150/0/default.jpg"
    client.put_object(Bucket=thumbs, Key=legacy, Body=PIXELS[:99], ContentType="image/jpeg")
    restricted = {"o": [], "a": [[400, 300]]}
    client.put_object(Bucket=thumbs, Key="secret/s.json", Body=json.dumps(restricted).encode())
    client.put_object(Bucket=thumbs, Key="secret/auth/400.jpg", Body=PIXELS, ContentType="image/jpeg")
    key = tmp_path_factory.mktemp("keys") / "secret"
    key.write_text(SECRET)
    settings = seaweed_s3.environ | {
        "SPECIAL_OFFLOAD": "true",
        "SPECIAL_HOT_SIZE": "0",
        "SPECIAL_JWT_KEY": str(key),
        "SPECIAL_JWT_ALGORITHMS": "HS256",
    }
    server = serve(f"s3://{masters}", "--thumbs", f"s3://{thumbs}", settings=settings)
    with nginx(OFFLOAD, tmp_path_factory.mktemp("nginx"), [server.url.removeprefix("http://")]) as front:
        yield Site(seaweed_s3, thumbs, front, server.url)


def path(name: str, size: str = "400,") -> str:
    return f"/thumbs/{quote(name, safe='')}/full/{size}/0/default.jpg"


def headers(answer: httpx.Response) -> dict[str, str]:
    """Those that callers go by. The order of what Cache-Control says does not matter."""
    stores = ("x-amz", "seaweed-")
    kept = {name: it for name, it in answer.headers.items() if name not in THEIRS and not name.startswith(stores)}
    return kept | {"cache-control": ", ".join(sorted(set(kept["cache-control"].split(", "))))}


def both(site: Site, asked: str, method: str = "GET", **conditions: str) -> tuple[httpx.Response, httpx.Response]:
    """The answer with nginx in front and the one without, which must be the same."""
    with httpx.Client(timeout=60, transport=httpx.HTTPTransport(retries=20)) as client:
        sent = {name.replace("_", "-"): value for name, value in conditions.items()} | {"host": "example.org"}
        front, back = (client.request(method, base + asked, headers=sent) for base in (site.front, site.back))
    assert (front.status_code, front.content) == (back.status_code, back.content)
    assert headers(front) == headers(back)
    return front, back


def gets(site: Site, answer: httpx.Response) -> int:
    """How many GETs special itself has sent for an answer."""
    return int(answer.headers["server-timing"].split("gets=")[1].split(" ")[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_thumb_comes_from_the_bucket_past_us(site: Site, name: str) -> None:
    both(site, path(name))  # the sizes file is known from here on
    front, back = both(site, path(name))
    assert front.content == PIXELS
    assert front.headers["x-special-route"] == "thumb"
    assert (gets(site, front), gets(site, back)) == (0, 1)


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        pytest.param({"range": "bytes=100-199"}, 206, id="a range"),
        pytest.param({"range": "bytes=100-"}, 206, id="the rest"),
        pytest.param({"range": "bytes=99999-"}, 416, id="past the end"),
        pytest.param({"if_none_match": '"other"'}, 200, id="another version"),
        pytest.param({"if_modified_since": "Mon, 01 Jan 2001 00:00:00 GMT"}, 200, id="long ago"),
    ],
)
def test_conditions_and_ranges_are_the_buckets(site: Site, conditions: dict[str, str], status: int) -> None:
    named = {name.replace("_", "-"): value for name, value in conditions.items()}
    with httpx.Client(timeout=60) as client:
        front, back = (client.get(base + path(NAMES[0]), headers=named) for base in (site.front, site.back))
    assert front.status_code == back.status_code == status
    if status != 416:
        assert front.content == back.content
        assert front.headers.get("content-range") == back.headers.get("content-range")
        assert front.headers["etag"] == back.headers["etag"]


def test_what_the_caller_has_is_not_sent(site: Site) -> None:
    etag = httpx.get(site.back + path(NAMES[0])).headers["etag"]
    with httpx.Client(timeout=60) as client:
        front, back = (
            client.get(base + path(NAMES[0]), headers={"if-none-match": etag}) for base in (site.front, site.back)
        )
    assert (front.status_code, front.content) == (back.status_code, back.content) == (304, b"")
    assert headers(front)["cache-control"] == headers(back)["cache-control"]


def test_head_is_answered_without_a_body(site: Site) -> None:
    front, _ = both(site, path(NAMES[0]), "HEAD")
    assert (front.status_code, front.headers["content-length"]) == (200, str(len(PIXELS)))


def test_a_file_elsewhere_is_found_by_us(site: Site) -> None:
    front, _ = both(site, path(NAMES[0], "200,"))
    assert (front.status_code, front.content) == (200, PIXELS[:99])


def test_what_is_restricted_is_asked_of_us_first_and_kept_by_nobody(site: Site) -> None:
    front, _ = both(site, path("secret"))
    assert front.status_code == 401
    assert PIXELS not in front.content
    token = jwt.encode({"roles": ["reader"], "exp": 2**33}, SECRET, algorithm="HS256")
    front, _ = both(site, path("secret"), authorization=f"Bearer {token}")
    assert (front.status_code, front.content) == (200, PIXELS)
    assert headers(front)["cache-control"] == "no-store, private"
    assert gets(site, both(site, path("secret"), authorization=f"Bearer {token}")[0]) == 0


def test_nobody_is_told_the_address(site: Site) -> None:
    """Neither through nginx nor at the place that is nginx's own; who asks special itself, and may, gets the bytes."""
    front, back = both(site, path(NAMES[0]))
    told = {"x-stored-url", "x-accel-redirect", "x-stored-cache-control"}
    assert not told & (set(front.headers) | set(back.headers))
    assert httpx.get(f"{site.front}/_stored").status_code == 404


def test_a_trusted_proxy_is_told_at_its_place_alone_and_no_cache_stores_it(site: Site) -> None:
    told = httpx.get(site.back + path(NAMES[0]), headers={"x-offload-to": "/_stored"})
    assert told.headers["x-accel-redirect"] == "/_stored"
    assert httpx.get(told.headers["x-stored-url"]).content == PIXELS
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["x-stored-cache-control"] == "public, max-age=86400"
    for place in ("/_other", "/_stored/", ""):
        other = httpx.get(site.back + path(NAMES[0]), headers={"x-offload-to": place})
        assert other.content == PIXELS
        assert "x-stored-url" not in other.headers


def test_a_client_s_forwarded_headers_end_at_nginx(site: Site) -> None:
    invented = {f"x-forwarded-{name}": "evil" for name in ("for", "proto", "host", "port", "prefix", "path")}
    invented["forwarded"] = "host=evil.example"
    for size in ("400,", "200,"):  # from the bucket, and by special after the bucket had none
        answer = httpx.get(site.front + path(NAMES[0], size), headers=invented | {"host": "example.org"})
        assert answer.headers["link"].startswith("<http://example.org/thumbs/")
        assert headers(answer)["cache-control"] == "max-age=86400, public"
