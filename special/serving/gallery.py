"""The gallery's pages of identifiers: listings that cost image requests nothing.

A listing of a large folder looks at all of its entries. Equal pages are therefore looked up once for all clients and
remembered for a few seconds, a page looks at a bounded number of entries, and only a few are looked up at a time.
"""

from __future__ import annotations

from special.catalogue import Catalogue
from special.concurrency import TTLCache
from special.errors import Busy
from special.storage import Folder, Source

MAX_ENTRIES = 100_000
"""Maximum number of entries of folders that are looked at for one page; the gallery does not show those beyond."""
MAX_RUNNING = 8
"""Maximum number of pages that are looked up at a time, those that wait for the folder's one thread included."""
MAX_PAGES = 1000
TTL_S = 5.0

Page = tuple[str, ...]


class Gallery:
    """Identifiers of a source, in its own order, a page at a time."""

    def __init__(self, source: Source, catalogue: Catalogue | None = None) -> None:
        """Where there is a `catalogue`, images are those that it can list."""
        self._source = source
        self._catalogue = catalogue
        self._running = 0
        self._pages: TTLCache[tuple[str, int], Page] = TTLCache(self._look_up, ttl_s=TTL_S, capacity=MAX_PAGES)

    async def page(self, *, after: str, count: int) -> Page:
        """Up to `count` identifiers after one. Raises `Busy` where too many pages are being looked up."""
        return await self._pages.get((after, count))

    async def close(self) -> None:
        await self._pages.close()

    async def _look_up(self, page: tuple[str, int], _: Page | None) -> Page:
        if self._running >= MAX_RUNNING:
            raise Busy(f"{self._running} pages of the gallery are being looked up")
        self._running += 1
        try:
            return await self._listed(*page)
        finally:
            self._running -= 1

    async def _listed(self, after: str, count: int) -> Page:
        if self._catalogue is not None:
            return tuple(await self._catalogue.page(after, count))
        if isinstance(self._source, Folder):
            return tuple(await self._source.first_keys(count, after=after, max_entries=MAX_ENTRIES))
        found: list[str] = []
        async for blob in self._source.list("", after=after):
            found.append(blob.key)
            if len(found) == count:
                break
        return tuple(found)
