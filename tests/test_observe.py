"""The counts of several processes, as one exposition."""

import os
import subprocess
import sys
from pathlib import Path

COUNTS = """
import sys
from special import observe
observe.SOURCE_GETS.inc(3)
observe.DECODERS_UP.set(2)
if sys.argv[1:]:
    print(observe.exposition().decode())
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
