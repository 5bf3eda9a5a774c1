"""A broken volume costs speed, never a wrong byte or a failed request; and every fault is counted."""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from shutil import rmtree

import pytest
from prometheus_client import REGISTRY

from special.errors import ConfigurationError
from special.storage.blob import Span
from special.volume import Volume, stat
from special.volume.blocks import BlockMap
from special.volume.directory import LEDGER_NAME, OBJECTS_NAME, Step, VolumeDirectory
from special.volume.ledger import Ledger, is_broken
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected, taken_bytes

BLOCK = 64 << 10
MIB = 1 << 20
A, B = blob("a", 20 * BLOCK), blob("b", 20 * BLOCK)
ALL = [Span(0, A.size)]


def faults(kind: str) -> float:
    return REGISTRY.get_sample_value("special_volume_faults_total", {"kind": kind}) or 0.0


def home(directory: Path, key: str = "a") -> Path:
    return VolumeDirectory(directory, at=lambda step: None).object_directory(BlockMap.of(blob(key, A.size), BLOCK).name)


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(directory: Path) -> None:
    data = home(directory) / "data"
    patch(data, 3 * BLOCK + 77, bytes([data.read_bytes()[3 * BLOCK + 77] ^ 1]))


def swap(directory: Path, name: str) -> None:
    a, b = home(directory) / name, home(directory, "b") / name
    other = a.with_name("other")
    a.rename(other)
    b.rename(a)
    other.rename(b)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped-bit": (flip, "corrupt"),
    "hole": (lambda at: patch(home(at) / "data", 2 * BLOCK, bytes(3 * BLOCK)), "corrupt"),
    "shifted": (lambda at: patch(home(at) / "data", BLOCK, (home(at) / "data").read_bytes()[: 5 * BLOCK]), "corrupt"),
    "truncated-data": (lambda at: os.truncate(home(at) / "data", 5 * BLOCK + 1), "corrupt"),
    "emptied-data": (lambda at: os.truncate(home(at) / "data", 0), "corrupt"),
    "swapped-data": (lambda at: swap(at, "data"), "corrupt"),
    "swapped-maps": (lambda at: swap(at, "map"), "corrupt"),
    "scribbled-entries": (lambda at: patch(home(at) / "map", 4096 + 16, b"\xa5" * 40), "corrupt"),
    "scribbled-header": (lambda at: patch(home(at) / "map", 0, b"\xa5" * 40), "corrupt"),
    "emptied-map": (lambda at: os.truncate(home(at) / "map", 0), "corrupt"),
    "data-is-a-directory": (lambda at: ((home(at) / "data").unlink(), (home(at) / "data").mkdir())[1], "open"),
}
UNSEEN: dict[str, Callable[[Path], None]] = {
    "truncated-map": lambda at: os.truncate(home(at) / "map", 4096 + 24),
    "lost-data": lambda at: (home(at) / "data").unlink(),
    "lost-map": lambda at: (home(at) / "map").unlink(),
    "lost-object": lambda at: rmtree(home(at)),
    "lost-objects": lambda at: rmtree(at / OBJECTS_NAME),
}


async def filled(directory: Path) -> None:
    """A volume with two objects, which no server uses."""
    async with Volume(directory, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(Made({"a": 1, "b": 1}))
        for of in (A, B):
            await reader.read(of, ALL)


@pytest.mark.parametrize(("damage", "kind"), DAMAGES.values(), ids=DAMAGES)
async def test_damage_is_noticed_after_a_restart(tmp_path: Path, damage: Callable[[Path], None], kind: str) -> None:
    await filled(tmp_path)
    damage(tmp_path)
    before, source = faults(kind), Made({"a": 1, "b": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(source)
        for of in (A, B):
            assert await reader.read(of, ALL) == expected(of, ALL)
    assert faults(kind) > before
    assert source.gets


@pytest.mark.parametrize("damage", UNSEEN.values(), ids=UNSEEN)
async def test_loss_is_made_good_after_a_restart(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    await filled(tmp_path)
    damage(tmp_path)
    source = Made({"a": 1, "b": 1})
    for _ in range(2):
        async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
    assert 1 <= len(source.gets) <= 2


@pytest.mark.parametrize(
    "damage", [*(damage for damage, _ in DAMAGES.values()), *UNSEEN.values()], ids=[*DAMAGES, *UNSEEN]
)
async def test_damage_while_running_never_gives_a_wrong_byte(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    await filled(tmp_path)
    source = Made({"a": 1, "b": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        reader = volume.reader(source)
        for of in (A, B):
            assert await reader.read(of, ALL) == expected(of, ALL)
        assert source.gets == []
        damage(tmp_path)
        for of in (A, B):
            assert await reader.read(of, ALL) == expected(of, ALL)


async def test_a_broken_block_is_fetched_alone_and_once(tmp_path: Path) -> None:
    await filled(tmp_path)
    flip(tmp_path)
    source = Made({"a": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as volume:
        for _ in range(3):
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
    assert source.gets == [Span(3 * BLOCK, 4 * BLOCK)]


ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]
STEPS: list[Step] = ["admit", "create", "reserve", "write", "publish", "settle"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", ERRORS, ids=[errno.errorcode[code] for code in ERRORS])
async def test_a_disk_that_fails_at_any_step_is_passed_by(tmp_path: Path, step: Step, code: int) -> None:
    failing = True

    def at(now: Step) -> None:
        if failing and now == step:
            raise OSError(code, os.strerror(code))

    source, before = Made({"a": 1}), faults("open") + faults("write")
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, failure_memory_s=0.0, at=at) as volume:
        reader = volume.reader(source)
        for _ in range(3):
            assert await reader.read(A, ALL) == expected(A, ALL)
        await until(lambda: faults("open") + faults("write") > before)
        assert volume.broken is None
        failing = False
        assert await reader.read(A, ALL) == expected(A, ALL)
        gets = len(source.gets)
        assert await reader.read(A, ALL) == expected(A, ALL)
        assert len(source.gets) == gets <= 4
    directory = VolumeDirectory(tmp_path, at=lambda now: None)
    directory.join(None)
    assert directory.ledger.reservations() == []
    directory.leave()


async def test_a_ledger_that_breaks_is_passed_by(tmp_path: Path) -> None:
    def at(now: Step) -> None:
        if now in ("admit", "reserve"):
            raise sqlite3.DatabaseError("database disk image is malformed")

    await filled(tmp_path)
    source = Made({"a": 1, "c": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, at=at) as volume:
        reader, c = volume.reader(source), blob("c", A.size)
        assert await reader.read(A, ALL) == expected(A, ALL)  # what is there needs no ledger
        assert source.gets == []
        assert await reader.read(c, ALL) == expected(c, ALL)
        assert source.gets == ALL


def in_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / "volume"


WRONG_PLACES: dict[str, Callable[[Path], Path]] = {
    "below-a-file": in_a_file,
    "not-a-disk": lambda _: Path("/proc/special"),
}


@pytest.mark.parametrize("place", WRONG_PLACES.values(), ids=WRONG_PLACES)
async def test_a_directory_that_cannot_be_used_is_passed_by(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    source, before = Made({"a": 1}), faults("open")
    async with Volume(place(tmp_path), size_bytes=16 * MIB) as volume:
        assert volume.broken is not None
        assert str(place(tmp_path)) in volume.broken
        assert await volume.reader(source).read(A, [Span(1, 2)]) == expected(A, [Span(1, 2)])
        assert await volume.stat() is None
    assert source.gets == [Span(1, 2)]
    assert faults("open") > before


def scribble(path: Path) -> None:
    """Nonsense in every page of the database, wherever it is by now."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for start in range(0, path.stat().st_size, 4096):
        patch(path, start + 100, b"scribble" * 50)


def tell_lies(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE totals SET disk_bytes = 5")
        db.commit()


def exchange(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"scribble" * 5000)
    other.replace(path)


BROKEN_LEDGERS: dict[str, Callable[[Path], object]] = {
    "nonsense": lambda path: path.write_bytes(b"scribble" * 5000),
    "nonsense-in-its-pages": scribble,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: os.truncate(path, 0),
    "another-file-in-its-place": exchange,
    "removed": lambda path: path.unlink(),
    "a-table-lost": lambda path: sqlite3.connect(path).execute("DROP TABLE holds").connection.close(),
    "a-wrong-sum": tell_lies,
    "no-sum": lambda path: sqlite3.connect(path, isolation_level=None).execute("DELETE FROM totals").connection.close(),
}


def test_a_ledger_whose_log_was_cut_short_is_broken(tmp_path: Path) -> None:
    """As it happens to a new ledger when an old one is closed whose file was emptied."""
    with closing(Ledger(tmp_path / LEDGER_NAME)):
        os.truncate(tmp_path / f"{LEDGER_NAME}-wal", 0)
        with pytest.raises(sqlite3.Error) as caught:
            Ledger(tmp_path / LEDGER_NAME)
    assert is_broken(caught.value)


@pytest.mark.parametrize("damage", BROKEN_LEDGERS.values(), ids=BROKEN_LEDGERS)
async def test_a_broken_ledger_is_made_again_under_running_servers(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """No server is restarted, no byte is wrong, and the new ledger has everything that is on the disk."""
    keys = [f"{n}" for n in range(40)]
    source = Made(dict.fromkeys(["a", "b", *keys], 1))
    await filled(tmp_path)
    async with (
        Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, failure_memory_s=0.0, maintenance_s=0.05) as first,
        Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK, failure_memory_s=0.0, maintenance_s=0.05) as second,
    ):
        for volume in (first, second):
            assert await volume.reader(source).read(A, ALL) == expected(A, ALL)
        damage(tmp_path / LEDGER_NAME)
        for volume in (first, second, first):  # each finds out for itself, by what it fails to do
            volume.disk.directory._check_at = 0.0
            await until(lambda volume=volume: volume.disk.directory._check_at > 0)  # type: ignore[misc]
        async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as third:
            assert third.broken is None
            assert {entry.url for entry in stat(tmp_path, top=100).top} >= {B.url}
            for key in keys:  # more than there is room for
                of = blob(key, A.size)
                for volume in (first, second, third):
                    assert await volume.reader(source).read(of, ALL) == expected(of, ALL)
                    assert taken_bytes(tmp_path) <= 16 * MIB
            assert len(source.gets) < 2 * len(keys)  # they share again what they fetch
        assert first.disk.directory.ledger.is_current
        assert second.disk.directory.ledger.is_current
        assert stat(tmp_path).evictions > 0
    async with Volume(tmp_path, size_bytes=16 * MIB, block_bytes=BLOCK) as later:
        assert later.disk.directory.ledger.reservations() == []
        later.disk.directory.ledger.check()


async def test_servers_that_disagree_are_told(tmp_path: Path) -> None:
    async with Volume(tmp_path, size_bytes=16 * MIB):
        with pytest.raises(ConfigurationError, match="another server uses the volume"):
            await Volume(tmp_path, size_bytes=17 * MIB).open()


async def test_a_url_that_no_map_has_space_for_goes_past(tmp_path: Path) -> None:
    key = "k" * 5000
    source, of = Made({key: 1}), blob(key, 100)
    async with Volume(tmp_path, size_bytes=16 * MIB) as volume:
        assert await volume.reader(source).read(of, [Span(1, 2)]) == expected(of, [Span(1, 2)])


async def test_a_span_past_the_end_is_the_source_s_business(tmp_path: Path) -> None:
    source = Made({"a": 1})
    async with Volume(tmp_path, size_bytes=16 * MIB) as volume:
        with pytest.raises(AssertionError):  # the made source asserts that it is never asked for such a thing
            await volume.reader(source).read(A, [Span(0, A.size + 1)])
