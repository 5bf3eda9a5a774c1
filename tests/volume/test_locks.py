import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from special.volume import locks

pytestmark = pytest.mark.service


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two descriptions of one file."""
    fds = [os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    yield fds[0], fds[1]
    for fd in fds:
        os.close(fd)


def test_one_at_a_time(two: tuple[int, int]) -> None:
    one, other = two
    assert locks.try_exclusive(one, 10, 5)
    assert not locks.try_exclusive(other, 14)
    assert not locks.try_shared(other, 10)
    assert locks.try_exclusive(other, 15)
    locks.unlock(one, 10, 5)
    assert locks.try_exclusive(other, 14)


def test_many_share(two: tuple[int, int]) -> None:
    one, other = two
    assert locks.try_shared(one, 0)
    assert locks.try_shared(other, 0)
    assert not locks.try_exclusive(one, 0)
    locks.unlock(other, 0)
    assert locks.try_exclusive(one, 0)


def test_closing_another_descriptor_of_the_file_keeps_the_lock(two: tuple[int, int], tmp_path: Path) -> None:
    one, other = two
    assert locks.try_exclusive(one, 0)
    os.close(os.open(tmp_path / "file", os.O_RDWR))
    assert not locks.try_exclusive(other, 0)


def test_the_dead_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    code = (
        "import os, sys; from special.volume import locks;"
        f"print(locks.try_exclusive(os.open({str(path)!r}, os.O_RDWR), 0), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"True\n"
        assert not locks.try_shared(fd, 0)
        child.kill()
        child.wait()
        assert locks.try_shared(fd, 0)
    os.close(fd)
