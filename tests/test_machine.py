"""Containers whose control group says what they may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from special.machine import memory_bytes, processors


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


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        pytest.param("0::/\n", {"memory.max": 300}, 300, id="a container's own tree"),
        pytest.param(
            "0::/system.slice/special.service\n", {"system.slice/special.service/memory.max": 300}, 300, id="systemd"
        ),
        pytest.param(
            "0::/a/b/c\n", {"a/b/c/memory.max": 900, "a/b/memory.max": "max", "a/memory.max": 500}, 500, id="a parent"
        ),
        pytest.param("0::/a/b\n", {"a/b/memory.max": 300, "a/memory.max": 500, "memory.max": 400}, 300, id="itself"),
        pytest.param("0::/a\n", {"b/memory.max": 100, "a/b/memory.max": 100, "a/memory.max": "max"}, None, id="others"),
        pytest.param("0::/a:b/c\n", {"a:b/c/memory.max": 300}, 300, id="a colon in the name"),
        pytest.param("0::/../elsewhere\n", {"memory.max": 300}, 300, id="outside of the namespace"),
        pytest.param("0::/docker/1f2e\n", {"memory.max": 300}, 300, id="the host's names"),
        pytest.param("", {"memory.max": 300}, 300, id="no membership"),
        pytest.param(
            "9:name=systemd:/\n4:memory:/docker/1f2e\n1:cpu,cpuacct:/x\n0::/\n",
            {"memory/docker/1f2e/memory.limit_in_bytes": 500, "memory/docker/memory.limit_in_bytes": 2**63 - 4096},
            500,
            id="cgroup 1",
        ),
        pytest.param(
            "4:memory:/docker/1f2e\n", {"memory/memory.limit_in_bytes": 300}, 300, id="cgroup 1 in a container"
        ),
        pytest.param(
            "4:memory:/a\n3:cpu:/b\n", {"memory/b/memory.limit_in_bytes": 300}, None, id="cgroup 1, another's"
        ),
    ],
)
def test_every_group_above_a_process_limits_its_memory(
    tmp_path: Path, membership: str, files: dict[str, int | str], limit: int | None
) -> None:
    groups, member = tmp_path / "cgroup", tmp_path / "self"
    member.write_text(membership)
    whole = memory_bytes(groups, member)
    for name, value in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{value}\n")
    assert memory_bytes(groups, member) == (limit or whole)


def test_a_services_quota_of_processors_holds_too(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/special.service\n")
    (tmp_path / "special.service").mkdir()
    (tmp_path / "special.service" / "cpu.max").write_text("100000 100000\n")
    assert processors(tmp_path, tmp_path / "self") == 1
