"""What every place that holds objects offers: the `Reader` and `Source` protocols."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from special.storage.blob import Absent, Blob, Span, Suffix, Unless


@dataclass(frozen=True, slots=True)
class Opened:
    """An object whose body is on its way, or has come."""

    blob: Blob
    """The version that is being sent."""
    span: Span | None
    """Which bytes are being sent; None for an empty object."""
    body: bytes | AsyncGenerator[bytes, None]
    """All of it, or its chunks as they come: exhaust or `aclose()` them."""


class Reader(Protocol):
    """Reads spans of a blob: a source, or a volume in front of one."""

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
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        """Start reading the current (or the pinned) version of an object: one GET.

        A `span` that ends past the object is cut to it; one that starts past it raises `ValueError`. A `Suffix` raises
        `Uncounted` where the store counts no bytes from the end: nothing is asked then.
        Raises `NotModified` where `unless` holds, `Changed` where the pin does not, `Missing`, `Denied`, `Unreachable`.
        """
        ...

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        """Store an object whole; readers see the old one or the new one, never a part.

        With `pin`, only if the stored object is still that version, or still not there; else raises `Changed`.
        """
        ...

    async def signed_url(self, key: str) -> str | None:
        """A signed URL by which anyone may GET the object for a few minutes; None where the store has none.

        Nothing is asked of the store: whether the object is there shows when it is used.
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
        """Close connections. Nothing may be read afterwards."""
        ...


class Tree(Source, Protocol):
    """A source that also tells what is directly below a prefix, as a file system does."""

    def children(self, prefix: str = "", *, first_only: bool = False) -> AsyncGenerator[Blob | str, None]:
        """Objects and folders directly below a prefix that is empty or ends with a slash, in the order of their keys.

        A folder is its whole prefix, with its slash. A page at a time; `first_only`: one at the most, for which a
        store that can is asked for no more. Raises `Denied`, `Unreachable`, or another `SourceError` where a store
        cannot list.
        """
        ...


async def body(opened: Opened) -> bytes:
    """All of an opened object's bytes, in memory."""
    if isinstance(opened.body, bytes):
        return opened.body
    async with aclosing(opened.body) as chunks:
        return b"".join([chunk async for chunk in chunks])
