"""What a parser has read of an object so far, and how it asks for more.

Headers are close together, so every read takes more than was asked for; a parser that goes
from marker to marker then costs one round trip for many markers, and it can count its round trips.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from special.errors import Malformed
from special.storage import Span

T = TypeVar("T")
Reading = Generator[list[Span], list[bytes], T]
"""A step of a parser: yields spans, is sent their bytes."""

FIRST_BYTES = 65536
"""The first read: on most masters it holds every header and the lowest resolutions."""
CHUNK_BYTES = 16384
"""The least that a later read takes."""


class CodestreamReader:
    """The bytes of one object that were read, and the number of round trips they took."""

    def __init__(self, size_bytes: int, *, trips: int = 0) -> None:
        self.size_bytes = size_bytes
        self.trips = trips
        self._chunks: list[tuple[int, bytes]] = []

    @classmethod
    def of(cls, data: bytes) -> CodestreamReader:
        """The reader of an object that is in memory as a whole: nothing is asked for."""
        reader = cls(len(data))
        reader._chunks.append((0, data))
        return reader

    def holds(self, start: int, length: int) -> bool:
        """Whether these bytes are here already."""
        return self._find(start, length) is not None

    def take(self, start: int, length: int, *, readahead_bytes: int = CHUNK_BYTES) -> Reading[bytes]:
        """`length` bytes from `start`; at most one round trip, none if they are here already.

        Raises `Malformed` where the object ends before them.
        """
        found = self._find(start, length)
        if found is None:
            yield from self.fetch([(start, max(length, readahead_bytes))], least_bytes=length)
            found = self._find(start, length)
            assert found is not None, "what was fetched covers what was asked for"
        return found

    def fetch(self, wanted: list[tuple[int, int]], *, least_bytes: int = 0) -> Reading[None]:
        """Read several (start, length) at once: one round trip. Lengths are cut at the object's end."""
        spans: list[Span] = []
        for start, length in wanted:
            if start < 0 or start + least_bytes > self.size_bytes or start >= self.size_bytes:
                raise Malformed(
                    f"the file ends at byte {self.size_bytes}, before byte {start + least_bytes} that it names"
                )
            spans.append(Span(start, min(self.size_bytes, start + max(length, least_bytes))))
        if not self.trips and spans[0].start == 0:
            spans[0] = Span(0, min(self.size_bytes, max(spans[0].stop, FIRST_BYTES)))
        self.trips += 1
        bodies = yield spans
        self._chunks += [(span.start, body) for span, body in zip(spans, bodies, strict=True)]

    def _find(self, start: int, length: int) -> bytes | None:
        for offset, chunk in reversed(self._chunks):
            if offset <= start and start + length <= offset + len(chunk):
                return chunk[start - offset : start - offset + length]
        return None
