"""Containers whose control group says what they may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from special.observability.machine import memory_bytes, processors


@pytest.mark.parametrize(
    ("files", "most"),
    [
        pytest.param({}, None, id="no container"),
        pytest.param({"cpu.max": "max 100000\n"}, None, id="no quota"),
        pytest.param({"cpu.max": "50000 100000\n"}, 1, id="half a processor"),
        pytest.param({"cpu.max": "100001 100000\n"}, 2, id="a little more than one"),
        pytest.param({"cpu.max": "6400000 100000\n"}, None, id="more than there are"),
        pytest.param({"cpu.max": "\n"}, None, id="no sense"),
        pytest.param({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, id="cgroup 1"),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, id="cgroup 1, none"),
    ],
)
def test_a_container_may_have_fewer_processors(tmp_path: Path, files: dict[str, str], most: int | None) -> None:
    affinity = len(os.sched_getaffinity(0))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors(tmp_path) == min(affinity, most or affinity)


def test_a_container_may_have_less_memory(tmp_path: Path) -> None:
    whole = memory_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == whole
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    assert memory_bytes(tmp_path) == 2**28
