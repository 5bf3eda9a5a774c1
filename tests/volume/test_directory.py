"""What comes in, what goes first, what may not go, and who may use a directory."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from special.errors import ConfigurationError
from special.volume.blocks import FORMAT_VERSION, BlockMap
from special.volume.directory import LEDGER_NAME, Full, Step, VolumeDirectory
from special.volume.ledger import Ledger, Use
from special.volume.membership import SERVERS_NAME, VolumeTerms
from special.volume.object_files import ObjectFiles
from tests.volume.made import content, taken_bytes

BLOCK = 64 << 10
MIB = 1 << 20
TERMS = VolumeTerms(8 * MIB, BLOCK)
Join = Callable[..., VolumeDirectory]


def ignore(step: Step) -> None:
    """Nothing happens at this step."""


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    with ExitStack() as stack:

        def joined(terms: VolumeTerms | None = TERMS, at: Callable[[Step], None] = ignore) -> VolumeDirectory:
            directory = VolumeDirectory(tmp_path, at=at)
            directory.join(terms)
            stack.callback(directory.leave)
            return directory

        yield joined


def blocks_of(key: str, size_bytes: int = 2 * MIB, etag: str = '"1"') -> BlockMap:
    return BlockMap(f"s3://made/{key}", etag, size_bytes, BLOCK)


def fill(directory: VolumeDirectory, blocks: BlockMap, count: int | None = None) -> ObjectFiles:
    """An object with its first blocks in; its files are protected."""
    files = directory.admit(blocks)
    data = [
        content(blocks.url, 1, blocks.span(range(n, n + 1))) for n in range(blocks.count if count is None else count)
    ]
    directory.store(files, 0, data)
    return files


def names(directory: VolumeDirectory) -> list[str]:
    """What is in, the last read first."""
    return [entry.url.removeprefix("s3://made/") + entry.etag.strip('"') for entry in directory.ledger.objects()]


class TestEviction:
    def test_the_least_recently_used_goes_first(self, join: Join) -> None:
        directory = join()
        for key in "abc":
            fill(directory, blocks_of(key)).close()
        directory.touch([Use(blocks_of("a").name, 4e9, 1, 0)])
        fill(directory, blocks_of("d")).close()
        assert sorted(names(directory)) == ["a1", "c1", "d1"]

    def test_an_old_version_goes_before_everything_else(self, join: Join) -> None:
        directory = join()
        fill(directory, blocks_of("a")).close()
        fill(directory, blocks_of("b")).close()
        fill(directory, blocks_of("b", size_bytes=MIB, etag='"2"')).close()
        directory.touch([Use(blocks_of("b").name, 4e9, 1, 0)])
        fill(directory, blocks_of("c")).close()
        assert sorted(names(directory)) == ["a1", "b2", "c1"]

    def test_what_is_being_read_stays(self, join: Join) -> None:
        directory = join()
        with closing(fill(directory, blocks_of("a"))) as reading:
            fill(directory, blocks_of("b")).close()
            fill(directory, blocks_of("c")).close()
            fill(directory, blocks_of("d")).close()
            assert sorted(names(directory)) == ["a1", "c1", "d1"]
            assert len(reading.read_blocks(range(32))) == 32

    def test_what_another_server_reads_stays(self, join: Join) -> None:
        directory, other = join(), join()
        with closing(fill(other, blocks_of("a"))):
            for key in "bcd":
                fill(directory, blocks_of(key)).close()
            assert sorted(names(directory)) == ["a1", "c1", "d1"]

    def test_full_of_what_is_being_read(self, join: Join) -> None:
        directory = join()
        with closing(fill(directory, blocks_of("a"))), closing(fill(directory, blocks_of("b"))):
            with closing(directory.admit(blocks_of("c", 4 * MIB))) as files, pytest.raises(Full):
                directory.store(files, 0, [bytes(BLOCK)] * 64)
            assert files.blocks.count == 64
        assert directory.ledger.reservations() == []

    def test_what_is_released_may_be_evicted_and_its_files_tell(self, join: Join, tmp_path: Path) -> None:
        directory = join()
        files = fill(directory, blocks_of("a"))
        assert not files.gone
        files.release()
        before = os.statvfs(tmp_path).f_bavail
        assert directory.clear(None) == (1, 0)
        assert files.gone
        assert not files.acquire()
        assert os.fstat(files._data_fd).st_blocks == 0
        assert before <= os.statvfs(tmp_path).f_bavail + 10_000
        files.close()

    def test_an_object_that_cannot_be_removed_is_passed_by(self, join: Join) -> None:
        def fail(step: Step) -> None:
            if step == "evict" and failing:
                failing.pop()
                raise OSError(5, "Input/output error")

        failing = [1]
        directory = join(at=fail)
        for key in "abcd":
            fill(directory, blocks_of(key)).close()
        assert sorted(names(directory)) == ["a1", "c1", "d1"]

    def test_what_is_on_disk_is_never_more_than_the_ledger_says(self, join: Join, tmp_path: Path) -> None:
        directory = join()
        for n in range(40):
            blocks = blocks_of(f"{n}", (n * 37_003) % (2 * MIB) + 1)
            with closing(directory.admit(blocks)) as files:
                for index in range(0, blocks.count, 3):  # holes: the file system's index grows
                    directory.store(files, index, [bytes(blocks.length(index))])
                    assert taken_bytes(tmp_path) <= directory.taken_bytes() <= TERMS.size_bytes

    def test_further_files_of_an_object_count_and_go_with_it(self, join: Join) -> None:
        directory = join()
        blocks = blocks_of("a")
        with closing(fill(directory, blocks)) as files:
            (files.directory / "pyramid").write_bytes(bytes(MIB))
            before = directory.ledger.totals().disk_bytes
            directory.store(files, 0, [bytes(BLOCK)])
            assert directory.ledger.totals().disk_bytes == before + MIB
        assert directory.clear(blocks.url) == (1, 0)
        assert list(directory.object_directories()) == []


class TestJoining:
    def test_shrinking_evicts_before_anything_is_read(self, join: Join, tmp_path: Path) -> None:
        directory = join(replace(TERMS, size_bytes=32 * MIB))
        for key in "abcdef":
            fill(directory, blocks_of(key)).close()
        directory.leave()
        directory = join()
        assert names(directory) == ["f1", "e1", "d1"]
        assert taken_bytes(tmp_path) <= TERMS.size_bytes

    @pytest.mark.parametrize(
        ("terms", "reason"),
        [
            pytest.param(VolumeTerms(9 * MIB, BLOCK), r"size_bytes = 8388608, not 9437184", id="size"),
            pytest.param(VolumeTerms(8 * MIB, 4096), r"block_bytes = 65536, not 4096", id="block-size"),
        ],
    )
    def test_the_later_server_has_to_agree(self, join: Join, terms: VolumeTerms, reason: str) -> None:
        join()
        with pytest.raises(ConfigurationError, match=reason):
            join(terms)
        join()

    def test_terms_may_change_when_all_have_left(self, join: Join) -> None:
        join().leave()
        assert join(VolumeTerms(9 * MIB, 4096)).terms == VolumeTerms(9 * MIB, 4096)

    def test_without_terms_of_its_own_it_takes_those_that_hold(self, join: Join) -> None:
        join()
        assert join(None).terms == TERMS

    def test_without_a_volume_there_is_nothing_to_join(self, join: Join, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="holds no volume"):
            join(None)
        assert list(tmp_path.iterdir()) == []

    def test_what_the_dead_had_reserved_is_given_back(self, join: Join) -> None:
        living = join()
        dead = join()
        dead.ledger.reserve(dead.membership.owner, "x", MIB)
        dead.leave()
        living.ledger.reserve(living.membership.owner, "y", MIB)
        assert [name for _, _, name in living.ledger.reservations()] == ["x", "y"]
        join()
        assert [name for _, _, name in living.ledger.reservations()] == ["y"]

    def test_what_the_dead_had_reserved_is_given_back_when_room_is_short(self, join: Join) -> None:
        living = join()
        dead = join()
        dead.ledger.reserve(dead.membership.owner, "x", 6 * MIB)
        dead.leave()
        with closing(fill(living, blocks_of("a"))):
            fill(living, blocks_of("b")).close()
            assert sorted(names(living)) == ["a1", "b1"]


class TestBooks:
    """Files and ledger that do not agree: the first server makes them."""

    @pytest.fixture
    def left(self, join: Join) -> BlockMap:
        """A directory with one object, which no server uses."""
        directory = join()
        blocks = blocks_of("a")
        fill(directory, blocks).close()
        directory.leave()
        return blocks

    @pytest.mark.parametrize("damage", ["removed", "scribbled", "truncated", "other-version"])
    def test_a_lost_ledger_is_made_from_the_maps(self, join: Join, left: BlockMap, tmp_path: Path, damage: str) -> None:
        ledger = tmp_path / LEDGER_NAME
        match damage:
            case "removed":
                ledger.unlink()
            case "scribbled":
                ledger.write_bytes(b"scribble" * 5000)
            case "truncated":
                os.truncate(ledger, 5000)
            case "other-version":
                with closing(sqlite3.connect(ledger)) as db:
                    db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
        directory = join()
        assert names(directory) == ["a1"]
        assert taken_bytes(tmp_path) <= directory.taken_bytes()
        with closing(directory.admit(left)) as files:
            assert len(files.read_blocks(range(32))) == 32

    def test_a_broken_ledger_of_a_running_server_is_replaced(self, join: Join, left: BlockMap, tmp_path: Path) -> None:
        running = join()
        with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (tmp_path / LEDGER_NAME).write_bytes(b"scribble" * 5000)
        assert names(join()) == ["a1"]
        assert not running.ledger.is_current
        running.touch([])
        assert running.ledger.is_current
        assert names(running) == ["a1"]

    def test_an_object_without_files_is_struck_out(self, join: Join, left: BlockMap, tmp_path: Path) -> None:
        home = VolumeDirectory(tmp_path, at=ignore).object_directory(left.name)
        (home / "map").unlink()
        directory = join()
        assert names(directory) == []
        assert list(directory.object_directories()) == []
        assert directory.ledger.totals().disk_bytes == 0

    def test_an_object_with_a_damaged_map_is_removed(self, join: Join, left: BlockMap, tmp_path: Path) -> None:
        (VolumeDirectory(tmp_path, at=ignore).object_directory(left.name) / "map").write_bytes(b"x")
        directory = join()
        assert (names(directory), list(directory.object_directories())) == ([], [])

    def test_scribbled_settings_are_written_again(self, join: Join, left: BlockMap, tmp_path: Path) -> None:
        (tmp_path / SERVERS_NAME).write_bytes(b"\xff scribble")
        assert join().terms == TERMS

    def test_a_map_damaged_while_running_is_replaced(self, join: Join) -> None:
        directory = join()
        blocks = blocks_of("a")
        fill(directory, blocks).close()
        (directory.object_directory(blocks.name) / "map").write_bytes(b"x")
        with closing(directory.admit(blocks)) as files:
            assert files.read_blocks(range(32)) == {}

    def test_a_ledger_of_many_objects_stays_small(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / LEDGER_NAME)
        with ledger.transaction():
            for n in range(2000):
                ledger.add_object(blocks_of(str(n)), 100, float(n))
        ledger.close()
        ledger = Ledger(tmp_path / LEDGER_NAME)
        size = sum(path.stat().st_size for path in ledger.files())
        names = ledger.names(None)
        for start in range(0, 2000, 64):
            with ledger.transaction():
                ledger.touch([Use(name, 1e9, 1, 1) for name in names[start : start + 64]])
        grown = sum(path.stat().st_size for path in ledger.files()) - size
        ledger.close()
        assert grown <= MIB
