"""A site as it stands: three sources, images in SQLite, an HTTP catalogue behind it, and code of its own."""

from __future__ import annotations

import asyncio
import io
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from PIL import Image

from special.catalogue import ALL, Caller, Entry, Hooks, Mark, Verdict
from special.settings import load
from special.web.app import App
from tests.support.catalogue_server import CatalogueServer, catalogue_server
from tests.support.logins import ISSUER, SECRET, token
from tests.support.servers import S3Server

pytestmark = pytest.mark.service

MASTERS = 60
SIDE = 64
CROWD = 20
"""Requests for one image that was not asked for before, all at once."""
CATALOGUE_TAKES_S = 0.05
"""In which the others of a crowd arrive."""

PATIENCE_S = 3600
"""For how long a busy server is asked again."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the site is, and how much it is asked."""

    rows: int
    behind: int
    """Images that the HTTP catalogue knows, and as many that nobody knows."""
    rounds: int
    mixed: int
    """Requests of a round, beside the crowd."""

    @property
    def requests(self) -> int:
        return self.rounds * (self.mixed + CROWD)


SMALL = Scale(rows=2_000, behind=40, rounds=2, mixed=130)
WHOLE = Scale(rows=1_000_000, behind=400, rounds=20, mixed=480)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks."""

    roles: tuple[str, ...] | None
    """Those in the token; None: there is none."""
    card: bool
    """Whether the site's own code knows them."""

    @property
    def headers(self) -> dict[str, str]:
        login = {} if self.roles is None else {"Authorization": f"Bearer {TOKENS[self.roles]}"}
        return login | ({"X-Card": "1"} if self.card else {})

    def limit(self, number: int) -> int | None:
        """Longest side of an image that they may see: the strictest of catalogue and code."""
        by_catalogue = limit_of(number) if not set(roles_of(number)) & set(self.roles or ()) else None
        by_code = 8 if number % 7 == 0 and not self.card else None
        return min((it for it in (by_catalogue, by_code) if it is not None), default=None)


TOKENS = {roles: token(*roles) for roles in (("reader",), ("staff",), ("reader", "staff"), ("guest",))}
VISITORS = [Visitor(roles, card) for roles in (None, *TOKENS) for card in (False, True)]


def limit_of(number: int) -> int | None:
    """What the catalogues say of an image."""
    return 16 if number % 5 == 0 else None


def roles_of(number: int) -> tuple[str, ...]:
    """Who may see all of it: those whom the catalogue names, else those of the settings."""
    return ("staff",) if number % 10 == 0 else ("reader",)


def colour(number: int) -> tuple[int, int, int]:
    """Of the master of an image: no two masters have the same."""
    return (number % MASTERS) * 4, 255 - (number % MASTERS) * 4, 128


def picture(size: tuple[int, int], filling: str | tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, filling).save(data, "PNG")
    return data.getvalue()


class Stamping(Hooks):
    """A white corner for all who bring no card; some images are small for them, too."""

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        is_small = int(caller.identifier.partition("-")[2]) % 7 == 0 and "x-card" not in caller.headers
        return Verdict(8) if is_small else ALL

    async def overlay(self, caller: Caller, image: Entry) -> Sequence[Mark]:
        return () if "x-card" in caller.headers else (Mark(75, 75, 25, 25, picture((4, 4), "white")),)


@contextmanager
def site(root: Path, s3: S3Server, scale: Scale) -> Iterator[tuple[App, CatalogueServer]]:
    """Two folders, a bucket, a table, a catalogue that is a process of its own, and the server that joins them."""
    bucket = s3.bucket()
    roots = [str(root / "a"), str(root / "b"), f"s3://{bucket}"]

    def place(number: int) -> str:
        return f"{roots[number % MASTERS % 3]}/{number % MASTERS}.png"

    for folder in roots[:2]:
        Path(folder).mkdir()
    for number in range(MASTERS):
        data = picture((SIDE, SIDE), colour(number))
        if place(number).startswith("s3:"):
            s3.client().put_object(Bucket=bucket, Key=f"{number}.png", Body=data)
        else:
            Path(place(number)).write_bytes(data)
    with closing(sqlite3.connect(root / "catalogue.sqlite")) as connection, connection:
        connection.execute(
            "CREATE TABLE images (identifier TEXT PRIMARY KEY, url, max_unauthorised, roles) WITHOUT ROWID"
        )
        rows = (
            (f"row-{it:07}", place(it), limit_of(it), json.dumps(roles_of(it)) if it % 10 == 0 else None)
            for it in range(scale.rows)
        )
        connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)

    def document(number: int) -> dict[str, Any]:
        said: dict[str, Any] = {"url": place(number), "max_unauthorised": limit_of(number)}
        return said | ({"roles": roles_of(number)} if number % 10 == 0 else {})

    behind: dict[str, Any] = {f"web-{it}": document(it) for it in range(scale.behind)}
    behind |= {f"crowd-{it}": document(it) for it in range(scale.rounds)}
    with catalogue_server(root, behind | {"__wait_s__": CATALOGUE_TAKES_S}) as server:
        (root / "secret").write_bytes(SECRET)
        (root / "special.toml").write_text(f"""
decoders = 2
gallery = false
catalogue_ttl_s = 3600
asset_ttl_s = 3600
hooks = "{__name__}:Stamping"
default_roles = ["reader"]
jwt_key = "{root / "secret"}"
jwt_algorithms = ["HS256"]
jwt_issuer = "{ISSUER}"
[[sources]]
url = "{roots[1]}"
[[sources]]
url = "{roots[2]}"
[[catalogue]]
kind = "sqlite"
file = "{root / "catalogue.sqlite"}"
[[catalogue]]
kind = "http"
url = "{server.url}"
token_file = "{server.token_file}"
timeout_s = 60
""")
        yield App(load(root / "special.toml", source=roots[0], home=root / "home")), server


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and what must come of it."""

    name: str
    region: str
    side: int
    visitor: Visitor

    @property
    def number(self) -> int:
        return int(self.name.partition("-")[2])

    @property
    def path(self) -> str:
        last = "info.json" if not self.side else f"{self.region}/{self.side},/0/default.png"
        return f"/iiif/3/{self.name}/{last}"

    @property
    def status(self) -> int:
        limit = self.visitor.limit(self.number)
        if self.name.startswith("none"):
            return 404
        if not self.side or limit is None or (self.region == "full" and self.side <= limit):
            return 200
        return 401 if self.visitor.roles is None else 403

    def flaw(self, answer: httpx.Response) -> str:
        """What is wrong with an answer; empty if nothing is."""
        if answer.status_code != self.status:
            return f"{self}: {answer.status_code} instead of {self.status}"
        if self.status == 200 and "private" not in answer.headers["cache-control"]:
            return f"{self}: others may be given it: {answer.headers['cache-control']}"
        if self.status == 200 and not self.side:
            info, limit = answer.json(), self.visitor.limit(self.number)
            seen = info["width"], info.get("maxWidth", SIDE)
            return "" if seen == (SIDE, limit or SIDE) else f"{self}: {info}"
        if self.status == 200:
            found = Image.open(io.BytesIO(answer.content)).convert("RGB")
            last = found.width - 2, found.height - 2
            corner = colour(self.number) if self.visitor.card else (255, 255, 255)
            if found.getpixel((1, 1)) != colour(self.number) or found.getpixel(last) != corner:
                return f"{self}: another picture"
        return ""


def mixed(scale: Scale, chance: random.Random) -> Asked:
    """Any image, known or not; any part of it, any size, any visitor."""
    number = chance.randrange(scale.behind)
    name = chance.choice((f"row-{chance.randrange(scale.rows):07}", f"web-{number}", f"none-{number}"))
    region = chance.choice(("full", f"0,0,{SIDE},{SIDE - 1}"))
    return Asked(name, region, chance.choice((0, 8, 16, 32, SIDE)), chance.choice(VISITORS))


@pytest.mark.parametrize(
    "scale", [pytest.param(SMALL, id="small"), pytest.param(WHOLE, id="whole", marks=pytest.mark.long)]
)
async def test_every_request_of_a_mixed_site_is_right(
    tmp_path: Path, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch, scale: Scale
) -> None:
    """No wrong place, no leak by any rule of catalogue and code, one look-up for each image however many ask."""
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    chance, kinds, faults = random.Random(7), Counter[str](), list[str]()
    slots, until = asyncio.Semaphore(16), monotonic() + PATIENCE_S
    with site(tmp_path, moto_s3, scale) as (app, catalogue):

        async def answered(client: httpx.AsyncClient, asked: Asked) -> None:
            answer = await client.get(asked.path, headers=asked.visitor.headers)
            while "retry-after" in answer.headers and monotonic() < until:  # all decoders are busy
                await asyncio.sleep(0.1)
                answer = await client.get(asked.path, headers=asked.visitor.headers)
            kinds[f"{asked.name.partition('-')[0]} {asked.status}"] += 1
            faults.extend(filter(None, [asked.flaw(answer)]))

        async def in_turn(client: httpx.AsyncClient, asked: Asked) -> None:
            async with slots:
                await answered(client, asked)

        transport = httpx.ASGITransport(app)
        async with (
            app.running(),
            httpx.AsyncClient(transport=transport, base_url="http://x.org", timeout=600) as client,
        ):
            for number in range(scale.rounds):
                crowd = [Asked(f"crowd-{number}", "full", 8, chance.choice(VISITORS)) for _ in range(CROWD)]
                others = [mixed(scale, chance) for _ in range(scale.mixed)]
                await asyncio.gather(*(answered(client, it) for it in crowd), *(in_turn(client, it) for it in others))
        assert faults == []
        assert sum(kinds.values()) == scale.requests
        looked_up = Counter(line.partition(" ")[2] for line in catalogue.asked())
        assert not any(it.startswith("row") for it in looked_up)
        assert {it: count for it, count in looked_up.items() if count > 1 and not it.startswith("none")} == {}
        assert all(looked_up[f"crowd-{it}"] == 1 for it in range(scale.rounds))
    print(f"\n{scale.requests:,} requests: {dict(kinds)}; {len(looked_up)} images looked up by HTTP, each once")
