"""An object that is overwritten while it is read: a program sees one version, or is told that it has gone stale."""

from __future__ import annotations

import errno
import mmap
import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.mount.conftest import Shop
from tests.support.mounts import LiveMount

pytestmark = pytest.mark.service

PAGE = 4096
SIZE = 300 * PAGE + 17


def version_of(number: int, size: int = SIZE) -> bytes:
    """Bytes of which every page tells its version."""
    return b"".join(b"%08d %08d " % (number, place) for place in range(size // 18 + 1))[:size]


def wait_for(path: Path, data: bytes) -> None:
    """Until a name stands for that version: the kernel believes names for a moment."""
    deadline = time.monotonic() + 20
    while path.stat().st_size != len(data) or path.read_bytes() != data:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_open_file_keeps_its_version_and_its_length(shop: Shop, live: LiveMount) -> None:
    old, new = version_of(1), version_of(2, SIZE // 3)
    shop.put("kept", old)
    path = live.directory / "kept"
    with path.open("rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == SIZE
        assert file.read(SIZE) == old  # all of it is in the volume
        tag = os.getxattr(file.fileno(), "user.etag")
        shop.put("kept", new)
        wait_for(path, new)
        assert os.fstat(file.fileno()).st_size == SIZE
        assert os.getxattr(file.fileno(), "user.etag") == tag != os.getxattr(path, "user.etag")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # past the kernel's cache
        assert os.pread(file.fileno(), SIZE, 0) == old
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == old
        with path.open("rb") as other:
            assert other.read() == new


def test_bytes_of_a_version_that_is_gone_are_refused_as_stale(shop: Shop, live: LiveMount) -> None:
    old, new = random.Random(1).randbytes(16 << 20), random.Random(2).randbytes(16 << 20)
    shop.put("gone", old)
    path = live.directory / "gone"
    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 0) == old[:1000]
        shop.put("gone", new)
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            os.pread(file.fileno(), 1000, 8 << 20)
        assert os.pread(file.fileno(), 1000, 0) == old[:1000]
        assert path.read_bytes() == new, "the next program that opens it is not told the old version's name again"


def test_a_deleted_object_is_stale_and_then_missing(shop: Shop, live: LiveMount) -> None:
    data = random.Random(3).randbytes(16 << 20)
    shop.put("deleted", data)
    path = live.directory / "deleted"
    with path.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 0) == data[:1000]
        shop.s3.client().delete_object(Bucket=shop.bucket, Key="deleted")
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            os.pread(file.fileno(), 1000, 8 << 20)
        assert not path.exists()


def test_no_reader_ever_sees_two_versions(shop: Shop, live: LiveMount) -> None:
    """30 overwrites during some hundred reads: each is of one version from its first byte to its last, or stale."""
    versions = [version_of(number, SIZE - number * 1000) for number in range(30)]
    shop.put("mixed", versions[0])
    path, over = live.directory / "mixed", threading.Event()
    whole: list[bytes] = []
    stale: list[int] = []
    wrong: list[str] = []

    def read() -> None:
        while not over.is_set():
            try:
                with path.open("rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    data = b"".join(os.pread(file.fileno(), 50_000, place) for place in range(0, size, 50_000))
            except OSError as error:
                stale.append(error.errno or 0)
                continue
            if data in versions and len(data) == size:
                whole.append(data)
            else:
                wrong.append(f"{size} bytes said, {len(data)} read, which begin with {data[:9]!r}")

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for number, version in enumerate(versions[1:]):
        shop.put("mixed", version)
        deadline = time.monotonic() + (20 if number % 5 == 0 else 0.1)
        while version not in whole and time.monotonic() < deadline:
            time.sleep(0.02)
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert set(stale) <= {errno.ESTALE}
    assert len({data[:8] for data in whole}) > 5, "versions came and went while they were read"
