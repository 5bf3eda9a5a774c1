"""A bucket on a real mount: names, folders, attributes, bytes, and what the store is asked for."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from special.volume import DEFAULT_BLOCK_BYTES
from tests.mount.conftest import Shop
from tests.soak.proxy import blocks_got
from tests.support.mounts import LiveMount, special_mount

pytestmark = pytest.mark.service


def data_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_names_attributes_and_bytes_are_those_of_the_objects(shop: Shop, live: LiveMount) -> None:
    objects = {"names/2/foo": data_of(1, 300_001), "names/a b,ü.tif": data_of(2, 65_536), "names/empty": b""}
    tags = {key: shop.put(key, data) for key, data in objects.items()}
    for key, data in objects.items():
        path = live.directory / key
        assert path.read_bytes() == data
        assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (len(data), 0o444)
        assert os.getxattr(path, "user.etag") == tags[key].encode()
        assert os.getxattr(path, "user.url") == f"{shop.url}/{key}".encode()
        assert sorted(os.listxattr(path)) == ["user.etag", "user.url"]
    head = shop.s3.client().head_object(Bucket=shop.bucket, Key="names/2/foo")
    assert (live.directory / "names/2/foo").stat().st_mtime == head["LastModified"].timestamp()
    assert "names" in os.listdir(live.directory)
    assert sorted(os.listdir(live.directory / "names")) == ["2", "a b,ü.tif", "empty"]
    assert (live.directory / "names").is_dir()
    for missing in ("nothing", "names/nothing", "names/2/foo/x", "names/2/fo"):
        assert not (live.directory / missing).exists()
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (live.directory / "names/2/foo").open("r+b")
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(live.directory / "names/2/foo", "user.other")


def test_an_object_and_the_keys_below_it_are_both_reachable(shop: Shop, live: LiveMount) -> None:
    for key in ("both/2/foo", "both/2/foo-1", "both/2/foo.tif", "both/2/foo/bar", "both/2/foo/baz/x", "both/2/other/y"):
        shop.put(key, key.encode())
    folder = live.directory / "both/2"
    assert sorted(os.listdir(folder)) == ["foo", "foo-1", "foo.tif", "foo@prefix", "other"]
    assert (folder / "foo").read_bytes() == b"both/2/foo"
    assert (folder / "foo@prefix/bar").read_bytes() == b"both/2/foo/bar"
    assert (folder / "foo@prefix/baz/x").read_bytes() == b"both/2/foo/baz/x"
    assert (folder / "other@prefix/y").read_bytes() == (folder / "other/y").read_bytes() == b"both/2/other/y"
    walked = {
        str(Path(where, name).relative_to(live.directory)) for where, _, names in os.walk(folder) for name in names
    }
    assert walked == {
        "both/2/foo",
        "both/2/foo-1",
        "both/2/foo.tif",
        "both/2/foo@prefix/bar",
        "both/2/foo@prefix/baz/x",
        "both/2/other/y",
    }


def test_a_long_folder_is_listed_a_page_at_a_time(shop: Shop, tmp_path: Path) -> None:
    keys = [f"many/{number:04}/x" for number in range(100)] + [f"many/{number:04}.tif" for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: shop.put(key, b"x"), keys))
    with special_mount(shop.url, home=tmp_path, settings=shop.s3.environ) as live:
        start = len(shop.between.log)
        listed = subprocess.run(["ls", "-l", live.directory / "many"], check=True, capture_output=True, text=True)
        lines = [line.split() for line in listed.stdout.splitlines()[1:]]
        found = {name: (mode[0], int(size)) for mode, _, _, _, size, *_, name in lines}
        assert found == {f"{n:04}": ("d", 0) for n in range(100)} | {f"{n:04}.tif": ("-", 1) for n in range(200)}
        asked = shop.requests(start)
        assert len(asked) < 50, "listings tell sizes and versions, so that most files are not asked for by themselves"


def test_folders_need_not_be_listed(shop: Shop, tmp_path: Path) -> None:
    shop.put("deep/2/foo", b"x")
    with special_mount(shop.url, "--no-list", home=tmp_path, settings=shop.s3.environ) as live:
        start = len(shop.between.log)
        assert (live.directory / "deep/2/foo").read_bytes() == b"x"
        assert [method for method, _ in shop.requests(start)] == ["HEAD", "HEAD", "HEAD", "GET"]
        with pytest.raises(PermissionError):
            os.listdir(live.directory / "deep")


def test_a_thousand_readers_of_one_file_fetch_each_block_once(shop: Shop, live: LiveMount) -> None:
    data = data_of(3, 5 * 2**20 + 77)
    shop.put("crowd", data)
    chance, start = random.Random(4), len(shop.between.log)
    places = [chance.randrange(len(data) - 20_000) for _ in range(1000)]
    gate = threading.Barrier(1000)

    def read(place: int) -> bool:
        gate.wait()
        with (live.directory / "crowd").open("rb", buffering=0) as file:
            return os.pread(file.fileno(), 20_000, place) == data[place : place + 20_000]

    threading.stack_size(1 << 20)
    with ThreadPoolExecutor(1000) as threads:
        assert all(threads.map(read, places))
    often = blocks_got(shop.between.gets("crowd", since=start), DEFAULT_BLOCK_BYTES)
    assert set(often.values()) == {1}
    heads = sum(method == "HEAD" for method, _ in shop.requests(start))
    assert heads < 100, "programs that look a name up at once share one request"


def test_a_version_that_was_read_is_read_again_without_the_store(shop: Shop, live: LiveMount) -> None:
    data = data_of(5, 2**20)
    shop.put("again", data)
    path = live.directory / "again"
    assert path.read_bytes() == data
    start = len(shop.between.log)
    assert path.read_bytes() == data
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == data
    assert shop.between.gets("again", since=start) == []


def test_a_file_that_is_read_through_is_read_ahead(shop: Shop, live: LiveMount) -> None:
    data = data_of(6, 24 * 2**20)
    shop.put("long", data)
    start = len(shop.between.log)
    assert (live.directory / "long").read_bytes() == data
    gets = shop.between.gets("long", since=start)
    assert set(blocks_got(gets, DEFAULT_BLOCK_BYTES).values()) == {1}
    assert len(gets) < 60, "of 384 blocks, most came in pieces of a MiB"


def test_a_folder_is_mounted_without_a_copy(fuse: None, tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    (source / "1/2").mkdir(parents=True)
    data = data_of(7, 3 * 2**20)
    (source / "1/2/foo.tif").write_bytes(data)
    with special_mount(source, home=home) as live:
        assert (live.directory / "1/2/foo.tif").read_bytes() == data
        assert os.listdir(live.directory / "1") == ["2"]
        assert not list((live.volume / "objects").iterdir())
