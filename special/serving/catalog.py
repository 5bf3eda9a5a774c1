"""What is known of images: their masters' headers joined with what is stored of them, and who may see it.

An image is put together once, and is the same object until something that it was made of
changes: a plan that was made with it holds as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from special import formats
from special.auth import Rules
from special.concurrency import LRUCache
from special.errors import NotFound
from special.formats import Layout, Tiling
from special.images import Asset, Master, Masters
from special.renditions import RenditionStore, StoredRenditions

MAX_IMAGES = 10_000
"""Maximum number of images that are stored in memory, and as many of which only renditions are known."""


class Catalog:
    """Finds images by their identifiers. `tiling_for` gives the tiles to offer viewers; None for the master's own."""

    def __init__(
        self, store: RenditionStore, masters: Masters, rules: Rules, *, tiling_for: Callable[[Layout], Tiling | None]
    ) -> None:
        self._store = store
        self._masters = masters
        self._rules = rules
        self._regrid = tiling_for
        self._whole: LRUCache[str, tuple[Master, StoredRenditions | None, Asset]] = LRUCache(MAX_IMAGES)
        self._stored: LRUCache[str, tuple[StoredRenditions, Asset]] = LRUCache(MAX_IMAGES)

    async def find(self, identifier: str) -> Asset:
        """The image behind an identifier, master and renditions. Raises `Missing`, `MasterError`, `SourceError`."""
        stored = await self._store.find(identifier)
        if stored and stored.sidecar and stored.sidecar.layout and not self._masters.contains(identifier):
            layout = formats.load(stored.sidecar.layout)
            self._masters.put(identifier, Master(stored.sidecar.blob(self._masters.source.root), layout))
        master = await self._masters.find(identifier)
        known = self._whole.get(identifier)
        if known is not None and known[0] is master and known[1] is stored:
            return known[2]
        asset = self._join(identifier, master, stored)
        self._whole.put(identifier, (master, stored, asset))
        return asset

    async def find_stored(self, identifier: str) -> Asset:
        """The image behind an identifier as far as stored renditions tell. Raises `NotFound`. Never asks the master."""
        stored = await self._store.find(identifier)
        if stored is None or not stored.renditions:
            raise NotFound("No sizes of this image are stored.")
        known = self._stored.get(identifier)
        if known is not None and known[0] is stored:
            return known[1]
        # Sizes that are not stored are rounded by the master's own shape, where it is known.
        shape = stored.sidecar.shape if stored.sidecar else stored.renditions[0].size
        names = (identifier, stored.sidecar.key) if stored.sidecar else (identifier,)
        rule = self._rules.govern(stored.rule, *names)
        asset = Asset(identifier, shape, None, renditions=stored.renditions, rule=rule)
        self._stored.put(identifier, (stored, asset))
        return asset

    def is_current(self, asset: Asset) -> bool:
        """Whether `find`, or `find_stored`, would return this same object again without any look-up."""
        if asset.blob is None:
            stored, known = self._stored.get(asset.identifier) or (None, None)
            return known is asset and self._store.is_current(asset.identifier, stored)
        master, stored, known = self._whole.get(asset.identifier) or (None, None, None)
        return (
            known is asset
            and master is self._masters.peek(asset.identifier)
            and self._store.is_current(asset.identifier, stored)
        )

    def master(self, asset: Asset) -> Master:
        """The master of an image that was just found."""
        found = self._whole.get(asset.identifier)
        assert found is not None, "find() comes first"
        return found[0]

    def _join(self, identifier: str, master: Master, stored: StoredRenditions | None) -> Asset:
        layout = master.layout
        asset = Asset(
            identifier,
            layout.size,
            master.blob,
            levels=layout.levels,
            # Viewers ask for a pyramid's tiles from the start: those will be in the volume.
            tiling=self._regrid(layout) or layout.tiling,
            has_color=layout.has_color,
        )
        if stored is not None:
            # Renditions of an older version of the master are not this image; its rule holds all the same.
            stale = stored.sidecar is not None and stored.sidecar.etag != master.blob.etag
            asset = replace(asset, renditions=() if stale else stored.renditions, rule=stored.rule)
        return replace(asset, rule=self._rules.govern(asset.rule, identifier, master.blob.key))
