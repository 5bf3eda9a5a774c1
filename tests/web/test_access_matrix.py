"""Nobody sees more than they may: every kind of request, by every kind of caller, under every kind of rule."""

import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from starlette.types import Receive, Scope, Send

from special.settings import load
from special.web.app import App
from tests.support.in_process import serving
from tests.support.logins import ISSUER, SECRET, token

pytestmark = pytest.mark.asyncio(loop_scope="module")

WIDTH, HEIGHT = 640, 480
LARGEST = 800
"""Longest side that `^max` may have here."""
CONFIG = f"""
source = "masters"
max_width = {LARGEST}
upscaling = true
decoders = 2
allowed_hosts = ["*.org"]
default_roles = ["reader"]
jwt_key = "secret"
jwt_algorithms = ["HS256"]
jwt_issuer = "{ISSUER}"
jwt_cookie = "login"

[[rules]]
identifiers = "ruled-*"
max_unauthorised = 160
roles = ["reader"]

[[rules]]
identifiers = "both-*"
max_unauthorised = 100
roles = ["reader", "curator"]
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which an image is restricted."""

    name: str
    sizes: dict[str, list[list[int]]]
    """Its sizes file."""
    limit: int | None
    """Longest side that anybody may have; None: everything."""


OPEN, AUTH = [[320, 240], [160, 120]], [[320, 240]]
RULES = [
    Rule("sizes", {"o": [[160, 120]], "a": AUTH}, 160),
    Rule("closed", {"o": [], "a": OPEN}, 0),
    Rule("ruled", {"o": OPEN}, 160),
    Rule("both", {"o": [[160, 120]], "a": AUTH}, 100),
]
FREE = Rule("free", {"o": OPEN}, None)

GOOD = token("reader")
CALLERS: dict[str, dict[str, str]] = {
    "nobody": {},
    "wrong": {"Authorization": f"Bearer {token('reader', key=b'x' * 64)}"},
    "unsigned": {"Authorization": f"Bearer {token('reader', key=None, algorithm='none')}"},
    "foreign": {"Cookie": f"login={token('reader', iss='https://evil.example')}"},
    "expired": {"Cookie": f"login={token('reader', lasts_s=-60)}"},
    "known": {"Authorization": f"Bearer {token('visitor')}"},
    "valid": {"Authorization": f"Bearer {GOOD}"},
    "valid cookie": {"Cookie": f"other=1; login={GOOD}"},
}
VALID = {"valid", "valid cookie"}

CROP = 10**6
"""Side of what only those may have who may have everything."""
MAX = 0
"""Side of what is as large as the caller may have it."""
WANTED: dict[str, int] = {
    "iiif/3/{}/info.json": MAX,
    "iiif/2/{}/info.json": MAX,
    "thumbs/{}/info.json": MAX,
    "iiif/3/{}/0,0,100,100/max/0/default.jpg": CROP,
    "iiif/2/{}/320,0,320,240/80,/0/default.jpg": CROP,
    "iiif/{}/square/9,/0/gray.png": CROP,
    "iiif/3/{}/full/640,/0/default.jpg": 640,
    "iiif/2/{}/full/full/0/default.jpg": 640,
    "iiif/{}/0,0,640,480/200,/0/default.jpg": 200,
    "iiif/3/{}/full/320,/0/default.jpg": 320,
    "iiif/2/{}/full/320,/0/default.jpg": 320,
    "iiif/3/{}/full/160,/0/default.jpg": 160,
    "iiif/2/{}/full/!100,100/90/bitonal.png": 100,
    "iiif/3/{}/full/161,/!0/default.webp": 161,
    "iiif/3/{}/full/max/0/default.jpg": MAX,
    "iiif/2/{}/full/max/0/default.jpg": MAX,
    "iiif-img/{}/full/^max/0/default.jpg": MAX,
    "iiif/3/{}/full/^700,/0/default.jpg": 700,
    "thumbs/{}/full/320,240/0/default.jpg": 320,
    "thumbs/3/{}/full/160,120/0/default.jpg": 160,
    "thumbs/2/{}/full/90,/0/default.jpg": 90,
    "thumbs/{}/full/max/0/default.jpg": MAX,
}
FORMS = ["GET", "HEAD", "Range", "If-None-Match"]
CASES = [
    pytest.param(rule, caller, warm, id=f"{rule.name}, {caller}, {'warm' if warm else 'cold'}")
    for rule, caller, warm in [*product(RULES, CALLERS, (False, True)), (FREE, "nobody", False), (FREE, "wrong", True)]
]


def requests_of(rule: Rule, caller: str, warm: bool) -> Iterator[tuple[str, str, str]]:
    """Form, URL and path of each request; a cold image is asked for once, in one form or another."""
    for (row, url), (column, form) in product(enumerate(WANTED), enumerate(FORMS)):
        once = caller in VALID or not warm
        if not once or (row + list(CALLERS).index(caller)) % len(FORMS) == column:
            yield form, url, path_of(rule, caller, url, warm=warm)


def image_of(rule: Rule, caller: str, url: str, *, warm: bool) -> str:
    """A cold image is asked for once in its life."""
    return f"{rule.name}-" + ("warm" if warm else f"{list(CALLERS).index(caller)}-{list(WANTED).index(url)}")


def path_of(rule: Rule, caller: str, url: str, *, warm: bool) -> str:
    return "/" + url.format(image_of(rule, caller, url, warm=warm))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("restricted")
    (root / "masters").mkdir()
    across, down = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    master = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))
    master.save(root / "master.jpg", quality=95)
    for side in (320, 160):
        master.resize((side, side * 3 // 4)).save(root / f"{side}.jpg")
    for rule in (*RULES, FREE):
        every = product(CALLERS, WANTED, (False, True))
        names = {image_of(rule, caller, url, warm=warm) for caller, url, warm in every}
        for name in names:
            os.link(root / "master.jpg", root / "masters" / name)
            for access, folder in (("o", "open"), ("a", "auth")):
                for side, _ in rule.sizes.get(access, []):
                    (root / "thumbs" / name / folder).mkdir(parents=True, exist_ok=True)
                    os.link(root / f"{side}.jpg", root / "thumbs" / name / folder / f"{side}.jpg")
            (root / "thumbs" / name / "s.json").write_text(json.dumps(rule.sizes))
        image, page = root / "masters" / f"{rule.name}-book", root / "thumbs" / f"{rule.name}-book;2"
        master.save(image, "tiff", save_all=True, append_images=[master], compression="tiff_deflate")
        (root / "thumbs" / image.name).mkdir()
        (root / "thumbs" / image.name / "s.json").write_text(json.dumps(rule.sizes))
        (page / "open").mkdir(parents=True)
        for side, _ in OPEN:  # somebody has stored the page as if it were open
            os.link(root / f"{side}.jpg", page / "open" / f"{side}.jpg")
        (page / "s.json").write_text(json.dumps({"o": OPEN}))
    (root / "secret").write_bytes(SECRET)
    (root / "special.toml").write_text(CONFIG)
    return root


class CountedApp(App):
    """Counts the requests that reach it: others were answered by their connection."""

    asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await super().__call__(scope, receive, send)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(library: Path) -> AsyncIterator[CountedApp]:
    places = {"source": str(library / "masters"), "thumbs": str(library / "thumbs"), "volume": library / "volume"}
    app = CountedApp(load(library / "special.toml", jwt_key=library / "secret", **places))
    async with app.running():
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(app: CountedApp) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"Host": "example.org"}, timeout=60) as client,
    ):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etags(client: httpx.AsyncClient) -> dict[str, str]:
    """Entity tags of the warm images' answers, all of which somebody has had by now who may see everything."""
    known = {}
    for rule, url in product((*RULES, FREE), WANTED):
        path = path_of(rule, "valid", url, warm=True)
        answer = await client.get(path, headers=CALLERS["valid"])
        assert answer.status_code == 200, f"{path}: {answer.text}"
        known[path] = answer.headers.get("etag", "*")
    return known


async def test_the_matrix_is_large_enough() -> None:
    asked = [(form, path) for case in CASES for form, _, path in requests_of(*case.values)]
    assert len(asked) >= 3000


@pytest.mark.parametrize(("rule", "caller", "warm"), CASES)
async def test_nobody_sees_more_than_they_may(
    client: httpx.AsyncClient, etags: dict[str, str], rule: Rule, caller: str, warm: bool
) -> None:
    faults = []
    for form, url, path in requests_of(rule, caller, warm):
        more = {"Range": "bytes=0-99", "If-None-Match": etags.get(path, "*")}
        headers = CALLERS[caller] | ({form: more[form]} if form in more else {})
        answer = await client.request("HEAD" if form == "HEAD" else "GET", path, headers=headers)
        faults += [f"{form} {path}: {it}" for it in flaws(answer, rule, caller, url, form)]
        if answer.is_success and private(answer) != depends_on_caller(url, rule.limit):
            faults.append(f"{form} {path}: {answer.headers}")
    assert faults == []


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("rule", [*RULES, FREE], ids=lambda rule: rule.name)
async def test_a_page_is_restricted_as_its_image_is(client: httpx.AsyncClient, rule: Rule, caller: str) -> None:
    faults = []
    for url, form, mark in product(WANTED, ("GET", "HEAD"), (";2", "%3B2")):
        path = "/" + url.format(f"{rule.name}-book{mark}")
        answer = await client.request(form, path, headers=CALLERS[caller])
        faults += [f"{form} {path}: {it}" for it in flaws(answer, rule, caller, url, form)]
        if answer.is_success and private(answer) != depends_on_caller(url, rule.limit):
            faults.append(f"{form} {path}: {answer.headers}")
    assert faults == []


IN_MEMORY = [url for url in WANTED if "info.json" in url or "full/320," in url or "160," in url]
"""What may be answered by the connection itself."""


@pytest.mark.parametrize("rule", [*RULES, FREE], ids=lambda rule: rule.name)
async def test_what_is_cached_is_for_everybody(
    app: CountedApp, client: httpx.AsyncClient, etags: dict[str, str], rule: Rule
) -> None:
    """Whoever asked before: some callers in a row, those who may see everything among them."""
    faults, sent, before = [], 0, app.asked
    for url, form in product(IN_MEMORY, ("GET", "HEAD", "If-None-Match")):
        path = path_of(rule, "nobody", url, warm=True)
        for caller in ("valid", "nobody", "nobody", "nobody", "valid cookie", "nobody", "wrong", "known", "nobody"):
            more = {form: etags.get(path, "*")} if form == "If-None-Match" else {}
            answer = await client.request("HEAD" if form == "HEAD" else "GET", path, headers=CALLERS[caller] | more)
            sent += 1
            faults += [f"{form} {path}: {it}" for it in flaws(answer, rule, caller, url, form)]
    assert faults == []
    answered = sent - (app.asked - before)
    assert answered > sent / 5 if rule is FREE else answered == 0


@pytest.mark.parametrize("caller", CALLERS)
async def test_under_another_name_nobody_sees_anything(client: httpx.AsyncClient, caller: str) -> None:
    faults = []
    for rule, url, form in product((*RULES, FREE), WANTED, ("GET", "HEAD")):
        path = path_of(rule, caller, url, warm=True)
        answer = await client.request(form, path, headers=CALLERS[caller] | {"Host": "evil.example"})
        if answer.status_code != 421 or answer.headers["cache-control"] != "no-store" or "etag" in answer.headers:
            faults.append(f"{form} {path}: {answer.status_code} {answer.headers}")
    assert faults == []


def flaws(answer: httpx.Response, rule: Rule, caller: str, url: str, form: str) -> list[str]:
    """What is wrong with an answer to this caller."""
    limit = None if caller in VALID else rule.limit
    if is_closed_info(url, limit):
        return flaws_of_closed_info(answer, form)
    if permitted(url, limit):
        return flaws_of_answer(answer, url, form, limit)
    return flaws_of_refusal(answer, form, known=caller == "known")


def is_closed_info(url: str, limit: int | None) -> bool:
    """Whether it describes an image of which nothing may be seen: `/thumbs/` has nothing below 160."""
    return url.endswith("info.json") and limit is not None and limit < (160 if url.startswith("thumbs") else 1)


def permitted(url: str, limit: int | None) -> bool:
    """Whether there is anything to see under this limit; the stored sizes that `/thumbs/` knows are 160 and 320."""
    if limit is None or url.endswith("info.json"):
        return True
    if WANTED[url] == MAX:
        return limit >= (160 if url.startswith("thumbs") else 1)
    return WANTED[url] <= limit


def depends_on_caller(url: str, limit: int | None) -> bool:
    """Whether callers with and without a role are answered differently under this limit."""
    return limit is not None and (url.endswith("info.json") or WANTED[url] == MAX or not permitted(url, limit))


def flaws_of_closed_info(answer: httpx.Response, form: str) -> list[str]:
    """What is wrong with the description of an image of which nothing may be seen."""
    expected = {
        "status": (answer.status_code, 401),
        "caching": (answer.headers["cache-control"], "private, no-store"),
        "etag": (answer.headers.get("etag"), None),
        "challenge": (answer.headers.get("www-authenticate"), "Bearer"),
    }
    if form != "HEAD":  # a viewer hangs on one without any size
        expected["size"] = (bool(answer.json().get("sizes") or answer.json().get("tiles")), True)
    return [f"{name}: {is_} instead of {should}" for name, (is_, should) in expected.items() if is_ != should]


def flaws_of_refusal(answer: httpx.Response, form: str, *, known: bool) -> list[str]:
    """What is wrong with the answer to somebody who may not see this."""
    expected = {
        "status": (answer.status_code, 403 if known else 401),
        "media": (answer.headers["content-type"], "text/plain; charset=utf-8"),
        "caching": (answer.headers["cache-control"], "no-store"),
        "etag": (answer.headers.get("etag"), None),
        "body": (answer.text.startswith("This image is restricted"), form != "HEAD"),
        "challenge": (answer.headers.get("www-authenticate"), None if known else "Bearer"),
    }
    return [f"{name}: {is_} instead of {should}" for name, (is_, should) in expected.items() if is_ != should]


def flaws_of_answer(answer: httpx.Response, url: str, form: str, limit: int | None) -> list[str]:
    """What is wrong with the answer to somebody who may see this, with sides of up to `limit`."""
    statuses = {"GET": {200}, "HEAD": {200}, "Range": {200, 206}, "If-None-Match": {200, 304}}[form]
    if answer.status_code not in statuses:
        return [f"status: {answer.status_code}, {answer.text}"]
    if answer.status_code == 304 or form == "HEAD":
        return ["it has a body"] if answer.content else []
    if answer.status_code == 206:
        return [] if len(answer.content) == 100 else ["it is not the range"]
    if url.endswith("info.json"):
        return flaws_of_info(answer.json(), limit)
    side = max(Image.open(io.BytesIO(answer.content)).size)
    if limit is not None and side > limit:
        return [f"side: {side}"]
    return [f"side: {side}"] if WANTED[url] not in (CROP, MAX, side) else []


def flaws_of_info(document: dict[str, Any], limit: int | None) -> list[str]:
    """What is wrong with an info.json."""
    sides = [max(size["width"], size["height"]) for size in document.get("sizes", [])]
    if limit is None:
        return [] if max(sides) >= 320 else [f"sizes: {sides}"]
    level = "level0" in str(document["profile"])
    return [] if level and "tiles" not in document and all(side <= limit for side in sides) else [str(document)]


def private(answer: httpx.Response) -> bool:
    """Whether no cache may keep the answer, nor pass it on to another caller."""
    varies = {"Authorization", "Cookie"} <= set(answer.headers.get("vary", "").split(", "))
    return answer.headers["cache-control"] == "private, no-store" and varies
