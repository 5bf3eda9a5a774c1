"""Tiles out of pyramids that are published beside renditions: no master is read, and on the grid no codec works.

A published pyramid is found by its key, which names the version of the master: what is missing is asked for again
after a while. Its tiles are read through the volume, as those of masters are.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from special import formats
from special.concurrency import Deadline, TTLCache
from special.errors import Malformed, Missing, SourceError
from special.formats import drive
from special.formats.tiff import Grid
from special.geometry import Box
from special.iiif import Job
from special.images import Access, Asset, Master
from special.observability import trace
from special.renditions import PublishedIndex, PyramidName
from special.serving.master_pixels import MasterRenderer
from special.serving.pyramid_tiles import Read, Turn, render_off_grid
from special.storage import Blob, Reader, Source, Span, body

log = logging.getLogger(__name__)

HEAD_BYTES = 65536
"""How much is read to find the tiles: all directories of a pyramid of 400 megapixels."""
TTL_S = 3600.0
"""How long a pyramid is believed to be there; a read of another version, or of none, tells sooner."""
MISSING_TTL_S = 60.0


@dataclass(frozen=True, slots=True)
class PublishedPyramid:
    """A pyramid that was found."""

    blob: Blob
    index: PublishedIndex


class PublishedTiles:
    """Finds published pyramids, and makes answers of them."""

    def __init__(
        self, renderer: MasterRenderer, source: Source, reader: Reader, name: PyramidName, *, always: bool
    ) -> None:
        """`source` holds the renditions, `reader` reads it through the volume.

        `always`: whether to look for pyramids of images too of which no rendition is stored.
        """
        self._always = always
        self._renderer = renderer
        self._source = source
        self._reader = reader
        self.name = name
        self._known: TTLCache[tuple[str, Grid], PublishedPyramid] = TTLCache(
            self._look_up, ttl_s=TTL_S, missing_ttl_s=MISSING_TTL_S
        )

    async def close(self) -> None:
        await self._known.close()

    def key_of(self, asset: Asset) -> str:
        """Where an image's pyramid is: of a restricted one only what is stored as restricted counts."""
        assert asset.blob is not None, "it has a master"
        access: Access = "auth" if asset.restricted else "open"
        return self.name.key(asset.identifier, asset.blob, access)

    async def render(
        self, asset: Asset, blob: Blob, job: Job, *, deadline: Deadline, turn: Turn = nullcontext
    ) -> bytes | None:
        """What the job asks for, of a version of the image's master; None where no pyramid of it can be used.

        `turn` is taken for what has to be decoded.
        """
        if asset.blob is None or asset.blob.version != blob.version or not (self._always or asset.renditions):
            return None
        name = self.key_of(asset), Grid(asset.size, self.name.tile)
        try:
            with trace().reading():
                async with deadline.limit(f"reading {name[0]}"):
                    found = await self._known.get(name)
                    span = found.index.find(job)
                    if span is not None:
                        return (await self._reader.read(found.blob, [span]))[0]
            read: Read = partial(self._reader.read, found.blob)
            index = found.index.index
            async with turn():
                return await render_off_grid(self._renderer, index, job, read, deadline=deadline, key=name[0])
        except Missing:
            return None
        except (SourceError, Malformed) as error:
            # It was overwritten, or its store fails: the master serves as well.
            log.warning("the published pyramid %s is not used: %s", name[0], error)
            self._known.forget(name)
            return None

    def forget(self, key: str, master: Master) -> None:
        """A pyramid was just stored: the next request finds it."""
        self._known.forget((key, Grid(master.layout.size, self.name.tile)))

    async def _look_up(self, name: tuple[str, Grid], previous: PublishedPyramid | None) -> PublishedPyramid:
        key, grid = name
        opened = await self._source.open(key, span=Span(0, HEAD_BYTES))
        blob, head = opened.blob, await body(opened)
        seen = [(Span(0, len(head)), head)]
        layout = await drive(formats.parse(blob.size), self._source, blob, seen=seen)
        for level in range(grid.levels):  # all of the index, however long
            missing = layout.prepare(Box.whole(grid.full), grid.size(level))
            if missing is not None:
                layout = await drive(missing, self._source, blob, first_bytes=0, chunk_bytes=0, seen=seen)
        return PublishedPyramid(blob, PublishedIndex.of(grid, layout))
