"""What this machine, or the container that this process runs in, lets it have."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path, PurePosixPath
from typing import Final

CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
"""Where Linux says what groups of processes may have: the service manager's, the container's."""
MEMBERSHIP: Final = Path("/proc/self/cgroup")
"""Where it says which groups this process is in (cgroups(7)). In a container these may be the host's names."""


MAX_DESCRIPTORS: Final = 1 << 20
"""No process needs more; some programs take long to close as many as they may have."""


def raise_descriptor_limit() -> None:
    """Let this process and its children have as many open files and connections as the system permits at all.

    The usual limit of 1,024 is for programs that still use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections() -> int:
    """How many connections this process can accept: half of its descriptors. Stores, files, decoders have the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft) // 2


def memory_bytes(groups: Path = CONTROL_GROUPS, membership: Path = MEMBERSHIP) -> int:
    """The machine's memory, or the least that any group of this process may have, if that is less."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _folders(groups, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # cgroup 2 and 1
            limit = _read(folder, (name,))
            if limit.isdecimal():  # else "max"
                has = min(has, int(limit))
    return has


def processors(groups: Path = CONTROL_GROUPS, membership: Path = MEMBERSHIP) -> int:
    """How many processors this process may use: its affinity, or the least quota of its groups, rounded up."""
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _folders(groups, membership, "cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # cgroup 2 and 1
            match _read(folder, names).split():
                case [quota_us, period_us] if quota_us.isdecimal():  # else "max", or -1
                    may = min(may, max(1, math.ceil(int(quota_us) / int(period_us))))
    return may


def _folders(groups: Path, membership: Path, controller: str) -> list[Path]:
    """The groups of this process and all that they are part of; a limit of any of them holds.

    cgroup 2 is one tree, cgroup 1 one for each controller. Where a path is another namespace's, its top is the
    container's own group.
    """
    paths = {"": PurePosixPath(), controller: PurePosixPath()}
    for line in _read(membership.parent, (membership.name,)).splitlines():
        _, controllers, path = line.split(":", 2)
        tree = controller if controller in controllers.split(",") else controllers
        if tree in paths and ".." not in PurePosixPath(path).parts:
            paths[tree] = PurePosixPath(path.lstrip("/"))
    return [groups / tree / part for tree, path in paths.items() for part in (path, *path.parents)]


def _read(folder: Path, names: tuple[str, ...]) -> str:
    """The text of these files; nothing where one of them does not exist."""
    try:
        return " ".join((folder / name).read_text() for name in names).strip()
    except OSError:
        return ""
