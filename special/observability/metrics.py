"""All metrics by name."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

ANSWERS = Counter("special_answers", "Answers by route and status.", ["route", "status"])


QUICK_S = Histogram.DEFAULT_BUCKETS[0]


class _Durations(Histogram):
    """A histogram that is also told of many short times at once."""

    def observe_quick(self, count: int, seconds: float) -> None:
        """Count durations of at most `QUICK_S` each: their number, and their sum in seconds."""
        self._sum.inc(seconds)
        self._buckets[0].inc(count)


ANSWER_SECONDS = _Durations("special_answer_seconds", "Time from request to the last byte, by route.", ["route"])


SOURCE_GETS = Counter("special_source_gets", "GET requests sent to object stores.")


SOURCE_BYTES = Counter("special_source_bytes", "Bytes requested from object stores.")


SOURCE_SECONDS = Histogram(
    "special_source_seconds",
    "Time from a request to an object store to its answer, body included where it is small.",
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 10),
)


SOURCE_ERRORS = Counter("special_source_errors", "Store requests that failed, by kind.", ["kind"])


DECODER_JOBS = Counter("special_decoder_jobs", "Decoder jobs by outcome.", ["outcome"])


LANE_JOBS = Gauge(
    "special_lane_jobs", "Decoder jobs by lane, running or waiting.", ["lane", "state"], multiprocess_mode="livesum"
)


LANE_REFUSALS = Counter("special_lane_refusals", "Jobs refused because their lane was full or too slow.", ["lane"])


INCOMPLETE_ANSWERS = Counter(
    "special_incomplete_answers", "Answers made of masters that end early: what is missing is grey."
)


QUARANTINES = Counter("special_quarantines", "Masters not decoded for ten minutes: they cost two decoders.")


DECODE_BYTES = Gauge(
    "special_decode_bytes", "Memory reserved for answers that are being made.", multiprocess_mode="livesum"
)


DECODERS_UP = Gauge("special_decoders_up", "Decoder processes that are ready.", multiprocess_mode="livesum")


DECODER_SANDBOX = Gauge(
    "special_decoder_sandbox",
    "Whether each layer of the decoders' sandbox holds: 1 or 0.",
    ["layer"],
    multiprocess_mode="livemin",
)


LOOP_LAG = Gauge(
    "special_loop_lag_seconds", "Maximum delay of the event loop over the last seconds.", multiprocess_mode="livemax"
)


TASKS = Gauge("special_tasks", "Tasks of the event loops.", multiprocess_mode="livesum")


VOLUME_BLOCKS = Counter("special_volume_blocks", "Blocks read through the volume, by where they came from.", ["how"])


VOLUME_PREFETCHED = Counter(
    "special_volume_ahead_bytes", "Bytes prefetched, and bytes of those that were used.", ["what"]
)


VOLUME_FAULTS = Counter("special_volume_faults", "Faults of the volume that were worked around, by kind.", ["kind"])


VOLUME_BYTES = Gauge("special_volume_bytes", "Bytes the volume takes on disk.", multiprocess_mode="max")


PROMOTIONS = Counter("special_promotions", "Attempts to build a pyramid, by outcome.", ["outcome"])


WRITE_BACKS = Counter("special_kept", "Answers submitted to the store of renditions, by outcome.", ["outcome"])


VOLUME_EVICTIONS = Counter("special_volume_evictions", "Objects evicted from the volume.")


@dataclass(slots=True)
class _Tally:
    """Quick answers of one route and status that were not added to the metrics yet."""

    answers: Counter
    durations: _Durations
    count: int = 0
    seconds: float = 0.0


_tallies: dict[tuple[str, int], _Tally] = {}


def answered(route: str, status: int, seconds: float) -> None:
    """Count one answer. `flush` adds it to the metrics: answers from memory take no longer than that would."""
    tally = _tallies.get((route, status))
    if tally is None:
        labels = route or "none", str(status)
        tally = _tallies[route, status] = _Tally(ANSWERS.labels(*labels), ANSWER_SECONDS.labels(labels[0]))
    if seconds > QUICK_S:
        tally.answers.inc()
        tally.durations.observe(seconds)
    else:
        tally.count += 1
        tally.seconds += seconds


def flush() -> None:
    """Add what was counted; called four times a second, and before the metrics are shown."""
    for tally in _tallies.values():
        if tally.count:
            tally.answers.inc(tally.count)
            tally.durations.observe_quick(tally.count, tally.seconds)
            tally.count, tally.seconds = 0, 0.0
