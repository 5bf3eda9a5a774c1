"""Doubles that record: what was asked of a source, in what order, for which bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from special.storage.blob import Absent, Blob, Span, Suffix, Unless
from special.storage.source import Opened, Source


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached a source."""

    verb: str
    """`stat`, `open`, `read`, `write`, `delete` or `list`."""
    key: str
    """The key, or for `list` the prefix."""
    spans: tuple[Span | Suffix, ...] = ()
    """Of a `read` its spans; of an `open` the span asked for, none for a whole object."""


class CountingSource:
    """A source that passes everything on to another one and writes down what it was asked."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.calls: list[Call] = []
        """Every call, in order, failed ones included."""

    @property
    def root(self) -> str:
        return self.source.root

    def of(self, verb: str, key: str | None = None) -> list[Call]:
        """The calls of one verb, and of one key if it is given."""
        return [call for call in self.calls if call.verb == verb and key in (None, call.key)]

    def gets(self, key: str | None = None) -> int:
        """GET requests: one for each span of a `read`, one for each `open`."""
        return len(self.of("open", key)) + sum(len(call.spans) for call in self.of("read", key))

    def spans(self, key: str | None = None) -> list[Span]:
        """Every span read by `read`, in order of the asking."""
        return [span for call in self.of("read", key) for span in call.spans if isinstance(span, Span)]

    def clear(self) -> None:
        """Forget the calls so far."""
        self.calls.clear()

    async def stat(self, key: str) -> Blob:
        self.calls.append(Call("stat", key))
        return await self.source.stat(key)

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        self.calls.append(Call("read", blob.key, tuple(spans)))
        return await self.source.read(blob, spans)

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        self.calls.append(Call("open", key, (span,) if span else ()))
        return await self.source.open(key, span=span, pin=pin, unless=unless)

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        self.calls.append(Call("write", key))
        return await self.source.write(key, data, media=media, pin=pin)

    async def signed_url(self, key: str) -> str | None:
        return await self.source.signed_url(key)

    async def delete(self, key: str) -> None:
        self.calls.append(Call("delete", key))
        await self.source.delete(key)

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        self.calls.append(Call("list", prefix))
        return self.source.list(prefix, after=after)

    async def close(self) -> None:
        await self.source.close()
