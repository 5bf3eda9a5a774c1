"""A mount and a server on one volume at once: the volume's promises P1 to P6 hold for both."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from special.geometry import Box
from special.volume import DEFAULT_BLOCK_BYTES, admin
from tests.mount.conftest import Shop
from tests.soak.noise import Noise, address
from tests.soak.proxy import Exchange, Held, blocks_got, fair
from tests.support import live
from tests.support.live import MASTERS, LiveServer
from tests.support.mounts import LiveMount, special_mount
from tests.support.waiting import wait_until
from tests.volume.made import surely_taken_bytes

pytestmark = pytest.mark.service

MIB = 1 << 20
SIZE = 24 * MIB
TILE = "256,256,256,256/256,/0/default.jpg"


@contextmanager
def both(shop: Shop, home: Path) -> Iterator[tuple[LiveServer, LiveMount]]:
    """A server and a mount of one bucket, on one volume that holds few masters. They soon ask for versions again."""
    size, settings = ("--volume-size", str(SIZE)), shop.s3.environ | {"SPECIAL_ASSET_TTL_S": "0.2"}
    (home / "server").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(
            live.special(shop.url, "--volume", str(home / "volume"), *size, home=home / "server", settings=settings)
        )
        mount = stack.enter_context(
            special_mount(shop.url, *size, home=home / "mount", volume=home / "volume", settings=settings)
        )
        yield server, mount


def test_promises_hold_with_a_mount_and_a_server_on_one_volume(shop: Shop, tmp_path: Path) -> None:
    tile = (MASTERS / "stars.tif").read_bytes()
    shop.put("stars.tif", tile)
    rest = {f"{number}.bin": random.Random(number).randbytes(6 * MIB) for number in range(8)}
    for key, data in rest.items():
        shop.put(key, data)
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

        # P3, P6: mounts are killed while they fill the volume; the server goes on and finds nothing wrong.
        kill_while_it_reads(shop, mount, after_gets=1)
        for after_gets in (2, 5):
            home = tmp_path / f"again-{after_gets}"
            with special_mount(
                shop.url, "--volume-size", str(SIZE), home=home, volume=mount.volume, settings=shop.s3.environ
            ) as again:
                kill_while_it_reads(shop, again, after_gets=after_gets)
        assert _answer(f"{server.url}/iiif/3/stars.tif/0,0,256,256/256,/0/default.jpg").status_code == 200

        # P5: blocks that are damaged on the disk are fetched again, whoever reads them.
        for data in mount.volume.glob("objects/*/*/data"):
            with data.open("r+b") as file:
                file.seek(1000)
                file.write(b"damaged")
        home = tmp_path / "again"
        last = special_mount(
            shop.url, "--volume-size", str(SIZE), home=home, volume=mount.volume, settings=shop.s3.environ
        )
        with last as second:
            assert (second.directory / "stars.tif").read_bytes() == tile
            assert {key: (second.directory / key).read_bytes() for key in rest} == rest


def kill_while_it_reads(shop: Shop, mount: LiveMount, *, after_gets: int) -> None:
    """Kill a mount once it has sent so many GETs for a file that was not read before. What is stored is whole."""
    key = f"fresh-{after_gets}.bin"
    shop.put(key, random.Random(after_gets).randbytes(6 * MIB))
    reader = threading.Thread(target=_read_until_gone, args=[mount.directory / key])
    reader.start()
    wait_until(lambda: len(shop.between.gets(key)) >= after_gets)
    mount.process.kill()
    mount.process.wait()
    reader.join()
    assert admin.verify(mount.volume).sound


def test_no_answer_and_no_read_is_of_two_versions(shop: Shop, tmp_path: Path) -> None:
    """P1: a server's clients and a mount's programs read a master that is overwritten a dozen times meanwhile."""
    masters = [Noise(1, 768, 512, version) for version in range(12)]
    files = [master.file + bytes(master.version % 3) for master in masters]
    key, over = "overwritten.tif", threading.Event()
    shop.put(key, files[0])
    answered, read = list[int](), list[int]()
    statuses, errors = set[int](), set[int | None]()

    def ask(number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not over.is_set():
                region = Box(0, 0, 768, 512) if chance.random() < 0.3 else masters[0].region(chance)
                answer = client.get(address(key, region))
                statuses.add(answer.status_code)
                if answer.status_code == 200:
                    version = masters[0].version_shown(region, answer.content)
                    answered.append(-1 if version is None else version)

    def look(number: int) -> None:
        while not over.is_set():
            try:
                with (mount.directory / key).open("rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    data = b"".join(os.pread(file.fileno(), 50_000, place) for place in range(0, size, 50_000))
            except OSError as error:
                errors.add(error.errno)
                continue
            read.append(files.index(data) if data in files else -1)

    with both(shop, tmp_path) as (server, mount), ThreadPoolExecutor(4) as threads:
        tasks = [threads.submit(work, number) for number in range(2) for work in (ask, look)]
        try:
            for version, data in enumerate(files[1:], start=1):
                shop.put(key, data)
                if version % 3 == 0:  # the others are gone before all have seen them
                    wait_until(lambda version=version: version in answered and version in read)  # type: ignore[misc]
        finally:
            over.set()
        for task in tasks:
            task.result()
    assert -1 not in answered, "an answer of two versions"
    assert -1 not in read, "a read of two versions"
    assert statuses <= {200, 503}
    assert errors <= {errno.ESTALE}


def test_a_server_that_dies_while_it_fetches_harms_no_program(shop: Shop, tmp_path: Path) -> None:
    """P3: a program waits for blocks that the server has asked for; the server is killed, and the mount takes over."""
    data, held = (MASTERS / "stars.tif").read_bytes(), Held()
    shop.put("taken-over.tif", data)

    def hold_pixels(exchange: Exchange) -> Held | None:
        # Of the headers nothing is held: they are read past the volume.
        return held if exchange.key == "taken-over.tif" and exchange.method == "GET" and exchange.match else None

    with both(shop, tmp_path) as (server, mount), ThreadPoolExecutor(2) as threads:
        shop.between.choose = hold_pixels
        asking = threads.submit(_ask_until_gone, f"{server.url}/iiif/3/taken-over.tif/{TILE}")
        wait_until(lambda: any(get.match for get in shop.between.gets("taken-over.tif")))
        reading = threads.submit((mount.directory / "taken-over.tif").read_bytes)
        wait_until(lambda: any(head.method == "HEAD" and head.key == "taken-over.tif" for head in shop.between.log))
        shop.between.choose = fair
        server.process.kill()
        assert reading.result() == data
        held.released.set()
        asking.result()
        assert admin.verify(mount.volume).sound


def _ask_until_gone(url: str) -> None:
    with suppress(httpx.TransportError):
        httpx.get(url, timeout=60)


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
