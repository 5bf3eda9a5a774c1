"""What of a file will be read next: what follows a run of reads, and what is around reads here and there. Pure."""

from __future__ import annotations

from special.storage import Span

FIRST_BYTES = 256 << 10
"""How much of a run has been read before it counts as one, and how far ahead it is foreseen then."""
MOST_BYTES = 8 << 20
"""How far ahead a long run is foreseen: it doubles with each step, up to here."""
RUN_GAP_BYTES = 256 << 10
"""The kernel sends the reads of one run at once, in any order: so far apart they are still of one run."""
PIECE_BYTES = 1 << 20
"""What is fetched ahead by one GET: a reader waits for one such piece, and several come at once."""


NEAR_BYTES = 128 << 10
"""What is fetched from a place that is not here: tiles that lie beside each other are read one after the other."""
AROUND_BYTES = 2 << 20
"""What is fetched around the second such place: some rows of tiles of a large picture, which are read in turn, too."""
SPREAD_STEPS = 1
"""How often that width doubles: to 4 MiB."""
STEP_MISSES = 2
"""Places that were not here until it doubles."""


class Spread:
    """Reads here and there in one version of a file, by whichever program.

    The more places were asked for that were not here, the more is fetched around the next one: of an image that one
    viewer looks at, a little; of one that many look at, soon all, for few requests.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._misses = 0

    def record_miss(self, span: Span) -> tuple[Span, list[Span]]:
        """A span is not here: what to fetch in its place, and the pieces around it that no program waits for."""
        before, self._misses = self._misses, self._misses + 1
        near = Span(span.start, max(span.stop, min(span.start + NEAR_BYTES, self._size_bytes)))
        if not before:
            return near, []
        width = AROUND_BYTES << min((before - 1) // STEP_MISSES, SPREAD_STEPS)
        start = span.start // width * width
        return near, _pieces(start, min(start + width, self._size_bytes))


class ReadAhead:
    """The pattern of one open file's reads."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._read_bytes = self._stop = self._ahead = 0
        self._window = 0

    def record(self, span: Span) -> list[Span]:
        """A program reads a span: the pieces that should be fetched for what it will read next."""
        if abs(span.start - self._stop) > RUN_GAP_BYTES:
            self._read_bytes, self._stop, self._ahead, self._window = 0, 0, 0, 0
        self._read_bytes += len(span)
        self._stop = max(self._stop, span.stop)
        self._ahead = max(self._ahead, self._stop)
        if self._read_bytes < FIRST_BYTES or self._ahead - self._stop > self._window // 2:
            return []
        self._window = min(2 * self._window or FIRST_BYTES, MOST_BYTES)
        start, stop = self._ahead, min(self._stop + self._window, self._size_bytes)
        self._ahead = max(start, stop)
        return _pieces(start, stop)


def _pieces(start: int, stop: int) -> list[Span]:
    return [Span(at, min(at + PIECE_BYTES, stop)) for at in range(start, stop, PIECE_BYTES)]
