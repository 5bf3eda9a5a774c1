"""What every source keeps alike: cut spans and counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from special import observe
from special.errors import SourceError
from special.spans import Blob, Span


def cut(span: Span | None, blob: Blob) -> Span | None:
    """The part of a span that a blob has; None for an empty blob. Raises `ValueError` if it starts past the end."""
    if span is not None and span.start >= max(blob.size, 1):
        raise ValueError(f"{blob.url} ends at {blob.size}, before byte {span.start}")
    if not blob.size:
        return None
    return Span(span.start, min(span.stop, blob.size)) if span else Span.whole(blob)


def require(span: Span, blob: Blob) -> None:
    """Raise `ValueError` for a span that the blob does not have."""
    if span.stop > blob.size:
        raise ValueError(f"{blob.url} ends at {blob.size}, before byte {span.stop}")


def count_get(size_bytes: int) -> None:
    """One GET of that many bytes was sent for the request at hand."""
    observe.trace().count_get(size_bytes)
    observe.SOURCE_GETS.inc()
    observe.SOURCE_BYTES.inc(size_bytes)


@contextmanager
def counting_errors() -> Iterator[None]:
    """Every `SourceError` that leaves is counted by its kind."""
    try:
        yield
    except SourceError as error:
        observe.SOURCE_ERRORS.labels(kind=error.code).inc()
        raise
