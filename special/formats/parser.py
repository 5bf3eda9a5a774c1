"""Parsers without I/O: generators that yield the spans they want and are sent their bytes."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from special.errors import Malformed
from special.storage import Blob, Chunk, Reader, Span, coalesce

T = TypeVar("T")


Parser = Generator[list[Span], list[bytes], T]
"""A sans-I/O parser: yields the spans it wants next, is sent their bytes in order, returns its result.

It may ask for bytes it has seen; `drive` answers from what was read. A span past the end
of the blob is the parser's mistake, or a wrong offset in the file, and ends in `Malformed`.
"""


async def drive(
    parser: Parser[T],
    reader: Reader,
    blob: Blob,
    *,
    first_bytes: int = 65536,
    chunk_bytes: int = 16384,
    max_gap_bytes: int = 65536,
    seen: list[Chunk] | None = None,
) -> T:
    """Run a parser to its end and give what it returns.

    The first read takes `first_bytes` from the start of the blob, later ones at least
    `chunk_bytes`: headers cluster. Costs one round trip for each yield that asks for bytes not
    seen yet; the GETs within one yield are parallel. `seen` are bytes that the caller already has.
    """
    known = seen if seen is not None else []

    def find(span: Span) -> bytes | None:
        for have, data in reversed(known):
            if have.covers(span):
                return data[span.start - have.start : span.stop - have.start]
        return None

    try:
        wanted = next(parser)
        while True:
            for span in wanted:
                if span.stop > blob.size:
                    message = f"the file ends at byte {blob.size}, before byte {span.stop} that its headers name"
                    parser.close()
                    raise Malformed(message)
            missing = [
                Span(span.start, min(blob.size, max(span.stop, span.start + (chunk_bytes if known else first_bytes))))
                for span in wanted
                if find(span) is None
            ]
            if missing:
                runs = coalesce(missing, max_gap_bytes=max_gap_bytes)
                known.extend(zip(runs, await reader.read(blob, runs), strict=True))
            parts: list[bytes] = []
            for span in wanted:
                data = find(span)
                assert data is not None, "coalesced runs cover every wanted span"
                parts.append(data)
            wanted = parser.send(parts)
    except StopIteration as end:
        result: T = end.value
        return result


def solve(parser: Parser[T], data: bytes) -> T:
    """Run a parser on an object that is in memory already. Raises what `drive` raises; no I/O."""
    try:
        wanted = next(parser)
        while True:
            for span in wanted:
                if span.stop > len(data):
                    parser.close()
                    raise Malformed(f"the file ends at byte {len(data)}, before byte {span.stop} that its headers name")
            wanted = parser.send([data[span.start : span.stop] for span in wanted])
    except StopIteration as end:
        result: T = end.value
        return result
