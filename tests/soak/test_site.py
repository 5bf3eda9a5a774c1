"""A site as it stands: three sources, a million images in SQLite, an HTTP catalogue behind it, and code of its own."""

from __future__ import annotations

import asyncio
import io
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from PIL import Image

from special.catalogue import Caller, Entry, Hooks, Mark
from special.settings import load
from special.web.app import App
from tests.support.catalogue_server import catalogue_server

REQUESTS = 10_000
ROWS = 1_000_000
BEHIND = 400
"""Images that the HTTP catalogue knows, and as many that nobody knows."""
MASTERS = 60
SIDE = 64


def stamp() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), "white").save(data, "PNG")
    return data.getvalue()


class Stamping(Hooks):
    """A white corner for all who bring no card."""

    async def overlay(self, caller: Caller, image: Entry) -> Sequence[Mark]:
        return () if "x-card" in caller.headers else (Mark(75, 75, 25, 25, stamp()),)


def colour(number: int) -> tuple[int, int, int]:
    """Of the master of an image: no two masters have the same."""
    return (number % MASTERS) * 4, 255 - (number % MASTERS) * 4, 128


@pytest.mark.long
async def test_every_request_of_a_mixed_site_is_right(tmp_path: Path) -> None:
    """0 wrong places, 0 leaks, and one look-up for each image however many ask."""
    for number in range(MASTERS):
        folder = tmp_path / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), colour(number)).save(folder / f"{number}.png")

    def place(number: int) -> str:
        return str(tmp_path / "abc"[number % MASTERS % 3] / f"{number % MASTERS}.png")

    def limit(number: int) -> int | None:
        return 16 if number % 5 == 0 else None

    with closing(sqlite3.connect(tmp_path / "catalogue.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE images (identifier TEXT PRIMARY KEY, url, max_unauthorised) WITHOUT ROWID")
        rows = ((f"row-{number:07}", place(number), limit(number)) for number in range(ROWS))
        connection.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
    behind = {f"web-{it}": {"url": place(it), "max_unauthorised": limit(it) or -1} for it in range(BEHIND)}
    with catalogue_server(tmp_path, behind) as server:
        (tmp_path / "special.toml").write_text(f"""
decoders = 2
gallery = false
catalogue_ttl_s = 3600
asset_ttl_s = 3600
hooks = "{__name__}:Stamping"
[[sources]]
url = "{tmp_path / "b"}"
[[sources]]
url = "{tmp_path / "c"}"
[[catalogue]]
kind = "sqlite"
file = "{tmp_path / "catalogue.sqlite"}"
[[catalogue]]
kind = "http"
url = "{server.url}"
token_file = "{server.token_file}"
timeout_s = 60
""")
        app = App(load(tmp_path / "special.toml", source=str(tmp_path / "a"), home=tmp_path / "home"))
        chance, faults, kinds = random.Random(7), list[str](), Counter[str]()
        slots = asyncio.Semaphore(16)

        async def ask(client: httpx.AsyncClient) -> None:
            number = chance.randrange(BEHIND)
            name = chance.choice((f"row-{chance.randrange(ROWS):07}", f"web-{number}", f"none-{number}"))
            known, number = not name.startswith("none"), int(name.partition("-")[2])
            side = chance.choice((8, 16, 32, SIDE))
            card = {"X-Card": "1"} if chance.random() < 0.5 else {}
            region = chance.choice(("full", f"0,0,{SIDE},{SIDE - 1}"))
            async with slots:
                answer = await client.get(f"/iiif/3/{name}/{region}/{side},/0/default.png", headers=card)
            top = limit(number)
            may = top is None or (region == "full" and side <= top)
            wanted = 404 if not known else 200 if may else 401
            kinds[f"{name[:3]} {wanted}"] += 1
            if answer.status_code != wanted:
                faults.append(f"{name}/{region}/{side}: {answer.status_code} instead of {wanted}")
            elif wanted == 200:
                found = Image.open(io.BytesIO(answer.content)).convert("RGB")
                corner = colour(number) if card else (255, 255, 255)
                if found.getpixel((1, 1)) != colour(number) or found.getpixel((side - 2, side - 2)) != corner:
                    faults.append(f"{name}/{region}/{side} {card}: another picture")

        transport = httpx.ASGITransport(app)
        async with (
            app.running(),
            httpx.AsyncClient(transport=transport, base_url="http://x.org", timeout=600) as client,
        ):
            for _ in range(REQUESTS // 500):
                await asyncio.gather(*(ask(client) for _ in range(500)))
        assert faults == []
        asked = Counter(line.partition(" ")[2] for line in server.asked())
        assert {it for it in asked if it.startswith("web-")} <= set(behind)
        assert max(asked[it] for it in behind) == 1
        print(f"\n{REQUESTS:,} requests: {dict(kinds)}; {len(asked)} images looked up by HTTP")
