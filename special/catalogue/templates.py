"""The kind `templates`: keys that are made of the identifier, below any of the sources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from special.catalogue.entry import Entry
from special.errors import Missing, Outside
from special.images import KeyTemplates
from special.storage import Sources


class TemplateKind:
    """Knows what key templates name. The last kind is not asked whether there is an object: its reader will see."""

    def __init__(self, templates: KeyTemplates, sources: Sources, *, is_last: bool) -> None:
        self._templates = templates
        self._sources = sources
        self._is_last = is_last

    @property
    def name(self) -> str:
        return f"templates {self._templates}"

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        """One HEAD for each place until one exists, where another kind comes after this one; else none."""
        places = self._places(identifier)
        if not self._is_last:
            place = await self._existing(places)
            places = [place] if place is not None else []
        return Entry(tuple(places)) if places else None

    def identifiers(self, after: str = "") -> AsyncIterator[str]:
        return self._listed(after)

    async def identifiers_of(self, place: str) -> Sequence[str]:
        try:
            key = place[len(self._sources.root_of(place)) :]
        except Outside:
            return ()
        found = (self._templates.identifier_of(it) for it in (key, place))
        return tuple(dict.fromkeys(self._templates.form.split(it)[0] for it in found if it is not None))

    async def close(self) -> None:
        """Nothing is open: the sources are closed by those who read masters."""

    def _places(self, identifier: str) -> list[str]:
        return [
            place
            for key in self._templates.keys_of(identifier)
            for place in ([key] if "://" in key else self._sources.places_of(key))
        ]

    async def _existing(self, places: Sequence[str]) -> str | None:
        """The first place that has an object."""
        for place in places:
            try:
                await self._sources.stat(self._sources.resolve(place))
            except (Missing, Outside):
                continue
            return place
        return None

    async def _listed(self, after: str) -> AsyncIterator[str]:
        last = await self._existing(self._places(after)) if after else None
        async for blob in self._sources.list(after=self._sources.resolve(last) if last else ""):
            for identifier in await self.identifiers_of(blob.url):
                yield identifier
