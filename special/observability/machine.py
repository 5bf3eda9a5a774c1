"""What this machine, or the container that this process runs in, lets it have."""

from __future__ import annotations

import math
import os
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what this process, or the container that it runs in, may have."""


def memory_bytes(group: Path = CONTROL_GROUP) -> int:
    """What this machine has, or the container that this process runs in, if that is less."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup 2 and 1
        try:
            limit = (group / name).read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():  # else "max"
            has = min(has, int(limit))
    return has


def processors(group: Path = CONTROL_GROUP) -> int:
    """How many processors this process may use: its affinity, or its container's quota, rounded up, if that is less."""
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup 2 and 1
        try:
            quota_us, period_us = " ".join((group / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota_us.isdecimal():  # else "max", or -1
            may = min(may, max(1, math.ceil(int(quota_us) / int(period_us))))
    return may
