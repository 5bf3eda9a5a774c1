"""Faults on a real mount: a store that is silent or refuses, a mount that is killed, a volume without space."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from special.volume import DEFAULT_BLOCK_BYTES, verify
from tests.mount.conftest import Shop
from tests.soak.proxy import BlackHole, Exchange, Refused, Weather, fair
from tests.soak.sampler import alone_on_disk
from tests.support.mounts import LiveMount, special_mount
from tests.support.waiting import wait_until

pytestmark = pytest.mark.service


def data_of(seed: int, size: int = 2 << 20) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_silent_store_is_an_error_within_the_deadline(shop: Shop, live: LiveMount) -> None:
    data = data_of(1, 8 << 20)
    shop.put("silent", data)
    shop.put("silent-too", data)
    with (live.directory / "silent").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 0) == data[:1000]
        shop.between.choose = lambda exchange: BlackHole()
        start = time.monotonic()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(file.fileno(), 1000, 4 << 20)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (live.directory / "silent-too").stat()
        assert time.monotonic() - start < 60, "two deadlines of 3 s"
        assert os.pread(file.fileno(), 1000, 0) == data[:1000], "what is here is still read"
        shop.between.choose = fair
        while True:  # a read may join a GET that the store swallowed before
            with suppress(OSError):
                assert os.pread(file.fileno(), 1000, 4 << 20) == data[4 << 20 :][:1000]
                break
            assert time.monotonic() - start < 100
    assert (live.directory / "silent-too").read_bytes() == data


def test_a_program_that_waits_for_a_silent_store_can_be_killed(shop: Shop, live: LiveMount) -> None:
    shop.put("waiting", data_of(2))
    shop.between.choose = lambda exchange: BlackHole() if exchange.method == "GET" else None
    start = time.monotonic()
    reader = subprocess.Popen(["cat", live.directory / "waiting"], stdout=subprocess.DEVNULL)
    wait_until(lambda: shop.between.gets("waiting") != [])
    reader.kill()
    assert reader.wait() == -signal.SIGKILL
    assert time.monotonic() - start < 30


def test_what_the_store_denies_is_denied(shop: Shop, live: LiveMount) -> None:
    def deny(exchange: Exchange) -> Refused | None:
        return Refused(403, "AccessDenied") if exchange.key == "denied" and exchange.method == "GET" else None

    shop.put("denied", data_of(3))
    shop.between.choose = deny
    with pytest.raises(PermissionError), (live.directory / "denied").open("rb", buffering=0) as file:
        file.read(10)


def test_faults_of_the_store_never_change_a_byte(shop: Shop, live: LiveMount) -> None:
    data, seed = data_of(4, 4 << 20), random.randrange(2**32)
    print(f"seed {seed}")
    shop.put("weather", data)
    shop.between.choose = Weather(seed, rate=0.1)
    chance, failed = random.Random(seed), []
    with (live.directory / "weather").open("rb", buffering=0) as file:
        for _ in range(40):
            place = chance.randrange(len(data) - 5000)
            try:
                assert os.pread(file.fileno(), 5000, place) == data[place : place + 5000]
            except OSError as error:
                failed.append(error.errno)
    assert set(failed) <= {errno.EIO}
    assert len(failed) < 20


def fill(directory: Path) -> Path:
    """A file that takes all that is left of a file system."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return filler


def test_a_full_disk_costs_speed_and_never_a_byte(shop: Shop, tmp_path: Path) -> None:
    """Another program fills the volume's disk while files are read, and makes room again."""
    disk = tmp_path / "disk"
    with alone_on_disk(disk, 16 << 20):
        if not os.path.ismount(disk):
            pytest.skip("this user may mount no tmpfs")
        files = {f"full-{number}": data_of(20 + number) for number in range(4)}
        for name, data in files.items():
            shop.put(name, data)

        with special_mount(shop.url, home=tmp_path, volume=disk / "volume", settings=shop.s3.environ) as live:

            def read(name: str) -> None:
                chance, data = random.Random(name), files[name]
                with (live.directory / name).open("rb", buffering=0) as file:
                    for _ in range(50):
                        place = chance.randrange(len(data) - 5000)
                        assert os.pread(file.fileno(), 5000, place) == data[place : place + 5000]
                assert (live.directory / name).read_bytes() == data

            read("full-0")
            filler = fill(disk)
            assert os.statvfs(disk).f_bavail == 0
            stored = verify_stored(live)
            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(read, [*files] * 2):
                    pass
            said = live.log.read_text()
            assert "No space left on device" in said or "disk is full" in said, "of the blocks, or of the ledger"
            filler.unlink()
            shop.put("after", data_of(30))
            assert (live.directory / "after").read_bytes() == data_of(30)
            wait_until(lambda: verify_stored(live) > stored)  # no reader waits for what is stored
        assert live.process.returncode == 0


def verify_stored(live: LiveMount) -> int:
    """Blocks of the volume, all of which are whole."""
    found = verify(live.volume)
    assert (found.dropped_blocks, found.dropped_objects) == (0, 0)
    return found.blocks


def test_a_mount_that_was_killed_is_cleared_at_the_next_start(shop: Shop, tmp_path: Path) -> None:
    data = data_of(5)
    shop.put("killed", data)
    with special_mount(shop.url, home=tmp_path, settings=shop.s3.environ) as first:
        assert (first.directory / "killed").read_bytes() == data
        while verify(first.volume).blocks < len(data) // DEFAULT_BLOCK_BYTES:  # no reader waits for what is stored
            time.sleep(0.05)
        first.process.kill()
        first.process.wait()
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.listdir(first.directory)
        start = len(shop.between.log)
        with special_mount(shop.url, home=tmp_path, settings=shop.s3.environ) as second:
            assert (second.directory / "killed").read_bytes() == data
            assert shop.between.gets("killed", since=start) == [], "its blocks were in the volume"
            third = subprocess.run(
                [sys.executable, "-m", "special", "mount", shop.url, second.directory, "--volume", second.volume],
                env={**os.environ, **shop.s3.environ},
                capture_output=True,
                text=True,
                check=False,
            )
            assert third.returncode == 2
            assert "is mounted already" in " ".join(third.stderr.split())
            assert (second.directory / "killed").read_bytes() == data
    assert not os.path.ismount(second.directory)


def test_a_mount_that_is_stopped_leaves_programs_their_open_files(shop: Shop, tmp_path: Path) -> None:
    data = data_of(6)
    shop.put("stopped", data)
    with special_mount(shop.url, home=tmp_path, settings=shop.s3.environ) as live:
        with (live.directory / "stopped").open("rb", buffering=0) as file:
            assert file.read(10) == data[:10]
            live.process.terminate()
            wait_until(lambda: not os.path.ismount(live.directory))
            assert os.pread(file.fileno(), 1000, 1 << 20) == data[1 << 20 :][:1000]
        assert live.process.wait(30) == 0


def test_in_the_background_it_returns_when_it_is_mounted(shop: Shop, tmp_path: Path) -> None:
    shop.put("daemon", b"bytes")
    directory = tmp_path / "mount"
    directory.mkdir()
    command = [sys.executable, "-m", "special", "mount", shop.url, directory, "--volume", tmp_path / "v", "--daemon"]
    environ = {**os.environ, **shop.s3.environ}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        assert (directory / "daemon").read_bytes() == b"bytes"
    finally:
        subprocess.run(["fusermount3", "-u", directory], check=True)
    command[5] = tmp_path / "nothing"
    failed = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "create it" in failed.stderr
