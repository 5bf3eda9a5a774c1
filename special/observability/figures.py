"""The metrics of all server processes, put together as the status page shows them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from special.observability import multiprocess


def figures() -> dict[str, Any]:
    """Counts since the start, and current values. Latencies are histograms: `[[upper bound in s, count], …]`."""
    samples: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for sample in multiprocess.samples():
        if sample.name.startswith("special_"):
            samples[sample.name.removeprefix("special_")][tuple(sample.labels.values())] = sample.value
    answers = samples["answers_total"]
    return {
        "routes": {
            route: {
                "answers": sum(count for (of, _), count in answers.items() if of == route),
                "statuses": {status: count for (of, status), count in sorted(answers.items()) if of == route},
                "latency": _histogram(samples["answer_seconds_bucket"], route),
            }
            for route in sorted({route for route, _ in answers})
        },
        "lanes": {
            lane: {
                "running": samples["lane_jobs"].get((lane, "running"), 0),
                "waiting": samples["lane_jobs"].get((lane, "waiting"), 0),
                "refused": samples["lane_refusals_total"].get((lane,), 0),
            }
            for lane in sorted(
                {lane for lane, _ in samples["lane_jobs"]} | {lane for (lane,) in samples["lane_refusals_total"]}
            )
        },
        "decoders": {
            "up": _only(samples["decoders_up"]),
            "jobs": _named(samples["decoder_jobs_total"]),
            "quarantines": _only(samples["quarantines_total"]),
            "sandbox": _named(samples["decoder_sandbox"]),
        },
        "store": {
            "gets": _only(samples["source_gets_total"]),
            "bytes": _only(samples["source_bytes_total"]),
            "errors": _named(samples["source_errors_total"]),
            "latency": _histogram(samples["source_seconds_bucket"]),
        },
        "volume": {
            "bytes": _only(samples["volume_bytes"]),
            "blocks": _named(samples["volume_blocks_total"]),
            "evictions": _only(samples["volume_evictions_total"]),
            "faults": _named(samples["volume_faults_total"]),
        },
        "loop_lag_s": _only(samples["loop_lag_seconds"]),
        "tasks": _only(samples["tasks"]),
    }


def _only(values: dict[tuple[str, ...], float]) -> float:
    return values.get((), 0.0)


def _named(values: dict[tuple[str, ...], float]) -> dict[str, float]:
    return {name: value for (name,), value in sorted(values.items())}


def _histogram(values: dict[tuple[str, ...], float], *labels: str) -> list[list[float | None]]:
    """How many were in each bucket by itself; the last one has no upper bound."""
    bounds = sorted((float(key[-1]), count) for key, count in values.items() if key[:-1] == labels)
    before, found = 0.0, list[list[float | None]]()
    for bound, upto in bounds:
        found.append([None if bound == float("inf") else bound, upto - before])
        before = upto
    return found
