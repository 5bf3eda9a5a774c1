"""What is known of images: their masters' headers joined with what is stored of them, and who may see it.

An image is put together once, and is the same object as long as nothing that it was made of has
changed: whoever has planned on it may go on while it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from special import formats
from special.auth import Rules
from special.errors import NotFound
from special.formats import Layout, Tiling
from special.images import Asset, Master, Masters
from special.renditions import RenditionStore, StoredRenditions

MAX_IMAGES = 10_000
"""So many images are put together once, not for every request."""


class Catalog:
    """Finds images by their identifiers. `regrid` gives the tiles that viewers shall ask for, None for the master's."""

    def __init__(
        self, store: RenditionStore, masters: Masters, rules: Rules, *, tiling_for: Callable[[Layout], Tiling | None]
    ) -> None:
        self._store = store
        self._masters = masters
        self._rules = rules
        self._regrid = tiling_for
        self._whole: dict[str, tuple[Master, StoredRenditions | None, Asset]] = {}
        self._stored: dict[str, tuple[StoredRenditions, Asset]] = {}

    async def find(self, identifier: str) -> Asset:
        """The image behind an identifier, master and renditions. Raises `Missing`, `MasterError`, `SourceError`."""
        kept = await self._store.find(identifier)
        if kept and kept.sidecar and kept.sidecar.layout and not self._masters.contains(identifier):
            layout = formats.load(kept.sidecar.layout)
            self._masters.put(identifier, Master(kept.sidecar.blob(self._masters.source.root), layout))
        master = await self._masters.find(identifier)
        known = self._whole.get(identifier)
        if known is not None and known[0] is master and known[1] is kept:
            return known[2]
        if len(self._whole) >= MAX_IMAGES:
            self._whole.clear()
        asset = self._join(identifier, master, kept)
        self._whole[identifier] = master, kept, asset
        return asset

    async def find_stored(self, identifier: str) -> Asset:
        """The image behind an identifier as far as stored renditions tell. Raises `NotFound`. Never asks the master."""
        kept = await self._store.find(identifier)
        if kept is None or not kept.renditions:
            raise NotFound("No sizes of this image are stored.")
        known = self._stored.get(identifier)
        if known is not None and known[0] is kept:
            return known[1]
        # Sizes that are not stored are rounded by the master's own shape, where it is known.
        shape = kept.sidecar.shape if kept.sidecar else kept.renditions[0].size
        names = (identifier, kept.sidecar.key) if kept.sidecar else (identifier,)
        rule = self._rules.govern(kept.rule, *names)
        asset = Asset(identifier, shape, None, renditions=kept.renditions, rule=rule)
        if len(self._stored) >= MAX_IMAGES:
            self._stored.clear()
        self._stored[identifier] = kept, asset
        return asset

    def is_current(self, asset: Asset) -> bool:
        """Whether `find`, or `find_stored`, would give this very asset again without having to look."""
        if asset.blob is None:
            kept, known = self._stored.get(asset.identifier, (None, None))
            return known is asset and self._store.is_current(asset.identifier, kept)
        master, kept, known = self._whole.get(asset.identifier, (None, None, None))
        return (
            known is asset
            and master is self._masters.peek(asset.identifier)
            and self._store.is_current(asset.identifier, kept)
        )

    def master(self, asset: Asset) -> Master:
        """The master of an image that was just found."""
        return self._whole[asset.identifier][0]

    def _join(self, identifier: str, master: Master, kept: StoredRenditions | None) -> Asset:
        layout = master.layout
        asset = Asset(
            identifier,
            layout.size,
            master.blob,
            levels=layout.levels,
            # Viewers ask for a pyramid's tiles from the start: those are the ones that will be at hand.
            tiling=self._regrid(layout) or layout.tiling,
            has_color=layout.has_color,
        )
        if kept is not None:
            # Renditions of an older version of the master are not this image; its rule holds all the same.
            stale = kept.sidecar is not None and kept.sidecar.etag != master.blob.etag
            asset = replace(asset, renditions=() if stale else kept.renditions, rule=kept.rule)
        return replace(asset, rule=self._rules.govern(asset.rule, identifier, master.blob.key))
