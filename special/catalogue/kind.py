"""The contract of a kind of catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from special.catalogue.entry import Entry


class Kind(Protocol):
    """One place that knows images. Several are asked one after the other."""

    @property
    def name(self) -> str:
        """What it is called in messages and by `special catalogue check`."""
        ...

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        """What it knows of an image; None for one that it does not know.

        `previous` is what it said last time, to be returned again where that is still so. Raises `CatalogueError`
        where it cannot tell, which is never taken for not knowing; `HookError` and `SourceError`.
        """
        ...

    def identifiers(self, after: str = "") -> AsyncIterator[str] | None:
        """All identifiers that it knows, or those that follow one, streamed; None for one that cannot list them."""
        ...

    async def identifiers_of(self, place: str) -> Sequence[str] | None:
        """The identifiers of images whose master it says is at a place; None for one that cannot tell."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...
