"""A mount and a server on one volume at once: the volume's promises P1 to P6 hold for both."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from special.volume import DEFAULT_BLOCK_BYTES, admin
from tests.mount.conftest import Shop
from tests.soak.proxy import blocks_got
from tests.support import live
from tests.support.live import MASTERS, LiveServer
from tests.support.mounts import LiveMount, special_mount
from tests.volume.made import surely_taken_bytes

pytestmark = pytest.mark.service

MIB = 1 << 20
SIZE = 24 * MIB
TILE = "256,256,256,256/256,/0/default.jpg"


@contextmanager
def both(shop: Shop, home: Path) -> Iterator[tuple[LiveServer, LiveMount]]:
    """A server and a mount of one bucket, on one volume that holds few masters."""
    size = ("--volume-size", str(SIZE))
    (home / "server").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(
            live.special(
                shop.url, "--volume", str(home / "volume"), *size, home=home / "server", settings=shop.s3.environ
            )
        )
        mount = stack.enter_context(
            special_mount(shop.url, *size, home=home / "mount", volume=home / "volume", settings=shop.s3.environ)
        )
        yield server, mount


def test_promises_hold_with_a_mount_and_a_server_on_one_volume(shop: Shop, tmp_path: Path) -> None:
    tile = (MASTERS / "stars.tif").read_bytes()
    shop.put("stars.tif", tile)
    rest = {f"{number}.bin": random.Random(number).randbytes(6 * MIB) for number in range(8)}
    for key, data in rest.items():
        shop.put(key, data)
    shop.put("fresh.bin", random.Random(99).randbytes(6 * MIB))
    with both(shop, tmp_path) as (server, mount):
        # P2: both want the same blocks of a cold master at once.
        with ThreadPoolExecutor(64) as threads:
            reads = [threads.submit((mount.directory / "stars.tif").read_bytes) for _ in range(32)]
            url = f"{server.url}/iiif/3/stars.tif/{TILE}"
            answers = [threads.submit(_answer, url) for _ in range(32)]
            assert {read.result() for read in reads} == {tile}
            assert {answer.result().status_code for answer in answers} == {200}
        assert set(blocks_got(shop.between.gets("stars.tif"), DEFAULT_BLOCK_BYTES).values()) == {1}

        # P4: twice as much as the volume holds, read by the mount, beside the server's tiles.
        over, most = threading.Event(), [0]

        def sample() -> None:
            while not over.is_set():
                most[0] = max(most[0], surely_taken_bytes(mount.volume))
                time.sleep(0.01)

        sampler = threading.Thread(target=sample)
        sampler.start()
        with ThreadPoolExecutor(4) as threads:
            found = dict(zip(rest, threads.map(lambda key: (mount.directory / key).read_bytes(), rest), strict=True))
            assert _answer(url).status_code == 200
        over.set()
        sampler.join()
        assert found == rest
        assert most[0] <= SIZE
        assert most[0] > SIZE // 2, "the volume was filled"

        # P3, P6: the mount is killed while it fills the volume; the server takes over and finds nothing wrong.
        reader = threading.Thread(target=_read_until_gone, args=[mount.directory / "fresh.bin"])
        reader.start()
        while not shop.between.gets("fresh.bin"):
            time.sleep(0.001)
        mount.process.kill()
        mount.process.wait()
        reader.join()
        assert _answer(f"{server.url}/iiif/3/stars.tif/0,0,256,256/256,/0/default.jpg").status_code == 200
        assert admin.verify(mount.volume).sound

        # P5: blocks that are damaged on the disk are fetched again, whoever reads them.
        for data in mount.volume.glob("objects/*/*/data"):
            with data.open("r+b") as file:
                file.seek(1000)
                file.write(b"damaged")
        home = tmp_path / "again"
        again = special_mount(
            shop.url, "--volume-size", str(SIZE), home=home, volume=mount.volume, settings=shop.s3.environ
        )
        with again as second:
            assert (second.directory / "stars.tif").read_bytes() == tile
            assert {key: (second.directory / key).read_bytes() for key in rest} == rest


def _answer(url: str) -> httpx.Response:
    """The server's answer, once it is not too busy."""
    while (answer := httpx.get(url, timeout=60)).status_code == 503:
        time.sleep(0.2)
    return answer


def _read_until_gone(path: Path) -> None:
    with suppress(OSError):
        path.read_bytes()


def test_servers_that_name_another_size_are_told(shop: Shop, live: LiveMount, tmp_path: Path) -> None:
    other = special_mount(
        shop.url, "--volume-size", "9MiB", home=tmp_path, volume=live.volume, settings=shop.s3.environ
    )
    with pytest.raises(RuntimeError, match="another server uses the volume"), other:
        pass
