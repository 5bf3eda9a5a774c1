"""The matrix of who may see what, with rules from outside: those of a catalogue and of the operator's own code.

The images, callers, requests and flaws are those of `test_access_matrix`; where its rules come from is what differs.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from special.catalogue import ALL, PUBLIC, Caller, Entry, Hooks, Verdict
from special.settings import load
from special.web.app import App
from tests.support.logins import SECRET
from tests.web import test_access_matrix as matrix
from tests.web.test_access_matrix import AUTH, CALLERS, OPEN, VALID, WANTED, Rule

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = {
    "catalogued": (160, '["reader"]'),
    "default": (160, None),
    "closed": (0, "reader"),
    "strictest": (320, "reader"),
    "hooked": (None, None),
    "free": (None, None),
}
"""What the catalogue says of each kind of image: `max_unauthorised` and `roles`."""
RULES = [
    Rule("catalogued", {"o": OPEN}, 160),
    Rule("default", {"o": OPEN}, 160),
    Rule("closed", {"o": [[160, 120]], "a": AUTH}, 0),
    # 320 by the catalogue, 200 by the rule, 160 by the sizes file, 100 by the code.
    Rule("strictest", {"o": [[160, 120]], "a": AUTH}, 100),
    Rule("hooked", {"o": OPEN}, 160),
]
FREE = Rule("free", {"o": OPEN}, None)
PERSONAL = {"strictest": 100, "hooked": 160}
CONFIG = """
[[rules]]
identifiers = "strictest-*"
max_unauthorised = 200
roles = ["reader"]

[[catalogue]]
kind = "sqlite"
file = "{file}"
"""


class Door(Hooks):
    """Lets readers see everything and others a little, of some images."""

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        limit = PERSONAL.get(caller.identifier.partition("-")[0])
        if limit is None:
            return PUBLIC
        return ALL if "reader" in caller.roles else Verdict(limit)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outside")
    (root / "masters").mkdir()
    across, down = np.meshgrid(np.linspace(0, 255, matrix.WIDTH), np.linspace(0, 255, matrix.HEIGHT))
    master = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))
    master.save(root / "masters" / "one.jpg", quality=95)
    for side in (320, 160):
        master.resize((side, side * 3 // 4)).save(root / f"{side}.jpg")
    rows = []
    for rule in (*RULES, FREE):
        for name in {matrix.image_of(rule, *it, warm=True) for it in product(CALLERS, WANTED)}:
            rows.append((name, "one.jpg", *ROWS[rule.name]))
            for access, folder in (("o", "open"), ("a", "auth")):
                for side, _ in rule.sizes.get(access, []):
                    (root / "thumbs" / name / folder).mkdir(parents=True, exist_ok=True)
                    os.link(root / f"{side}.jpg", root / "thumbs" / name / folder / f"{side}.jpg")
            (root / "thumbs" / name / "s.json").write_text(json.dumps(rule.sizes))
    with closing(sqlite3.connect(root / "catalogue.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE images (identifier PRIMARY KEY, url, max_unauthorised, roles)")
        connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
    (root / "secret").write_bytes(SECRET)
    plain, rules = matrix.CONFIG.split("[[rules]]", 1)[0], CONFIG.format(file=root / "catalogue.sqlite")
    (root / "special.toml").write_text(f'{plain}\nhooks = "{__name__}:Door"\n{rules}')
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(library: Path) -> AsyncIterator[httpx.AsyncClient]:
    places = {"source": str(library / "masters"), "thumbs": str(library / "thumbs"), "volume": library / "volume"}
    app = App(load(library / "special.toml", jwt_key=library / "secret", **places))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://example.org") as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etags(client: httpx.AsyncClient) -> dict[str, str]:
    """Entity tags of answers to a caller who may see everything, so that all of it is in the server's caches."""
    known = {}
    for rule, url in product((*RULES, FREE), WANTED):
        path = matrix.path_of(rule, "valid", url, warm=True)
        answer = await client.get(path, headers=CALLERS["valid"])
        assert answer.status_code == 200, f"{path}: {answer.text}"
        known[path] = answer.headers.get("etag", "*")
    return known


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("rule", [*RULES, FREE], ids=lambda rule: rule.name)
async def test_nobody_sees_more_than_they_may(
    client: httpx.AsyncClient, etags: dict[str, str], rule: Rule, caller: str
) -> None:
    faults = []
    for form, url, path in matrix.requests_of(rule, caller, warm=True):
        more = {"Range": "bytes=0-99", "If-None-Match": etags.get(path, "*")}
        headers = CALLERS[caller] | ({form: more[form]} if form in more else {})
        answer = await client.request("HEAD" if form == "HEAD" else "GET", path, headers=headers)
        limit = None if caller in VALID else rule.limit
        if matrix.is_closed_info(url, limit):
            faults += [f"{form} {path}: {it}" for it in matrix.flaws_of_closed_info(answer, form)]
        elif matrix.permitted(url, limit):
            faults += [f"{form} {path}: {it}" for it in matrix.flaws_of_answer(answer, url, form, limit)]
        else:
            found = matrix.flaws_of_refusal(answer, form, known=caller == "known")
            faults += [f"{form} {path}: {it}" for it in found]
        is_private = rule.name in PERSONAL or matrix.depends_on_caller(url, rule.limit)
        if answer.is_success and matrix.private(answer) != is_private:
            faults.append(f"{form} {path}: {answer.headers}")
    assert faults == []
