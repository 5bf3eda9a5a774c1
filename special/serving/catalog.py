"""What is known of images: their masters' headers joined with what is stored of them, and who may see it.

An image is put together once, and is the same object until something that it was made of
changes: a plan that was made with it holds as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from operator import is_
from typing import Any

from special import formats
from special.auth import Rules, RulesInForce
from special.catalogue import Catalogue, Entry
from special.concurrency import LRUCache
from special.errors import NotFound, SpecialError
from special.formats import Layout, Tiling
from special.iiif import IdentifierForm, fold_identifier
from special.images import Asset, KeyTemplates, Master, Masters, Rule, stricter
from special.renditions import RenditionStore, StoredRenditions
from special.storage import Blob

MAX_IMAGES = 10_000
"""Maximum number of images that are stored in memory, and as many of which only renditions are known."""


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an image is made of."""

    rules: Rules
    stored: StoredRenditions | None
    related: tuple[StoredRenditions | None, ...]
    """What is stored under the identifiers that restrict it as well, see `_related`."""
    master: Master | None = None
    entry: Entry | None = None
    """What the catalogue says of it; None without a catalogue."""

    def is_same(self, other: _Basis) -> bool:
        return (
            self.rules is other.rules
            and self.stored is other.stored
            and len(self.related) == len(other.related)
            and all(map(is_, self.related, other.related))
            and self.master is other.master
            and self.entry is other.entry
        )

    def govern(self, *names: str) -> Rule:
        """The rule of an image of these names."""
        limits = [it.rule.max_unauthorised if it else None for it in (self.stored, *self.related)]
        return govern(self.rules, Rule(stricter(*limits)), self.entry, *names)


def govern(rules: Rules, stored: Rule, entry: Entry | None, *names: str) -> Rule:
    """The rule of an image of these names: the strictest of rules, store and catalogue."""
    if entry is None:
        return rules.govern(stored, *names)
    return rules.govern(Rule(stricter(stored.max_unauthorised, entry.max_unauthorised)), *names, catalogued=entry.rule)


class Catalog:
    """Finds images by their identifiers. `tiling_for` gives the tiles to offer viewers; None for the master's own.

    Where there is a `catalogue`, it is asked first: an image that it does not know is not there.
    """

    def __init__(
        self,
        store: RenditionStore,
        masters: Masters,
        in_force: RulesInForce,
        *,
        tiling_for: Callable[[Layout], Tiling | None],
        catalogue: Catalogue | None = None,
    ) -> None:
        self._store = store
        self._masters = masters
        self.in_force = in_force
        self._tiling_for = tiling_for
        self.catalogue = catalogue
        self._whole: LRUCache[str, tuple[_Basis, Asset]] = LRUCache(MAX_IMAGES)
        self._stored: LRUCache[str, tuple[_Basis, Asset]] = LRUCache(MAX_IMAGES)

    async def find(self, identifier: str) -> Asset:
        """The image behind an identifier, master and renditions. Raises `Missing`, `MasterError`, `SourceError`."""
        entry = await self.catalogue.locate(identifier) if self.catalogue is not None else None
        page = await self._masters.page_of(identifier)

        def is_master(blob: Blob) -> bool:
            return blob.page == page and (entry is None or blob.url in entry.places)

        stored, related = await self._find_renditions(identifier)
        if stored and stored.sidecar and stored.sidecar.layout and not self._masters.contains(identifier):
            blob = stored.sidecar.blob(self._masters.root_of(stored.sidecar.key))
            if is_master(blob):
                self._masters.put(identifier, Master(blob, formats.load(stored.sidecar.layout)))
        master = await self._masters.find(identifier)
        if not is_master(master.blob):
            self._masters.forget(identifier, master)  # the catalogue has another place for it by now
            master = await self._masters.find(identifier)
        basis = _Basis(self.in_force.rules, stored, related, master, entry)
        known = self._whole.get(identifier)
        if known is not None and known[0].is_same(basis):
            return known[1]
        names = [master.blob.key] if entry is None else [master.blob.key, master.blob.url]
        asset = self._join(identifier, master, stored, basis.govern(*self.form.names(identifier), *names), entry)
        self._whole.put(identifier, (basis, asset))
        return asset

    async def find_stored(self, identifier: str) -> Asset:
        """The image behind an identifier as far as stored renditions tell. Raises `NotFound`. Never asks the master."""
        entry = await self.catalogue.locate(identifier) if self.catalogue is not None else None
        stored, related = await self._find_renditions(identifier)
        if stored is None or not stored.renditions:
            raise NotFound("No sizes of this image are stored.")
        basis = _Basis(self.in_force.rules, stored, related, entry=entry)
        known = self._stored.get(identifier)
        if known is not None and known[0].is_same(basis):
            return known[1]
        # Sizes that are not stored are rounded by the master's own shape, where it is known.
        shape = stored.sidecar.shape if stored.sidecar else stored.renditions[0].size
        # The master may be under any of its keys, and have been under another when its side-car was written.
        keys = [*self.names(identifier, entry), *([stored.sidecar.key] if stored.sidecar else ())]
        rule = basis.govern(*self.form.names(identifier), *keys)
        asset = Asset(identifier, shape, None, renditions=stored.renditions, rule=rule, **_said(entry))
        self._stored.put(identifier, (basis, asset))
        return asset

    @property
    def templates(self) -> KeyTemplates:
        """How identifiers and keys of masters belong together."""
        return self._masters.templates

    @property
    def form(self) -> IdentifierForm:
        """How identifiers are read."""
        return self._masters.templates.form

    def is_current(self, asset: Asset) -> bool:
        """Whether `find`, or `find_stored`, would return this same object again without any look-up."""
        identifier = asset.identifier
        basis, known = (self._stored if asset.blob is None else self._whole).get(identifier) or (None, None)
        if basis is None or known is not asset or basis.rules is not self.in_force.rules:
            return False
        if basis.master is not None and basis.master is not self._masters.peek(identifier):
            return False
        if self.catalogue is not None and self.catalogue.peek(identifier) is not basis.entry:
            return False
        related = _related(identifier, self.form)
        return self._store.is_current(identifier, basis.stored) and all(
            map(self._store.is_current, related, basis.related)
        )

    async def entry(self, identifier: str) -> Entry:
        """What the catalogue says of an image. Raises as `Catalogue.locate` does."""
        assert self.catalogue is not None, "only asked where there is a catalogue"
        return await self.catalogue.locate(identifier)

    def names(self, identifier: str, entry: Entry | None) -> Sequence[str]:
        """What rules may call an image beside its identifier, as far as the master need not be looked up."""
        if self.catalogue is None or entry is None:
            return self._masters.templates.keys_of(identifier)
        return self.catalogue.names(entry)

    async def purge(self, identifier: str) -> list[str]:
        """Forget all that is in memory of an image and its pages; the URLs that its master had or may have.

        Its catalogue is asked again for these; where it fails, those that were known are all.
        """
        image, _ = self.form.split(identifier)
        urls = set[str]()
        for name in {identifier, *(it for it in (*self._whole, *self._stored) if self.form.split(it)[0] == image)}:
            whole = self._whole.pop(name)
            self._stored.pop(name)
            if whole is not None and whole[0].master is not None:
                urls.add(whole[0].master.blob.url)
            for each in (name, *_related(name, self.form)):
                self._store.purge(each)
        self._masters.purge(identifier)
        if self.catalogue is not None:
            self.catalogue.forget(identifier)
        with suppress(SpecialError):
            urls.update(await self._masters.urls(identifier))
        return sorted(urls)

    def master(self, asset: Asset) -> Master:
        """The master of an image that was just found."""
        basis, _ = self._whole.get(asset.identifier) or (None, None)
        assert basis is not None, "find() comes first"
        assert basis.master is not None
        return basis.master

    async def _find_renditions(
        self, identifier: str
    ) -> tuple[StoredRenditions | None, tuple[StoredRenditions | None, ...]]:
        """What is stored under an identifier, and under those that restrict it as well."""
        found = [await self._store.find(name) for name in (identifier, *_related(identifier, self.form))]
        return found[0], tuple(found[1:])

    def _join(
        self, identifier: str, master: Master, stored: StoredRenditions | None, rule: Rule, entry: Entry | None
    ) -> Asset:
        layout = master.layout
        # Renditions of an older version of the master are not this image; its rule holds all the same.
        sidecar, blob = stored.sidecar if stored is not None else None, master.blob
        stale = sidecar is not None and (sidecar.etag, sidecar.page) != (blob.etag, blob.page)
        return Asset(
            identifier,
            layout.size,
            master.blob,
            levels=layout.levels,
            # Viewers ask for a pyramid's tiles from the start: those will be in the volume.
            tiling=self._tiling_for(layout) or layout.tiling,
            renditions=() if stored is None or stale else stored.renditions,
            rule=rule,
            has_color=layout.has_color,
            density=layout.density,
            **_said(entry),
        )


def _said(entry: Entry | None) -> dict[str, Any]:
    """The fields of an asset that only a catalogue fills."""
    if entry is None:
        return {}
    return {"description": entry.description, "label": entry.label, "filename": entry.filename}


@lru_cache(MAX_IMAGES)
def _related(identifier: str, form: IdentifierForm) -> tuple[str, ...]:
    """Identifiers whose sizes files restrict an image as well.

    The folded form of an odd one, since a store may have the same files by both; of a page, those of its image.
    """
    names = form.names(identifier)
    found = dict.fromkeys((*names, *map(fold_identifier, names)))
    return tuple(it for it in found if it not in (identifier, ""))
