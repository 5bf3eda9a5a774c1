"""P17: the store is stopped, not closed: connections stand, and nothing ever comes.

Every request is answered within its lane's deadline; what is in memory or in the volume is answered at once. Prints
its figures:

    python -m pytest -m long tests/soak/test_silent_store.py -s
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.soak.crowd import Reply, ask
from tests.soak.noise import Noise
from tests.support import live, servers

pytestmark = pytest.mark.long

TTL_S = 1.0
BELIEVED_AFTER_S = 1.0
"""The first look-up waits a second before what is known is believed; only requests that came meanwhile wait with it."""
SPARE_S = 0.5

HELD = {
    "info": ("/iiif/3/known.tif/info.json", 5.0),
    "thumb in memory": ("/iiif/3/known.tif/full/!200,200/0/default.jpg", 5.0),
    "tile in the volume": ("/iiif/3/known.tif/256,256,256,256/max/0/default.png", 10.0),
}
"""Paths that are asked for before the store stops, and their lanes' deadlines; the same metadata is old afterwards."""
ABSENT = {
    "thumb not in memory": ("/iiif/3/known.tif/full/!100,100/0/default.jpg", 5.0),
    "tile not in the volume": ("/iiif/3/large.tif/1792,1792,256,256/max/0/default.png", 10.0),
    "full": ("/iiif/3/large.tif/full/600,/0/default.jpg", 15.0),
    "max": ("/iiif/3/large.tif/full/max/0/default.jpg", 60.0),
}
RESTRICTED = {"restricted": ("/iiif/3/secret.tif/full/!200,200/0/default.jpg", 15.0)}
"""Its open rendition is in memory, but who may see it has to be looked up again: until then it is any full region."""


def jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), side, np.uint8)).save(file, "JPEG")
    return file.getvalue()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_with_a_silent_store_all_is_answered_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weed, home = tmp_path / "weed", tmp_path / "home"
    weed.mkdir()
    home.mkdir()
    with servers.seaweed(weed, audited=False) as s3:
        assert s3.pid is not None
        client, bucket, thumbs = s3.client(), s3.bucket(), s3.bucket()
        for name, master in (
            ("known.tif", Noise(1, 1024, 1024)),
            ("large.tif", Noise(2, 2304, 2048)),
            ("secret.tif", Noise(3, 512, 512)),
        ):
            client.put_object(Bucket=bucket, Key=name, Body=master.file)
        for name, sizes in (
            ("known.tif", b'{"o":[[200,200],[100,100]],"a":[]}'),
            ("secret.tif", b'{"o":[[200,200]],"a":[[400,400]]}'),
        ):
            client.put_object(Bucket=thumbs, Key=f"{name}/s.json", Body=sizes)
            for side in (200, 100):
                client.put_object(Bucket=thumbs, Key=f"{name}/open/{side}.jpg", Body=jpeg(side))
        settings = s3.environ | {
            "SPECIAL_DECODERS": "2",
            "SPECIAL_ASSET_TTL_S": str(TTL_S),
            "SPECIAL_READ_AHEAD": "false",
        }
        with live.special(f"s3://{bucket}", "--thumbs", f"s3://{thumbs}", home=home, settings=settings) as server:
            before = {name: await ask(server.url, path) for name, (path, _) in (HELD | RESTRICTED).items()}
            assert {reply.status for reply in before.values()} == {200}
            assert (await ask(server.url, "/iiif/3/large.tif/info.json")).status == 200
            await asyncio.sleep(2 * TTL_S)
            with stopped(s3.pid):
                wanted = HELD | ABSENT | RESTRICTED
                asked = [ask(server.url, path) for path, _ in wanted.values()]
                replies = dict(zip(wanted, await asyncio.gather(*asked), strict=True))
                again = {name: await ask(server.url, path) for name, (path, _) in HELD.items()}
            recovered = await _recovered(server.url, ABSENT["thumb not in memory"][0])
    with capsys.disabled():
        for name, reply in replies.items():
            print(f"{name}: {reply.status} after {reply.seconds:.2f} s, allowed {wanted[name][1]:.0f} s")
        for name, reply in again.items():
            print(f"{name}, asked again: {reply.status} after {reply.seconds:.3f} s")
    for name, (_, deadline_s) in wanted.items():
        assert replies[name].seconds <= deadline_s + SPARE_S, name
    for name in HELD:
        for reply, within_s in ((replies[name], BELIEVED_AFTER_S + SPARE_S), (again[name], SPARE_S)):
            assert (reply.status, reply.body) == (200, before[name].body), name
            assert reply.seconds <= within_s, name
    assert {name: replies[name].status for name in ABSENT | RESTRICTED} == dict.fromkeys(ABSENT | RESTRICTED, 503)
    assert all("retry-after" in replies[name].headers for name in ABSENT | RESTRICTED)
    assert recovered.status == 200


async def _recovered(url: str, path: str) -> Reply:
    """What is answered once the store goes on."""
    async with asyncio.timeout(60):
        while (reply := await ask(url, path)).status == 503:  # noqa: ASYNC110  another process makes it true
            await asyncio.sleep(0.2)
    return reply
