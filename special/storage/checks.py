"""What every source does alike: clip spans, count requests and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from special.errors import SourceError
from special.observability import metrics, trace
from special.storage.blob import Blob, Span, Suffix


def clip(span: Span | Suffix | None, size_bytes: int) -> tuple[int, int]:
    """Where the part of a span starts and stops that an object of that size has; None means all of it.

    Raises `ValueError` if the span starts past the end. An empty object's part is empty.
    """
    if isinstance(span, Suffix):
        return max(0, size_bytes - span.size_bytes), size_bytes
    if span is None or not size_bytes + span.start:
        return 0, size_bytes
    if span.start >= size_bytes:
        raise ValueError(f"the object ends at {size_bytes}, before byte {span.start}")
    return span.start, min(span.stop, size_bytes)


def require(span: Span, blob: Blob) -> None:
    """Raise `ValueError` for a span that the blob does not have."""
    if span.stop > blob.size:
        raise ValueError(f"{blob.url} ends at {blob.size}, before byte {span.stop}")


def count_get(size_bytes: int) -> None:
    """One GET of that many bytes was sent, for the current request if there is one."""
    trace().count_get(size_bytes)
    metrics.SOURCE_GETS.inc()
    metrics.SOURCE_BYTES.inc(size_bytes)


@contextmanager
def counting_errors() -> Iterator[None]:
    """Every `SourceError` that leaves is counted by its kind."""
    try:
        yield
    except SourceError as error:
        metrics.SOURCE_ERRORS.labels(kind=error.code).inc()
        raise
