"""Asks several kinds of catalogue for an image, one after the other, and remembers what they say.

A catalogue that fails is an error of the request. It is never taken for one that knows nothing: another kind, or
another rule, might then open what the failing one restricts. What is remembered is not believed any longer while a
catalogue is silent, for the same reason.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from special.catalogue.entry import Entry
from special.catalogue.kind import Kind
from special.concurrency import TTLCache
from special.errors import CatalogueError, ConfigurationError, Missing, Outside
from special.iiif import IdentifierForm
from special.storage import Sources

log = logging.getLogger(__name__)

MAX_ENTRIES = 100_000
"""Maximum number of images that are remembered, of some KB each; of unknown ones the cache bounds by itself."""
MISSING_TTL_S = 10.0
"""Longest time for which an unknown image is remembered as such: it may have been added since."""


class Catalogue:
    """From an identifier to an `Entry`. One look-up serves all requests that wait for it.

    Kinds know images; `{id};3` is page 3 of what they say of `{id}`.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        sources: Sources,
        *,
        ttl_s: float,
        form: IdentifierForm = IdentifierForm.NORMAL,
    ) -> None:
        """`ttl_s`: how long an entry is believed before its kind is asked again."""
        self._kinds = tuple(kinds)
        self._form = form
        self.sources = sources
        self._known: TTLCache[str, Entry] = TTLCache(
            self._look_up, ttl_s=ttl_s, missing_ttl_s=min(ttl_s, MISSING_TTL_S), capacity=MAX_ENTRIES
        )

    async def locate(self, identifier: str) -> Entry:
        """What the first kind that knows an image says of it; its places are URLs below the sources.

        Costs nothing while it is believed. Raises `Missing`, also for a page of an image that is a page itself;
        `Outside` where it is in no source; `CatalogueError`, `HookError`, `SourceError`.
        """
        image, page = self._form.split(identifier)
        entry = await self._known.get(image)
        if page > 1 and entry.page is not None:
            raise Missing(f"{entry.origin} has '{image}' as page {entry.page} of a master, which has no pages")
        if not entry.places:
            raise Outside(f"{entry.origin} has '{identifier}' in no source")
        return entry

    def peek(self, identifier: str) -> Entry | None:
        """The same, if it is believed: nothing is waited for."""
        return self._known.peek(self._form.split(identifier)[0])

    async def places(self, identifier: str) -> tuple[str, ...]:
        """The URLs that an image's master may have, in the order in which they are tried. Raises as `locate` does."""
        return (await self.locate(identifier)).places

    async def page_of(self, identifier: str) -> int:
        """Which page of its master an image is. Raises as `locate` does."""
        return (await self.locate(identifier)).page or self._form.split(identifier)[1]

    def root_of(self, key: str) -> str:
        """The root of the source that has a URL; of a mere key, that of the default source."""
        return self.sources.root_of(key) if "://" in key else self.sources.members[0].root

    def names(self, entry: Entry) -> tuple[str, ...]:
        """What rules may call an image beside its identifier: its master's URLs, and its keys below their sources."""
        keys = (place[len(self.sources.root_of(place)) :] for place in entry.places)
        return *keys, *entry.places

    async def identifiers(self) -> AsyncIterator[str]:
        """All identifiers of those kinds that can list them, each kind's in its own order. Raises `CatalogueError`."""
        listings = [it for kind in self._kinds if (it := kind.identifiers()) is not None]
        if not listings:
            raise CatalogueError(f"{', '.join(it.name for it in self._kinds)} cannot list images: name them")
        for listing in listings:
            async for image in listing:
                yield self._form.join(image)

    @property
    def lists_images(self) -> bool:
        """Whether any kind can list the images that it knows."""
        return any(it.identifiers() is not None for it in self._kinds)

    async def page(self, after: str, count: int) -> list[str]:
        """Up to `count` identifiers of the first kind that can list them, from the one that follows `after`."""
        last, _ = self._form.split(after)
        listing = next((it for kind in self._kinds if (it := kind.identifiers(last)) is not None), None)
        found: list[str] = []
        if listing is not None:
            async for image in listing:
                found.append(self._form.join(image))
                if len(found) == count:
                    break
        return found

    async def identifiers_of(self, url: str) -> tuple[str, ...]:
        """The identifiers of images whose master is at a URL, as far as the kinds can tell.

        Raises `ConfigurationError` where none of them can; `CatalogueError`.
        """
        places = self.sources.spellings(url)
        told = [found for kind in self._kinds for it in places if (found := await kind.identifiers_of(it)) is not None]
        if not told:
            names = ", ".join(it.name for it in self._kinds)
            raise ConfigurationError(f"{names} cannot tell which images the object {url} is the master of: name them")
        return tuple(dict.fromkeys(self._form.join(image) for found in told for image in found))

    def forget(self, identifier: str) -> None:
        """Ask for an image again when it is next needed."""
        self._known.forget(self._form.split(identifier)[0])

    async def close(self) -> None:
        await self._known.close()
        for kind in self._kinds:
            await kind.close()

    async def _look_up(self, identifier: str, previous: Entry | None) -> Entry:
        for kind in self._kinds:
            last = previous if previous is not None and previous.origin == kind.name else None
            found = await kind.locate(identifier, last)
            if found is None:
                continue
            if found is last:
                return found
            entry = replace(found, places=self._resolved(identifier, found, kind), origin=kind.name)
            return previous if previous is not None and entry == previous else entry
        raise Missing(f"no image '{identifier}' is in the catalogue: {', '.join(it.name for it in self._kinds)}")

    def _resolved(self, identifier: str, entry: Entry, kind: Kind) -> tuple[str, ...]:
        """The URLs of an entry's places, but for those outside the sources."""
        urls = []
        for place in entry.places:
            try:
                urls.append(self.sources.resolve(place))
            except Outside as error:
                log.warning("%s: '%s' is refused: %s", kind.name, identifier, error)
        return tuple(urls)
