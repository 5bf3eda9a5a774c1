"""The gallery's pages: the folders and images right below a folder, by listings that cost image requests nothing.

A listing of a large folder looks at all of its entries. Equal pages are therefore looked up once for all clients and
remembered for a few seconds, a page looks at a bounded number of entries, only a few are looked up at a time, and
clients take turns.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from special.catalogue import Catalogue
from special.concurrency import Pace, TTLCache
from special.errors import Busy, Missing
from special.images import KeyTemplates
from special.storage import Blob, Folder, Source

MAX_ENTRIES = 100_000
"""Maximum number of entries that are looked at for one page; those of a local folder beyond it are not shown."""
MAX_RUNNING = 8
"""Maximum number of pages that are looked up at a time, those that wait for the folder's one thread included."""
MAX_PAGES = 1000
TTL_S = 5.0
TURNS_PER_S = 10
"""How many listings a second a client has from each server process; who scrolls a gallery asks for one or two."""
_LAST = "\U0010ffff"
"""Sorts behind all that a folder's keys may have after its slash."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what is right below a folder."""

    folders: tuple[str, ...] = ()
    """Each as a prefix of keys, with its slash, in the source's order."""
    images: tuple[str, ...] = ()
    """Identifiers, in the order of their keys."""
    keys: tuple[str, ...] = ()
    """Their keys."""
    next: str | None = None
    """The entry after which the following page starts; None where this is the last."""


class Gallery:
    """Folders and images of a source, in its own order, a page at a time; what is no image by its name is left out."""

    def __init__(self, source: Source, templates: KeyTemplates, catalogue: Catalogue | None = None) -> None:
        """Where there is a `catalogue`, images are those that it can list, all in one folder."""
        self._source = source
        self._templates = templates
        self._catalogue = catalogue
        self._running = 0
        self._pace = Pace(TURNS_PER_S, burst=2 * TURNS_PER_S, patience_s=5.0)
        self._pages: TTLCache[tuple[str, str, int], Page] = TTLCache(self._look_up, ttl_s=TTL_S, capacity=MAX_PAGES)

    async def turn(self, client: str) -> None:
        """Wait until it is this client's turn to list. Raises `Busy` where it asks far too fast."""
        await self._pace.turn(client)

    async def page(self, *, folder: str = "", after: str = "", count: int) -> Page:
        """Up to `count` folders and images right below a folder, after one of them.

        `folder` is empty or ends in a slash. A folder that is not there is empty. One LIST for each folder on the
        page and for each 1,000 keys. Raises `Busy` where too many pages are being looked up, `SourceError`.
        """
        return await self._pages.get((folder, after, count))

    def is_offered(self, setting: bool | None) -> bool:
        """Whether clients may list it, where it can be: as the setting says; without one only what is on local disk."""
        if self._catalogue is not None and not self._catalogue.lists_images:
            return False
        return isinstance(self._source, Folder) if setting is None else setting

    async def close(self) -> None:
        await self._pages.close()

    async def _look_up(self, page: tuple[str, str, int], _: Page | None) -> Page:
        if self._running >= MAX_RUNNING:
            raise Busy(f"{self._running} pages of the gallery are being looked up")
        self._running += 1
        try:
            folder, after, count = page
            if self._catalogue is not None:
                found = tuple(await self._catalogue.page(after, count)) if not folder else ()
                return Page(images=found, keys=found, next=found[-1] if len(found) == count else None)
            keys, last = await (self._of_folder if isinstance(self._source, Folder) else self._of_bucket)(
                folder, after, count
            )
        finally:
            self._running -= 1
        folders = tuple(key for key in keys if key.endswith("/"))
        images = {key: name for key in keys if (name := self._templates.identifier_of(key)) is not None}
        return Page(folders, tuple(images.values()), tuple(images), last)

    async def _of_folder(self, folder: str, after: str, count: int) -> tuple[list[str], str | None]:
        """Entries of a local folder, and the last of them if there may be more."""
        assert isinstance(self._source, Folder)
        try:
            found = await self._source.first_entries(
                count, folder=folder, after=after, max_entries=MAX_ENTRIES, wanted=self._is_shown
            )
        except Missing:
            return [], None
        return list(found), found[-1] if len(found) == count else None

    async def _of_bucket(self, folder: str, after: str, count: int) -> tuple[list[str], str | None]:
        """The same of a bucket: its keys in order, each folder's skipped as soon as its first is seen."""
        found: list[str] = []
        looked_at = 0
        entry = after
        while True:
            start = entry + _LAST if entry.endswith("/") and entry != folder else entry
            async with aclosing(cast("AsyncGenerator[Blob, None]", self._source.list(folder, after=start))) as listed:
                async for blob in listed:
                    name, slash, _ = blob.key[len(folder) :].partition("/")
                    looked_at += 1
                    if slash and folder + name + slash == entry:
                        continue  # a store that sorts in another way did not skip all of it
                    entry = folder + name + slash
                    if entry != folder and self._is_shown(entry):
                        found.append(entry)
                    if len(found) == count or looked_at == MAX_ENTRIES:
                        return found, entry
                    if slash:
                        break
                else:
                    return found, None

    def _is_shown(self, entry: str) -> bool:
        if entry.endswith("/"):
            return replace(self._templates.form, pages=False).accepts(entry[:-1])
        return self._templates.identifier_of(entry) is not None
