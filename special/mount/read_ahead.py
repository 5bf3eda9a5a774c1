"""What of an open file will be read next: what follows a run of reads, nothing after reads here and there. Pure."""

from __future__ import annotations

from special.storage import Span

FIRST_BYTES = 256 << 10
"""How much of a run has been read before it counts as one, and how far ahead it is foreseen then."""
MOST_BYTES = 8 << 20
"""How far ahead a long run is foreseen: it doubles with each step, up to here."""
NEAR_BYTES = 256 << 10
"""The kernel sends the reads of one run at once, in any order: so far apart they are still of one run."""
PIECE_BYTES = 1 << 20
"""What is fetched ahead by one GET: a reader waits for one such piece, and several come at once."""


class ReadAhead:
    """The pattern of one open file's reads."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._read_bytes = self._stop = self._ahead = 0
        self._window = 0

    def record(self, span: Span) -> list[Span]:
        """A program reads a span: the pieces that should be fetched for what it will read next."""
        if abs(span.start - self._stop) > NEAR_BYTES:
            self._read_bytes, self._stop, self._ahead, self._window = 0, 0, 0, 0
        self._read_bytes += len(span)
        self._stop = max(self._stop, span.stop)
        self._ahead = max(self._ahead, self._stop)
        if self._read_bytes < FIRST_BYTES or self._ahead - self._stop > self._window // 2:
            return []
        self._window = min(2 * self._window or FIRST_BYTES, MOST_BYTES)
        start, stop = self._ahead, min(self._stop + self._window, self._size_bytes)
        self._ahead = max(start, stop)
        return [Span(at, min(at + PIECE_BYTES, stop)) for at in range(start, stop, PIECE_BYTES)]
