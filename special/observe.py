"""What one request cost, and the names of every metric.

A `Trace` follows one request through all rooms by a context variable, so that a source can
count a GET without being told whose it is. Work that several requests share (a block of the
volume) is counted at the request that started it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

Step = Literal["source", "queue", "decode", "encode"]


@dataclass(slots=True)
class Trace:
    """What one request did. Times in milliseconds; a request that did no such thing says 0."""

    client: str = ""
    """Who asks, by address; empty for what nobody asked for."""
    route: str = ""
    """`thumb`, `derivative`, `stream` or `tile`; empty until a plan is made."""
    gets: int = 0
    """GET requests sent to object stores (or reads of local files)."""
    bytes: int = 0
    """Bytes of bodies asked of object stores."""
    source_ms: float = 0.0
    """Time spent waiting for spans, through whichever reader."""
    queue_ms: float = 0.0
    """Time spent waiting for a decoder process."""
    decode_ms: float = 0.0
    """Time from encoded bytes to pixels of the right size."""
    encode_ms: float = 0.0
    """Time from pixels to the answer's bytes."""
    steps: list[tuple[Step, float, float]] = field(default_factory=list)
    """Each part of these times: what it was, and from when to when by `monotonic`, in seconds."""

    def count_get(self, size_bytes: int) -> None:
        """One GET of that many bytes was sent."""
        self.gets += 1
        self.bytes += size_bytes

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Time spent inside counts as `source_ms`."""
        start_s = monotonic()
        try:
            yield
        finally:
            self.took("source", start_s, monotonic())

    def took(self, what: Step, start_s: float, stop_s: float) -> None:
        """A step was taken, from when to when by `monotonic`."""
        ms = (stop_s - start_s) * 1000
        match what:
            case "source":
                self.source_ms += ms
            case "queue":
                self.queue_ms += ms
            case "decode":
                self.decode_ms += ms
            case "encode":
                self.encode_ms += ms
        self.steps.append((what, start_s, stop_s))

    def drawn(self, decode_ms: float, encode_ms: float) -> None:
        """A decoder has just answered, and says how long it took for both its steps."""
        stop_s = monotonic()
        between_s = stop_s - encode_ms / 1000
        self.took("decode", between_s - decode_ms / 1000, between_s)
        self.took("encode", between_s, stop_s)

    def server_timing(self) -> str:
        """The value of a Server-Timing header (W3C Server Timing, section 3)."""
        return _idle(self.route) if not (self.steps or self.gets) else self._timing()

    def _timing(self) -> str:
        return (
            f'route;desc="{self.route}", '
            f'source;dur={self.source_ms:.1f};desc="gets={self.gets} bytes={self.bytes}", '
            f"queue;dur={self.queue_ms:.1f}, decode;dur={self.decode_ms:.1f}, encode;dur={self.encode_ms:.1f}"
        )


@cache
def _idle(route: str) -> str:
    """What is said of an answer that was at hand."""
    return Trace(route=route)._timing()


_current: ContextVar[Trace | None] = ContextVar("special_trace", default=None)


def trace() -> Trace:
    """The trace of the request at hand; a throw-away one outside any request."""
    return _current.get() or Trace()


class tracing:  # noqa: N801  used as a statement
    """A new trace for everything inside, tasks started there included."""

    __slots__ = ("_token", "_trace")

    def __enter__(self) -> Trace:
        self._trace = Trace()
        self._token = _current.set(self._trace)
        return self._trace

    def __exit__(self, *raised: object) -> None:
        _current.reset(self._token)


ANSWERS = Counter("special_answers", "Answers by route and status.", ["route", "status"])
ANSWER_SECONDS = Histogram("special_answer_seconds", "Time from request to the last byte, by route.", ["route"])
SOURCE_GETS = Counter("special_source_gets", "GET requests sent to object stores.")
SOURCE_BYTES = Counter("special_source_bytes", "Bytes asked of object stores.")
SOURCE_SECONDS = Histogram(
    "special_source_seconds",
    "Time from a request to an object store to its answer, body included where it is small.",
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 10),
)
SOURCE_ERRORS = Counter("special_source_errors", "Store requests that failed, by kind.", ["kind"])
DECODER_JOBS = Counter("special_decoder_jobs", "Decoder jobs by outcome.", ["outcome"])
LANE_JOBS = Gauge(
    "special_lane_jobs", "Decoder jobs by lane, that run or wait.", ["lane", "state"], multiprocess_mode="livesum"
)
LANE_REFUSALS = Counter("special_lane_refusals", "Jobs that a lane had no place for in time.", ["lane"])
QUARANTINES = Counter("special_quarantines", "Masters that were left alone for ten minutes: they crashed decoders.")
DECODE_BYTES = Gauge(
    "special_decode_bytes", "Memory set aside for answers that are being made.", multiprocess_mode="livesum"
)
DECODERS_UP = Gauge("special_decoders_up", "Decoder processes that are ready.", multiprocess_mode="livesum")
LOOP_LAG = Gauge(
    "special_loop_lag_seconds", "How late the event loop has been lately, at the most.", multiprocess_mode="livemax"
)
TASKS = Gauge("special_tasks", "Tasks of the event loops.", multiprocess_mode="livesum")
VOLUME_BLOCKS = Counter("special_volume_blocks", "Blocks read through the volume, by how they were had.", ["how"])
VOLUME_AHEAD = Counter("special_volume_ahead_bytes", "Bytes read ahead: fetched, and since then used.", ["what"])
VOLUME_FAULTS = Counter("special_volume_faults", "Faults of the volume that were passed by, by kind.", ["kind"])
VOLUME_BYTES = Gauge("special_volume_bytes", "Bytes the volume takes on disk.", multiprocess_mode="max")
PROMOTIONS = Counter("special_promotions", "Pyramids by what became of making them.", ["outcome"])
KEPT = Counter("special_kept", "Answers offered to the store of renditions, by what became of them.", ["outcome"])
VOLUME_EVICTIONS = Counter("special_volume_evictions", "Objects evicted from the volume.")


@cache
def _meters(route: str, status: int) -> tuple[Counter, Histogram]:
    return ANSWERS.labels(route or "none", str(status)), ANSWER_SECONDS.labels(route or "none")


def answered(route: str, status: int, seconds: float) -> None:
    """Count one answer."""
    answers, durations = _meters(route, status)
    answers.inc()
    durations.observe(seconds)


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
    if SHARED_COUNTS not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(_AllProcesses(Path(os.environ[SHARED_COUNTS])))
    return registry


_COUNTS, _OWNER = "special-metrics-", "owner"
"""How folders of counts are called in the folder for temporary files, and the file in them that is locked."""


@contextmanager
def counts_folder() -> Iterator[Path]:
    """A new folder for the counts of several processes; those that servers left which were killed are removed.

    Whoever has a folder holds a lock in it for as long as it lives: the kernel lets go of it, however it dies.
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
        metrics: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return metrics


def _of_the_dead(path: Path) -> bool:
    """Whether a file has gauges that ended with their process: `gauge_live…_{process id}.db`."""
    if not path.name.startswith("gauge_live"):
        return False
    try:
        os.kill(int(path.stem.rpartition("_")[2]), 0)
    except ProcessLookupError:
        return True
    return False
