"""What happens to every finished image request: it is counted, logged, traced, and ranked if it was slow."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from special.errors import SpecialError, TooExpensive
from special.observability import OtelExporter, Slowest, Trace, logs, metrics

LONGEST_HEADER: Final = 200
"""Maximum number of characters that are logged of a header."""


@dataclass(slots=True)  # not frozen: that costs a microsecond more, at every request
class FinishedRequest:
    """One request that was answered, or was not."""

    method: str
    path: str
    """Still percent-encoded, without the query, where clients put tokens."""
    headers: list[tuple[bytes, bytes]]
    trace: Trace
    start_s: float
    """When it arrived, by the monotonic clock."""
    seconds: float
    """From its arrival to the last byte."""
    status: int
    outcome: str
    """`ok`, or the code of what went wrong."""
    failure: BaseException | None


Observer = Callable[[FinishedRequest], None]


def count(request: FinishedRequest) -> None:
    """Count it in the metrics."""
    metrics.answered(request.trace.route, request.status, request.seconds)


def export_to(exporter: OtelExporter) -> Observer:
    """Send it as spans of OpenTelemetry."""

    def observe(request: FinishedRequest) -> None:
        exporter.export(
            request.trace,
            request.headers,
            request.method,
            request.path,
            request.status,
            request.outcome,
            request.start_s,
        )

    return observe


def rank_in(slowest: Slowest) -> Observer:
    """Rank it among the slowest."""

    def observe(request: FinishedRequest) -> None:
        slowest.add(request.path, request.trace.route, request.status, request.seconds)

    return observe


def log(request: FinishedRequest) -> None:
    """Write one line of the log, if it failed or all are wanted. No query is written, and few headers."""
    failure, trace = request.failure, request.trace
    if failure is None and not logs.wanted():
        return
    headers = dict(request.headers)
    fields: dict[str, Any] = {"method": request.method, "path": request.path[: logs.LONGEST]}
    fields |= {"status": request.status, "outcome": request.outcome, "route": trace.route}
    fields |= {"ms": round(request.seconds * 1000, 1), "gets": trace.gets, "bytes": trace.bytes}
    fields |= {"source_ms": round(trace.source_ms, 1), "queue_ms": round(trace.queue_ms, 1)}
    fields |= {"decode_ms": round(trace.decode_ms, 1), "encode_ms": round(trace.encode_ms, 1)}
    fields |= {"sent_bytes": trace.sent_bytes, "client": trace.client, "agent": _text(headers, b"user-agent")}
    fields |= {"request_id": _request_id(headers), "process": os.getpid()}
    level = logging.INFO
    if failure is not None:
        # Too expensive is for these settings: without them the image could be shown.
        if request.outcome == "cut-off" or request.status >= 500 or isinstance(failure, TooExpensive):
            level = logging.WARNING
        fields["error"] = logs.clean(str(failure))
    known = failure is None or isinstance(failure, SpecialError)
    logs.request(level if known else logging.ERROR, fields, failure=None if known else failure)


def _request_id(headers: dict[bytes, bytes]) -> str:
    """By what other programs call the request: its trace (W3C Trace Context, section 3.2), else X-Request-Id."""
    parts = _text(headers, b"traceparent").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else _text(headers, b"x-request-id")


def _text(headers: dict[bytes, bytes], name: bytes) -> str:
    return logs.clean(headers.get(name, b"")[:LONGEST_HEADER].decode("latin-1"))
