"""No other way in: other spellings of identifiers, `/thumbs/` by the master's key, rules that change while it serves.

The answers are judged by their pixels alone: how the server comes to them is not asked.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from special.settings import load
from special.web.app import App
from tests.support.logins import ISSUER, SECRET, token
from tests.support.servers import S3Server

pytestmark = pytest.mark.service

LIMIT = 100
"""Longest side that anybody may have of what is restricted."""
PREFIXES = ("iiif/3", "iiif/2", "iiif/v3", "iiif", "iiif-img", "thumbs", "thumbs/2")
TAILS = ("info.json", "full/max/0/default.jpg", "full/400,/0/default.jpg", "0,0,300,300/max/0/default.jpg")
URLS = [f"/{prefix}/{{}}/{tail}" for prefix, tail in product(PREFIXES, TAILS)]
STAFF = (b"authorization", f"Bearer {token('staff')}".encode())
SAMPLE = 250
"""Requests for each place in the short form."""
COMMON = f"""
decoders = 1
jwt_algorithms = ["HS256"]
jwt_issuer = "{ISSUER}"
default_roles = ["staff"]
"""
RULE = '[[rules]]\nidentifiers = "{}"\nmax_unauthorised = {}\nroles = ["staff"]\n'


def picture(width: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, width * 2 // 3), 60).convert("RGB").save(out, "JPEG")
    return out.getvalue()


def renditions(identifier: str, restricted: bool) -> dict[str, bytes]:
    """Of 100 and 400 pixels, as a DLCS lays them out."""
    sizes = {"o": [[100, 66]], "a": [[400, 266]]} if restricted else {"o": [[400, 266], [100, 66]]}
    return {
        f"{identifier}/s.json": json.dumps(sizes).encode(),
        f"{identifier}/open/100.jpg": picture(100),
        f"{identifier}/{'auth' if restricted else 'open'}/400.jpg": picture(400),
    }


def write(folder: Path, files: dict[str, bytes]) -> None:
    for key, data in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)


async def ask(app: App, path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> tuple[int, Any, bytes]:
    """Status, headers and body; the path goes in as it is, which no client's library would do."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"a.example"), *headers],
        "client": ("127.0.0.1", 4711),
    }

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("the client stays")

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(it.get("body", b"") for it in sent[1:])


def leak(answer: tuple[int, Any, bytes], limit: int | None) -> str | None:
    """What is wrong with an answer to a client that may have sides of up to `limit`."""
    status, headers, body = answer
    if status >= 500:
        return f"{status} {body!r}"
    if status not in (200, 206, 304) or limit is None:
        return None
    if b"json" in headers.get(b"content-type", b""):
        document = json.loads(body)
        sides = [max(it["width"], it["height"]) for it in document.get("sizes", [])]
        is_level0 = "level0" in str(document["profile"])
        return None if is_level0 and "tiles" not in document and max(sides, default=0) <= limit else f"info {document}"
    if status != 200:
        return f"{status}"
    side = max(Image.open(io.BytesIO(body)).size)
    return None if side <= limit else f"a side of {side}"


@asynccontextmanager
async def running(root: Path, config: str, **flags: Any) -> AsyncIterator[App]:
    (root / "secret").write_bytes(SECRET)
    path = root / "special.toml"
    path.write_text(COMMON + config)
    app = App(load(path, home=root / "home", jwt_key=root / "secret", **flags), config=path)
    async with app.running():
        yield app


# Spellings

KEYS = {"private/x.jpg": False, "sized.jpg": True}
"""One is restricted by a rule, one by its sizes file."""


def spellings(key: str) -> set[str]:
    around = [
        "/{}",
        "//{}",
        "{}/",
        "{}//",
        "./{}",
        "/./{}",
        "{}/.",
        "a/../{}",
        "../{}",
        "x/%2e%2e/{}",
        "%2F{}",
        "%2e/{}",
    ]
    around += [
        "{} ",
        " {}",
        "{}.",
        "{}?",
        "{}#",
        "{};x",
        "{}%00",
        "{}%20",
        "{}\t",
        "\\{}",
        "{}::$DATA",
        "{}?versionId=null",
    ]
    around += ["\u2215{}", "\u200b{}", "{}\u0301", "masters/../{}", "../masters/{}"]
    found = {it.replace("{}", key) for it in around} | {key.upper(), key.title()}
    if "/" in key:
        folder, name = key.split("/")
        between = ("//", "///", "/./", "/.//", "%2F", "\\", "\u2044", "/x/../", f"/../{folder}/", "/%2e/", "/ /")
        found |= {f"{folder}{it}{name}" for it in between} | {f"/{folder}//{name}/", f"\uff50rivate/{name}"}
    return found


def written(spelling: str) -> set[str]:
    """An identifier as it may stand in a URL."""
    once = quote(spelling, safe="")
    every = "".join(f"%{byte:02X}" for byte in spelling.encode())
    return {once, once.lower().replace("%2f", "%2f"), quote(once, safe=""), every, quote(spelling, safe="/.;:$")}


def attempts() -> list[str]:
    return sorted(
        url.replace("{}", form) for key in KEYS for it in spellings(key) for form in written(it) for url in URLS
    )


PLACES = ["folder", "moto", "seaweed", "moto, odd keys", "seaweed, odd keys"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of masters and renditions in a store; in buckets, and below a prefix."""
    masters = dict.fromkeys(KEYS, picture(600))
    thumbs = {key: data for name, it in KEYS.items() for key, data in renditions(name, it).items()}
    kind, _, odd = str(request.param).partition(", ")
    if kind == "folder":
        write(tmp_path / "masters", masters)
        write(tmp_path / "thumbs", thumbs)
        return {"source": str(tmp_path / "masters"), "thumbs": str(tmp_path / "thumbs")}
    server: S3Server = request.getfixturevalue(f"{kind}_s3")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    buckets = server.bucket(), server.bucket()
    for bucket, prefix, files in ((buckets[0], "masters/", masters), (buckets[1], "", thumbs)):
        for key, data in files.items():
            server.client().put_object(Bucket=bucket, Key=prefix + key, Body=data)
    places = {"source": f"s3://{buckets[0]}/masters", "thumbs": f"s3://{buckets[1]}"}
    return {**places, "odd_keys": True} if odd else places


@pytest.mark.parametrize("place", PLACES, indirect=True)
async def test_no_spelling_of_an_identifier_shows_more(place: dict[str, Any], tmp_path: Path) -> None:
    # Seeded, so that a failure comes again.
    await no_attempt_leaks(place, tmp_path, random.Random(17).sample(attempts(), SAMPLE))


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES, indirect=True)
async def test_no_spelling_of_an_identifier_shows_more_by_all_attempts(place: dict[str, Any], tmp_path: Path) -> None:
    await no_attempt_leaks(place, tmp_path, attempts())


async def no_attempt_leaks(place: dict[str, Any], root: Path, asked: list[str]) -> None:
    async with running(root, RULE.format("private/*", LIMIT), **place) as app:
        for key in KEYS:
            path = f"/iiif/3/{quote(key, safe='')}/0,0,300,300/max/0/default.jpg"
            assert (await ask(app, path, STAFF))[0] == 200
            assert (await ask(app, path))[0] == 401
        answers = [(it, await ask(app, it)) for it in asked]
        # SeaweedFS has no keys with '.' segments, and calls them a bad request.
        served = [it for it in answers if "odd_keys" not in place or it[1][0] != 502]
        assert [f"{path}: {found}" for path, answer in served if (found := leak(answer, LIMIT))] == []
        if "odd_keys" in place:
            return
        for key, prefix in product(KEYS, ("/", "//", "./", "x/../")):
            for url in URLS:
                status, _, body = await ask(app, url.replace("{}", quote(prefix + key, safe="")), STAFF)
                assert (status, b"identifier" in body) == (404, True)


@pytest.mark.parametrize("place", ["seaweed, odd keys"], indirect=True)
async def test_a_folded_spelling_is_the_same_image_to_those_who_may(place: dict[str, Any], tmp_path: Path) -> None:
    """Without which the tests above would say nothing of odd keys on a store that folds them."""
    async with running(tmp_path, RULE.format("private/*", LIMIT), **place) as app:
        for key in KEYS:
            for spelling in (f"/{key}", f"//{key}", key.replace("/", "//", 1)):
                path = f"/iiif/3/{quote(spelling, safe='')}/0,0,300,300/max/0/default.jpg"
                assert ((await ask(app, path))[0], (await ask(app, path, STAFF))[0]) == (401, 200)


def test_the_long_form_asks_more_than_ten_thousand_times() -> None:
    assert len(attempts()) * len(PLACES) > 10_000


# By the master's key


async def test_thumbs_obey_rules_on_every_key_that_the_master_may_have(tmp_path: Path) -> None:
    """Where no side-car tells the key; of each image one of the keys is that of a master."""
    names = {"private-1": LIMIT, "hidden-1": 0, "free-1": None}
    for name, folder in zip(names, ("masters", "old", "masters"), strict=True):
        write(tmp_path / "s", {f"{folder}/{name}.jpg": picture(600)})
        write(tmp_path / "t", renditions(name, restricted=False))
    rules = RULE.format("masters/private-*", LIMIT) + RULE.format("old/hidden-*", 0)
    config = 'keys = ["masters/{id}.jpg", "old/{id}.jpg"]\n' + rules
    async with running(tmp_path, config, source=str(tmp_path / "s"), thumbs=str(tmp_path / "t")) as app:
        for (name, limit), url, order in product(names.items(), URLS, (1, -1)):
            path = url.replace("{}", name)
            for headers in [(), (STAFF,)][::order]:
                answer = await ask(app, path, *headers)
                assert leak(answer, None if headers else limit) is None, path
                is_crop = "0,0," in url and "thumbs" in url
                if headers or limit is None:
                    assert answer[0] == (400 if is_crop else 200), path
        for url in ("full/400,266", "full/400,", "full/max"):
            assert (await ask(app, f"/thumbs/hidden-1/{url}/0/default.jpg"))[0] == 401


# Rules that change

STATES: list[tuple[str, dict[str, int | None], bool]] = [
    ("", {"a.jpg": None, "b.jpg": None}, True),
    (RULE.format("a*", LIMIT), {"a.jpg": LIMIT, "b.jpg": None}, True),
    (RULE.format("*", 0), {"a.jpg": 0, "b.jpg": 0}, True),
    (RULE.format("b*", LIMIT).replace("staff", "other"), {"a.jpg": None, "b.jpg": LIMIT}, False),
    (RULE.format("*", -1), {"a.jpg": None, "b.jpg": None}, True),
    (RULE.format("?.jpg", 0), {"a.jpg": 0, "b.jpg": 0}, True),
    ("[[rules]\n", {"a.jpg": 0, "b.jpg": 0}, True),
    ("", {"a.jpg": None, "b.jpg": None}, True),
]
"""Rules, the limits of images under them, and whether staff may see everything."""
CANARY = "canary.jpg"


def canary_rule(number: int) -> str:
    return RULE.format(CANARY, number + 1)


async def test_rules_that_are_read_again_hold_for_all_that_is_known(tmp_path: Path) -> None:
    """Each image is planned, its pixels are in memory, and its entity tags are known from before."""
    for name in ("a.jpg", "b.jpg", CANARY):
        write(tmp_path / "s", {name: picture(600)})
        write(tmp_path / "t", renditions(name, restricted=False))
    tags: dict[str, bytes] = {}
    count = 0
    async with running(tmp_path, canary_rule(0), source=str(tmp_path / "s"), thumbs=str(tmp_path / "t")) as app:
        for number, (text, limits, staff_may) in enumerate(STATES):
            await replace(app, tmp_path / "special.toml", COMMON + canary_rule(number) + text, number, text)
            for (name, limit), (by_staff, method) in product(limits.items(), product((True, False), ("GET", "HEAD"))):
                for path, more in ways(name, tags):
                    answer = await ask(app, path, *([STAFF] if by_staff else []), *more, method=method)
                    bound = None if by_staff and staff_may else limit
                    count += 1
                    fault = leak(answer, bound) if method == "GET" else None
                    assert fault is None, f"{number} {path} {more}: {fault}"
                    is_thumbs_crop = "thumbs" in path and "0,0," in path
                    if not permitted(path, bound):
                        assert answer[0] in ((400, 401, 403) if is_thumbs_crop else (401, 403)), (
                            f"{number} {path} {more}: {answer[0]}"
                        )
                    elif not is_thumbs_crop:
                        # An image of which nothing may be seen has a description that leads to the login.
                        expected = (401, 403) if path.endswith("info.json") and bound == 0 else (200, 304)
                        assert answer[0] in expected, f"{number} {path} {more}: {answer[0]}"
                    if bound is None and b"etag" in answer[1]:  # of what those who may not see it must not have
                        tags[path] = answer[1][b"etag"]
    assert count > 2000


def ways(name: str, tags: dict[str, bytes]) -> Iterator[tuple[str, list[tuple[bytes, bytes]]]]:
    for url in URLS:
        path = url.replace("{}", name)
        yield path, []
        if path in tags and not path.endswith("info.json"):
            yield path, [(b"if-none-match", tags[path])]


def permitted(path: str, limit: int | None) -> bool:
    """Whether a client with this limit may have any answer; what it may have on `/thumbs/` is within that crop."""
    if limit is None or path.endswith("info.json"):
        return True
    return limit == LIMIT and ("full/max" in path or ("thumbs" in path and "0,0," in path))


async def replace(app: App, config: Path, text: str, number: int, rules: str) -> None:
    """Write other rules and wait until they hold, which the canary's limit tells; broken ones never do."""
    new = config.with_name("new")
    new.write_text(text)
    new.replace(config)
    os.kill(os.getpid(), signal.SIGHUP)
    if "[[rules]\n" in rules:
        number -= 1
        await asyncio.sleep(2.5)  # the file is looked at as well
    while True:
        status, _, body = await ask(app, f"/iiif/3/{CANARY}/full/max/0/default.jpg")
        if status == 200 and max(Image.open(io.BytesIO(body)).size) == number + 1:
            return
        await asyncio.sleep(0.05)
