"""The metrics of several server processes, added up."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from special.observability import metrics

SHARED_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder through which several processes share their counts."""


def exposition() -> bytes:
    """All metrics in Prometheus' text format, added up over the server's processes."""
    return generate_latest(_registry())


def samples() -> Iterator[Sample]:
    """The same, one value after the other."""
    for family in _registry().collect():
        yield from family.samples


def _registry() -> CollectorRegistry:
    metrics.flush()
    if SHARED_COUNTS not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(_AllProcesses(Path(os.environ[SHARED_COUNTS])))
    return registry


_COUNTS, _OWNER = "special-metrics-", "owner"
"""How folders of counts are called in the folder for temporary files, and the file in them that is locked."""


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """A new folder for the counts of several processes; those that servers left which were killed are removed.

    The process that uses a folder holds a lock in it as long as it runs: the kernel frees it, however the process ends.
    """
    base = Path(tempfile.gettempdir())
    for stray in base.glob(f"{_COUNTS}*"):
        # Left alone: another user's, one without a lock (it is just being made), one of a server that lives.
        with suppress(OSError), _locked(stray / _OWNER, os.O_RDWR | os.O_NOFOLLOW):
            shutil.rmtree(stray)
    new = tempfile.TemporaryDirectory(prefix=_COUNTS, ignore_cleanup_errors=True)
    with new as name, _locked(Path(name, _OWNER), os.O_RDWR | os.O_CREAT):
        yield Path(name)


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[None]:
    """Raises `OSError` where another process has the lock."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(path)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


class _AllProcesses(Collector):
    """The counts of all processes, those that have ended included; gauges of those that live.

    In place of the library's own: that one fails on the files of a process that is just starting, and goes on
    adding the gauges of one that was killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in self._folder.glob("*.db") if path.stat().st_size and not _of_the_dead(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _of_the_dead(path: Path) -> bool:
    """Whether a file has gauges that ended with their process: `gauge_live…_{process id}.db`."""
    if not path.name.startswith("gauge_live"):
        return False
    try:
        os.kill(int(path.stem.rpartition("_")[2]), 0)
    except ProcessLookupError:
        return True
    return False
