"""The counts of several processes, as one exposition."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.service

COUNTS = """
import sys
from special.observability import metrics, multiprocess
metrics.SOURCE_GETS.inc(3)
metrics.DECODERS_UP.set(2)
if sys.argv[1:]:
    print(multiprocess.exposition().decode())
"""


def counted(folder: Path, *arguments: str) -> str:
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", COUNTS, *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


def test_counts_of_the_dead_count_and_their_gauges_do_not(tmp_path: Path) -> None:
    counted(tmp_path)
    exposition = counted(tmp_path, "tell")
    assert "special_source_gets_total 6.0" in exposition
    assert "special_decoders_up 2.0" in exposition


def test_a_process_that_is_just_starting_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "gauge_livesum_1.db").touch()
    assert "special_source_gets_total 3.0" in counted(tmp_path, "tell")


HELD = """
import sys
from special.observability import multiprocess
with multiprocess.metrics_folder() as folder:
    (folder / "counter_1.db").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(base: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has a folder of counts below `base` until the end of its input."""
    command, environ = [sys.executable, "-c", HELD], os.environ | {"TMPDIR": str(base)}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def test_folders_of_the_dead_are_removed_and_no_others(tmp_path: Path) -> None:
    making, linked, elsewhere = tmp_path / "special-metrics-new", tmp_path / "special-metrics-link", tmp_path / "mine"
    making.mkdir()  # by somebody who has not locked it yet
    elsewhere.mkdir()
    (elsewhere / "owner").touch()
    linked.symlink_to(elsewhere)
    with holder(tmp_path) as (killed, stray):
        killed.kill()
    with holder(tmp_path) as (_, living), holder(tmp_path) as (_, other):
        assert not stray.exists()
        assert sorted(living.iterdir()) == [living / "counter_1.db", living / "owner"]
        assert other.exists()
    assert sorted(tmp_path.iterdir()) == [elsewhere, linked, making]
    assert (elsewhere / "owner").exists()
