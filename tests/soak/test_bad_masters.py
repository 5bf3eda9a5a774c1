"""P9: a bad master harms only its own request, and not even those for which its stored renditions do.

The long form, which prints its figures; it fetches pillow's sources, some 47 MB, once:

    python -m pytest -m long tests/soak/test_bad_masters.py -s
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from special import errors
from special.errors import BadRequest, Crashed, MasterError, SpecialError
from tests.soak.corpus import mutations, pillow
from tests.soak.crowd import Reply, ask, ask_again
from tests.soak.noise import Noise, address
from tests.soak.viewers import metric
from tests.support import live, processes

pytestmark = pytest.mark.service

CACHE = Path(tempfile.gettempdir()) / "special-corpus"
LONGEST_S = 10.0
MEMORY = "2GiB"
ROUTES = ("full/!200,200/0/default.jpg", "full/max/0/default.jpg", "0,0,256,256/max/0/default.jpg")
RUNNING = 'special_lane_jobs{lane="max",state="running"}'
CRASHED = 'special_decoder_jobs_total{outcome="crashed"}'
SENTENCES = {
    kind.sentence
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SpecialError) and kind is not SpecialError
} - {SpecialError.sentence}
"""All that a typed error may say of a master; `SpecialError`'s own is what is said of what nobody foresaw."""


def typed(reply: Reply) -> bool:
    """A picture, or an error that says what is wrong: with the file, or, as a 4xx, with the request."""
    if reply.status == 200:
        return reply.headers["content-type"] == "image/jpeg" and reply.body[:2] == b"\xff\xd8"
    said = reply.body.decode().strip()
    if reply.status == MasterError.status:
        return said in SENTENCES or said.startswith(MasterError.sentence.removesuffix(".") + ": ")
    return said in SENTENCES or reply.status == BadRequest.status


async def served(tmp_path: Path, files: Iterable[tuple[str, bytes]], *, parallel: int) -> None:
    """Every file by every route, on one server."""
    folder = tmp_path / "masters"
    folder.mkdir()
    for name, data in files:
        (folder / name).write_bytes(data)
    good = Noise(1)
    (folder / "good.tif").write_bytes(good.file)
    names = [path.name for path in sorted(folder.iterdir()) if path.name != "good.tif"]
    turns, replies = asyncio.Semaphore(parallel), dict[tuple[str, str], Reply]()
    settings = {"SPECIAL_DECODERS": "2", "SPECIAL_DECODER_MEMORY": MEMORY, "SPECIAL_PROMOTE_AFTER": "0"}
    with live.special(folder, home=tmp_path, settings=settings) as server:
        pid, region = server.process.pid, good.region(random.Random(1))

        async def look(name: str, route: str) -> None:
            async with turns:
                replies[name, route] = await ask(server.url, f"/iiif/3/{quote(name, safe='')}/{route}")

        await asyncio.gather(*(look(name, route) for name in names for route in ROUTES))
        assert good.shows(region, (await ask_again(server.url, address("good.tif", region))).body)
        assert (await ask(server.url, "/livez")).status == 200
        assert server.process.poll() is None
        crashes = await metric(server.url, CRASHED)
        memory = processes.resident_bytes(pid)
    untyped = {key: reply.body for key, reply in replies.items() if not typed(reply)}
    slow = {key: reply.seconds for key, reply in replies.items() if reply.seconds > LONGEST_S}
    print(
        f"\n{len(names)} files × {len(ROUTES)} routes: {dict(Counter(it.status for it in replies.values()))}; "
        f"{len(untyped)} without a type, {crashes:.0f} decoders died, longest "
        f"{max(it.seconds for it in replies.values()):.1f} s, memory after {memory / 2**20:.0f} MiB"
    )
    assert untyped == {}
    assert slow == {}


async def test_spoilt_fixtures_are_pictures_or_typed_errors(tmp_path: Path) -> None:
    await served(tmp_path, mutations(1, 20), parallel=4)


@pytest.mark.long
async def test_hundreds_of_malformed_images_by_three_routes(tmp_path: Path) -> None:
    known = [(path.name, path.read_bytes()) for path in pillow(CACHE)]
    assert len(known) > 30
    await served(tmp_path, [*mutations(2, 300), *known], parallel=2)


async def test_two_crashes_put_a_master_in_quarantine_and_its_thumbnails_are_served(tmp_path: Path) -> None:
    """Its decoders are killed while they make its largest answer, as the kernel does when memory is short."""
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    for name in ("bad.tif", "good.tif"):
        (masters / name).write_bytes(Noise(1, 2048, 2048).file)
    (thumbs / "bad.tif" / "open").mkdir(parents=True)
    stored = io.BytesIO()
    Image.new("RGB", (200, 200)).save(stored, "JPEG")
    (thumbs / "bad.tif" / "open" / "200.jpg").write_bytes(stored.getvalue())
    (thumbs / "bad.tif" / "s.json").write_text('{"o":[[200,200]],"a":[]}')
    largest = "full/max/0/default.png"
    settings = {"SPECIAL_DECODERS": "1"}
    with live.special(masters, "--thumbs", str(thumbs), home=tmp_path, settings=settings) as server:
        pid = server.process.pid
        for _ in range(2):
            asking = asyncio.create_task(ask(server.url, f"/iiif/3/bad.tif/{largest}"))
            async with asyncio.timeout(30):
                while not await metric(server.url, RUNNING):  # noqa: ASYNC110  another process makes it true
                    await asyncio.sleep(0.01)
            for decoder in processes.children(pid):
                os.kill(decoder, signal.SIGKILL)
            reply = await asking
            assert (reply.status, reply.body.decode().strip()) == (500, Crashed.sentence)
            async with asyncio.timeout(60):
                while (await ask(server.url, "/readyz")).status != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        died = await metric(server.url, CRASHED)
        for route in (largest, ROUTES[2]):
            reply = await ask(server.url, f"/iiif/3/bad.tif/{route}")
            assert (reply.status, reply.body.decode().strip()) == (503, Crashed.sentence)
            assert 500 < int(reply.headers["retry-after"]) <= 600
        assert await metric(server.url, CRASHED) == died == 2
        assert await metric(server.url, "special_quarantines_total") == 1
        thumb = await ask(server.url, "/iiif/3/bad.tif/full/!200,200/0/default.jpg")
        assert (thumb.status, thumb.body) == (200, stored.getvalue())
        smaller = await ask_again(server.url, "/iiif/3/bad.tif/full/!50,50/0/default.jpg")
        assert (smaller.status, smaller.headers["x-special-route"]) == (200, "derivative")
        other = await ask_again(server.url, f"/iiif/3/good.tif/{ROUTES[0]}")
        assert (other.status, other.headers["x-special-route"]) == (200, "stream")
