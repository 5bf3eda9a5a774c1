"""Stores pyramids that the volume made beside the renditions, so that no other server makes them, nor this one again.

In the background, after an answer, one at a time: no request waits for it, and a store that cannot be written to fails
no request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from special.codecs import subsampling
from special.concurrency import KeyedTasks, LRUCache
from special.errors import Changed, SpecialError
from special.formats.tiff import Grid, Place
from special.images import Asset, Master
from special.renditions import pyramid_file
from special.serving.published_tiles import PublishedTiles
from special.serving.pyramid_tiles import PyramidTiles
from special.storage import Absent, Source

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Maximum number of pyramids that wait to be stored; others are stored when they are asked for again."""
MAX_KNOWN = 10_000
"""Maximum number of pyramids that are known to be stored."""


class PyramidPublisher:
    """Publishes pyramids of the volume."""

    def __init__(self, source: Source, pyramids: PyramidTiles, published: PublishedTiles) -> None:
        self._source = source
        self._pyramids = pyramids
        self._published = published
        self._tasks = KeyedTasks(MAX_WAITING)
        self._stored: LRUCache[str, bool] = LRUCache(MAX_KNOWN)
        self._one_write = asyncio.Semaphore(1)

    async def close(self) -> None:
        """Cancel what waits and what is being stored: an object is written whole or not at all."""
        await self._tasks.close()

    def submit(self, asset: Asset, master: Master) -> None:
        """Store a master's pyramid in the background, if the volume has one that is not known to be stored."""
        if asset.blob != master.blob or not self._pyramids.has(master.blob):
            return
        key = self._published.key_of(asset)
        if self._stored.get(key) is None:
            self._tasks.start(key, partial(self._publish, key, master))

    async def _publish(self, key: str, master: Master) -> None:
        try:
            async with self._one_write:
                tiles = await self._pyramids.tiles(master)
                if tiles is None:
                    return
                data = await asyncio.to_thread(self._assembled, master, *tiles)
                await self._source.write(key, data, media=pyramid_file.MEDIA, pin=Absent())
                self._published.forget(key, master)
                log.info("published %s: %d bytes", key, len(data))
        except Changed:
            log.info("%s is published already", key)
        except (SpecialError, OSError) as error:
            log.warning("%s was not published: %s", key, error)
            return
        self._stored.put(key, True)

    def _assembled(self, master: Master, tiles: dict[Place, Sequence[bytes]], channels: int) -> bytes:
        name = self._published.name
        grid, sampling = Grid(master.layout.size, name.tile), subsampling(name.quality)
        return pyramid_file.assemble(grid, tiles, channels=channels, subsampling=sampling)
