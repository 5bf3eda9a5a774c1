"""A coverage-guided fuzzer on what reads masters that are no JPEG 2000: TIFF, JPEG, PNG, WebP, GIF.

    pip install atheris
    python -m tests.soak.fuzz_tiff [CORPUS_DIR] [-max_total_time=60] [other options of libFuzzer]

Every input must give a layout that keeps its promises, or a typed error, out of few bytes and few questions.
"""

from __future__ import annotations

import contextlib
import sys
from itertools import pairwise
from typing import TypeVar

from special import formats
from special.errors import Malformed, MasterError
from special.formats.layout import Layout
from special.formats.parser import Parser
from special.geometry import Box, Size
from special.storage.blob import Span

MAX_QUESTIONS = 1100
"""Batches of spans that one parser may ask for: a little more than the 1,000 segments of a JPEG."""
MAX_ASKED_BYTES = 32 << 20
"""Bytes that one parser may ask for."""
T = TypeVar("T")


def answered(parser: Parser[T], data: bytes) -> T:
    """What a parser returns, its questions counted and answered. Raises what it raises."""
    asked_bytes = 0
    try:
        wanted = next(parser)
        for _ in range(MAX_QUESTIONS):
            asked_bytes += sum(len(span) for span in wanted)
            assert asked_bytes <= MAX_ASKED_BYTES, f"{asked_bytes} bytes asked for"
            if any(span.stop > len(data) for span in wanted):
                raise Malformed("past the end")
            wanted = parser.send([data[span.start : span.stop] for span in wanted])
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError(f"more than {MAX_QUESTIONS} questions")


def exercise(data: bytes) -> Layout | None:
    """Read a file's headers, plan and rebuild some of it: the layout, or None where a typed error says why not."""
    try:
        layout = answered(formats.parse(len(data)), data)
    except MasterError:
        return None
    assert formats.load(layout.dump()) == layout
    size = layout.size
    halves = Box.whole(size), Box(size.width // 2, size.height // 2, 1, 1), Box(0, 0, 1 + size.width // 2, size.height)
    for box in halves:
        for shrunk in (box.size, Size(max(1, box.width // 3), max(1, box.height // 3))):
            with contextlib.suppress(MasterError):
                _plan(layout, data, box, shrunk)
    return layout


def _plan(layout: Layout, data: bytes, box: Box, size: Size) -> None:
    more = layout.prepare(box, size)
    if more is not None:
        layout = answered(more, data)
    layout.stored(box, size)
    extract = layout.extract(box, size)
    _check(extract.spans, len(data))
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    assert piece.crop.width >= 1
    assert piece.crop.height >= 1
    assert len(piece.data) <= len(data) + (32 << 20)


def _check(spans: tuple[Span, ...], size_bytes: int) -> None:
    for before, after in pairwise(spans):
        assert before.stop <= after.start, "spans overlap"
    assert not spans or spans[-1].stop <= size_bytes, "a span past the end of the file"


def main() -> None:
    """Run libFuzzer on `exercise`."""
    try:
        import atheris
    except ImportError:
        sys.exit("the fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, exercise)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
