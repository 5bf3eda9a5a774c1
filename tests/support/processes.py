"""What a server's processes are and hold, from /proc."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GONE = (FileNotFoundError, ProcessLookupError)


@contextmanager
def interruptible() -> Iterator[None]:
    """Processes that are started inside heed SIGINT; a shell has those ignore it that it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(*GONE):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def servers(pid: int) -> list[int]:
    """The processes that answer requests, of `special serve` with several workers."""
    return [child for child in children(pid) if b"multiprocessing.spawn" in _command(child)]


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    with suppress(*GONE):
        for child in children(pid):
            found += family(child)
    return found


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except GONE:
        return False


def cpu_s(pid: int) -> float:
    """Processor seconds that a process and all that come from it have taken up to now."""
    ticks = 0
    for each in family(pid):
        with suppress(*GONE):
            # proc_pid_stat(5): the name may hold spaces; user and system time are fields 14 and 15
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process and all that come from it have to themselves: shared pages count once for each sharer."""
    return status_bytes(pid, "RssAnon")


def peak_bytes(pid: int) -> int:
    """The most memory that a process and all that come from it ever had, each at its own time; shared pages count."""
    return status_bytes(pid, "VmHWM")


def status_bytes(pid: int, field: str) -> int:
    """A field of proc_pid_status(5) that counts kilobytes, added up over a process and all that come from it."""
    return _added_up(pid, "status", field)


def proportional_bytes(pid: int) -> int:
    """Memory that a process and all that come from it hold: a shared page counts once. For root, and one's own."""
    return _added_up(pid, "smaps_rollup", "Pss")


def _added_up(pid: int, file: str, field: str) -> int:
    total = 0
    for each in family(pid):
        with suppress(*GONE):
            found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{each}/{file}").read_text(), re.MULTILINE)
            total += 1024 * int(found[1]) if found else 0
    return total


def descriptors(pid: int) -> int:
    """How many files and sockets a process and all that come from it have open."""
    return len(open_files(pid))


def open_files(pid: int) -> list[str]:
    """The same by name, as proc_pid_fd(5) has it: one that was unlinked ends with ` (deleted)`."""
    return [name for each in family(pid) for name in _open(each)]


def owner_of_port(pid: int, port: int) -> int | None:
    """Which process of a family has a TCP connection of the loopback address from that port."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    sockets = {f"socket:[{row[9]}]" for row in rows if int(row[1].split(":")[1], 16) == port}
    return next((each for each in family(pid) if sockets.intersection(_open(each))), None)


def _open(pid: int) -> Iterator[str]:
    with suppress(*GONE):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(*GONE):
                yield os.readlink(f"/proc/{pid}/fd/{name}")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except GONE:
        return b""
