"""Byte spans of pinned objects: what is read, from where, and in how few requests.

Everything that special reads from a store is a `Span` of a `Blob`: one version of one
object. The parsers of `formats` are generators that yield the spans they want and are sent
their bytes; `drive` runs such a parser against any `Reader`. `coalesce` turns many small
spans into few requests.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

from special.errors import Malformed

_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Blob:
    """One version of one stored object."""

    root: str
    """URL of the source it lives in, ending in a slash: `s3://bucket/prefix/`."""
    key: str
    """The object's key below the root."""
    etag: str
    """The store's entity tag, with its quotes, as RFC 9110 section 8.8.3 writes it."""
    size: int
    """Length in bytes."""
    media: str | None = None
    """The media type that the store names, if it names one. A hint only: content decides."""
    modified: datetime | None = None
    """When the store says it was last written; aware, in UTC."""

    @property
    def url(self) -> str:
        """Root and key: what names this object everywhere, of whatever version."""
        return self.root + self.key


@dataclass(frozen=True, slots=True)
class Absent:
    """What stands in for a pinned version where nothing may be stored yet."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The bytes `start <= offset < stop` of an object. Never empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a span needs 0 <= start < stop, not {self.start}–{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    @classmethod
    def at(cls, start: int, length: int) -> Span:
        """`length` bytes from `start` on."""
        return cls(start, start + length)

    @classmethod
    def whole(cls, blob: Blob) -> Span:
        """All of a blob that is not empty."""
        return cls(0, blob.size)

    def covers(self, other: Span) -> bool:
        """Whether the other lies inside this one."""
        return self.start <= other.start and other.stop <= self.stop


Chunk = tuple[Span, bytes]
"""Bytes that were read, and where they lie in their blob."""


class NotModified(Exception):
    """The object is still the version that the caller has. Carries no body."""

    def __init__(self, etag: str | None = None) -> None:
        super().__init__()
        self.etag = etag
        """The version's tag, where the store told it."""


@dataclass(frozen=True, slots=True)
class Unless:
    """Conditions under which a body is not wanted: they are passed on to the store."""

    etag: str | None = None
    """Value for If-None-Match, a list or `*` included."""
    since: datetime | None = None
    """Value for If-Modified-Since."""

    @property
    def only_etag(self) -> str | None:
        """The one tag that is named: if the condition holds, it is the current version's."""
        tags = _TAG.findall(self.etag or "")
        return tags[0] if len(tags) == 1 else None

    def hold(self, etag: str, modified: datetime | None = None) -> bool:
        """Whether the caller has this version already (RFC 9110 sections 13.1.2 and 13.1.3).

        Tags compare weakly. A time counts only where no tag is given, and in whole seconds, as HTTP dates do.
        """
        if self.etag is not None:
            return self.etag.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(self.etag)
        return self.since is not None and modified is not None and modified.replace(microsecond=0) <= self.since


@dataclass(frozen=True, slots=True)
class Opened:
    """An object whose body is on its way, or has come."""

    blob: Blob
    """The version that is being sent."""
    span: Span | None
    """Which bytes are being sent; None for an empty object."""
    body: bytes | AsyncGenerator[bytes, None]
    """All of it, or its chunks as they come; whoever takes those must exhaust or `aclose()` them."""


class Reader(Protocol):
    """Whatever can give spans of a blob: a source, or a volume in front of one."""

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, in order, all of the version that is pinned.

        One GET each, sent at once; merge them first with `coalesce`. Raises `Changed` if the
        object is another version by now, `Missing`, `Denied`, `Unreachable`. A body of another length
        than its span is never returned.
        """
        ...


@runtime_checkable
class Source(Reader, Protocol):
    """A folder, a bucket, or a prefix of one. Keys are relative to its root."""

    @property
    def root(self) -> str:
        """The URL it was opened with, without credentials, ending in a slash."""
        ...

    async def stat(self, key: str) -> Blob:
        """The current version of an object: one HEAD. Raises `Missing`, `Denied`, `Unreachable`."""
        ...

    async def open(
        self, key: str, *, span: Span | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        """Start reading the current (or the pinned) version of an object: one GET.

        A `span` that ends past the object is cut to it; one that starts past it raises `ValueError`.
        Raises `NotModified` where `unless` holds, `Changed` where the pin does not, `Missing`, `Denied`, `Unreachable`.
        """
        ...

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        """Store an object whole; readers see the old one or the new one, never a part.

        With `pin`, only if the stored object is still that version, or still not there; else raises `Changed`.
        """
        ...

    async def link(self, key: str) -> str | None:
        """An address at which whoever has it may GET the object for a few minutes; None where there are none.

        Nothing is asked of the store: whether the object is there shows when the address is used.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        """Objects whose key starts with `prefix`, in the store's order, a page at a time.

        For the command line and the gallery; nothing that answers an image request calls it.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Nothing may be read afterwards."""
        ...


async def body(opened: Opened) -> bytes:
    """All of an opened object's bytes, in memory."""
    if isinstance(opened.body, bytes):
        return opened.body
    async with aclosing(opened.body) as chunks:
        return b"".join([chunk async for chunk in chunks])


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
    """The GETs that a plan's spans are read by: never 5 % and 32 KiB more than what is wanted."""
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
    """The parts of spans that lie in none of those seen."""
    missing: list[Span] = list(spans)
    for known in seen:
        cut: list[Span] = []
        for span in missing:
            if span.start < known.stop and known.start < span.stop:
                cut += [Span(span.start, known.start)] if span.start < known.start else []
                cut += [Span(known.stop, span.stop)] if known.stop < span.stop else []
            else:
                cut.append(span)
        missing = cut
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


T = TypeVar("T")
Parser = Generator[list[Span], list[bytes], T]
"""A sans-I/O parser: yields the spans it wants next, is sent their bytes in order, returns its result.

It may ask for bytes it has seen; `drive` answers from what was read. A span past the end
of the blob is the parser's mistake (or the file's lie) and ends in `Malformed`.
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
                    message = f"{blob.url} ends at {blob.size}, before byte {span.stop} that its headers name"
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
                    raise Malformed(f"the object ends at {len(data)}, before byte {span.stop} that its headers name")
            wanted = parser.send([data[span.start : span.stop] for span in wanted])
    except StopIteration as end:
        result: T = end.value
        return result
