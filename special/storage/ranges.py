"""From many small spans to few requests: `coalesce` plans, `read_spans` reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from special.storage.blob import Blob, Chunk, Span
from special.storage.source import Reader


def coalesce(spans: Iterable[Span], *, max_gap_bytes: int, max_waste_bytes: int | None = None) -> list[Span]:
    """Few spans that cover all of `spans`, sorted and apart from each other.

    A gap is worth bridging while its bytes cost less than one more request beside others: that is
    `max_gap_bytes`. The narrowest gaps are bridged first, and together never more than `max_waste_bytes`.
    """
    runs: list[Span] = []
    for span in sorted(spans):
        if runs and span.start <= runs[-1].stop:
            runs[-1] = Span(runs[-1].start, max(runs[-1].stop, span.stop))
        else:
            runs.append(span)
    gaps = sorted((after.start - before.stop, index) for index, (before, after) in enumerate(pairwise(runs)))
    bridged: set[int] = set()
    left = max_waste_bytes
    for gap, index in gaps:
        if gap > max_gap_bytes or (left is not None and gap > left):
            break
        bridged.add(index)
        left = None if left is None else left - gap
    merged: list[Span] = []
    for index, run in enumerate(runs):
        if index - 1 in bridged:
            merged[-1] = Span(merged[-1].start, run.stop)
        else:
            merged.append(run)
    return merged


def runs_of(spans: Sequence[Span], *, max_gap_bytes: int) -> list[Span]:
    """The GETs that a plan's spans are read by: at most 5 % and 32 KiB more than what is wanted."""
    wanted = sum(len(span) for span in spans)
    return coalesce(spans, max_gap_bytes=max_gap_bytes, max_waste_bytes=wanted // 20 + 32768)


async def read_spans(
    reader: Reader,
    blob: Blob,
    spans: Sequence[Span],
    *,
    max_gap_bytes: int,
    seen: Sequence[Chunk] = (),
) -> list[bytes]:
    """The bytes of each span, in order, by one batch of parallel GETs of `runs_of` them.

    What is in `seen` already is not read again. Copies each span once out of the run that it came in.
    """
    runs = runs_of(_unseen(spans, [span for span, _ in seen]), max_gap_bytes=max_gap_bytes)
    bodies = await reader.read(blob, runs) if runs else []
    if runs == list(spans):
        return bodies
    chunks = sorted([*seen, *zip(runs, bodies, strict=True)], key=lambda chunk: chunk[0])
    return [_joined(span, chunks) for span in spans]


def _unseen(spans: Sequence[Span], seen: Sequence[Span]) -> list[Span]:
    """The parts of spans that are in none of those seen."""
    missing: list[Span] = list(spans)
    for known in seen:
        rest: list[Span] = []
        for span in missing:
            if span.start < known.stop and known.start < span.stop:
                rest += [Span(span.start, known.start)] if span.start < known.start else []
                rest += [Span(known.stop, span.stop)] if known.stop < span.stop else []
            else:
                rest.append(span)
        missing = rest
    return missing


def _joined(span: Span, chunks: Sequence[tuple[Span, bytes]]) -> bytes:
    """The bytes of one span, out of sorted chunks that cover it together."""
    have, data = chunks[bisect_right(chunks, span.start, key=lambda chunk: chunk[0].start) - 1]
    if have.covers(span):
        return data[span.start - have.start : span.stop - have.start]
    parts: list[bytes] = []
    at = span.start
    # Chunks may overlap: of those that begin early enough, any that reaches on will do.
    for have, data in chunks:
        if have.start <= at < have.stop:
            parts.append(data[at - have.start : span.stop - have.start])
            at = min(have.stop, span.stop)
            if at == span.stop:
                break
    return b"".join(parts)
