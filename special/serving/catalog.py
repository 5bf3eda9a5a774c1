"""What is known of images: their masters' headers joined with what is stored of them, and who may see it.

An image is put together once, and is the same object until something that it was made of
changes: a plan that was made with it holds as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from special import formats
from special.auth import Rules, RulesInForce
from special.concurrency import LRUCache
from special.errors import NotFound
from special.formats import Layout, Tiling
from special.iiif import fold_identifier
from special.images import Asset, KeyTemplates, Master, Masters, Rule, stricter
from special.renditions import RenditionStore, StoredRenditions

MAX_IMAGES = 10_000
"""Maximum number of images that are stored in memory, and as many of which only renditions are known."""


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an image is made of."""

    rules: Rules
    stored: StoredRenditions | None
    folded: StoredRenditions | None
    """What is stored under the folded form of an odd identifier: a store may have the same files by both."""
    master: Master | None = None

    def is_same(self, other: _Basis) -> bool:
        return (
            self.rules is other.rules
            and self.stored is other.stored
            and self.folded is other.folded
            and self.master is other.master
        )

    def govern(self, *names: str) -> Rule:
        """The rule of an image of these names."""
        limits = [it.rule.max_unauthorised if it else None for it in (self.stored, self.folded)]
        return self.rules.govern(Rule(stricter(*limits)), *names)


class Catalog:
    """Finds images by their identifiers. `tiling_for` gives the tiles to offer viewers; None for the master's own."""

    def __init__(
        self,
        store: RenditionStore,
        masters: Masters,
        in_force: RulesInForce,
        *,
        tiling_for: Callable[[Layout], Tiling | None],
    ) -> None:
        self._store = store
        self._masters = masters
        self.in_force = in_force
        self._tiling_for = tiling_for
        self._whole: LRUCache[str, tuple[_Basis, Asset]] = LRUCache(MAX_IMAGES)
        self._stored: LRUCache[str, tuple[_Basis, Asset]] = LRUCache(MAX_IMAGES)

    async def find(self, identifier: str) -> Asset:
        """The image behind an identifier, master and renditions. Raises `Missing`, `MasterError`, `SourceError`."""
        stored, folded = await self._find_renditions(identifier)
        if stored and stored.sidecar and stored.sidecar.layout and not self._masters.contains(identifier):
            layout = formats.load(stored.sidecar.layout)
            self._masters.put(identifier, Master(stored.sidecar.blob(self._masters.source.root), layout))
        master = await self._masters.find(identifier)
        basis = _Basis(self.in_force.rules, stored, folded, master)
        known = self._whole.get(identifier)
        if known is not None and known[0].is_same(basis):
            return known[1]
        asset = self._join(identifier, master, stored, basis.govern(identifier, master.blob.key))
        self._whole.put(identifier, (basis, asset))
        return asset

    async def find_stored(self, identifier: str) -> Asset:
        """The image behind an identifier as far as stored renditions tell. Raises `NotFound`. Never asks the master."""
        stored, folded = await self._find_renditions(identifier)
        if stored is None or not stored.renditions:
            raise NotFound("No sizes of this image are stored.")
        basis = _Basis(self.in_force.rules, stored, folded)
        known = self._stored.get(identifier)
        if known is not None and known[0].is_same(basis):
            return known[1]
        # Sizes that are not stored are rounded by the master's own shape, where it is known.
        shape = stored.sidecar.shape if stored.sidecar else stored.renditions[0].size
        # The master may be under any of its keys, and have been under another when its side-car was written.
        keys = [*self._masters.templates.keys_of(identifier), *([stored.sidecar.key] if stored.sidecar else ())]
        asset = Asset(identifier, shape, None, renditions=stored.renditions, rule=basis.govern(identifier, *keys))
        self._stored.put(identifier, (basis, asset))
        return asset

    @property
    def templates(self) -> KeyTemplates:
        """How identifiers and keys of masters belong together."""
        return self._masters.templates

    def is_current(self, asset: Asset) -> bool:
        """Whether `find`, or `find_stored`, would return this same object again without any look-up."""
        identifier = asset.identifier
        basis, known = (self._stored if asset.blob is None else self._whole).get(identifier) or (None, None)
        if basis is None or known is not asset or basis.rules is not self.in_force.rules:
            return False
        if basis.master is not None and basis.master is not self._masters.peek(identifier):
            return False
        folded = _folded(identifier)
        return self._store.is_current(identifier, basis.stored) and (
            folded is None or self._store.is_current(folded, basis.folded)
        )

    def take_down(self, identifier: str) -> None:
        """Know nothing of an image any more, so that its next request looks for its master and its renditions."""
        self._masters.take_down(identifier)
        for name in (identifier, _folded(identifier)):
            if name is not None:
                self._store.forget(name)

    def master(self, asset: Asset) -> Master:
        """The master of an image that was just found."""
        basis, _ = self._whole.get(asset.identifier) or (None, None)
        assert basis is not None, "find() comes first"
        assert basis.master is not None
        return basis.master

    async def _find_renditions(self, identifier: str) -> tuple[StoredRenditions | None, StoredRenditions | None]:
        """What is stored under an identifier, and under its folded form where that is another."""
        folded = _folded(identifier)
        return await self._store.find(identifier), await self._store.find(folded) if folded else None

    def _join(self, identifier: str, master: Master, stored: StoredRenditions | None, rule: Rule) -> Asset:
        layout = master.layout
        # Renditions of an older version of the master are not this image; its rule holds all the same.
        stale = stored is not None and stored.sidecar is not None and stored.sidecar.etag != master.blob.etag
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
        )


@lru_cache(MAX_IMAGES)
def _folded(identifier: str) -> str | None:
    """The folded form of an odd identifier; None for one that is its own."""
    folded = fold_identifier(identifier)
    return folded if folded not in (identifier, "") else None
