"""Static tile sets: an image at level 0 of the Image API, as files that any web server gives out.

{id}/info.json
{id}/{x},{y},{w},{h}/{w},{h}/0/default.jpg      each tile of each level
{id}/full/{w},{h}/0/default.jpg                 the smallest level, which is a single tile
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from urllib.parse import quote

from special.derive.inputs import InputImage
from special.derive.outcome import Outcome, Work
from special.formats.tiff import Grid, Place
from special.geometry import Box
from special.images import Masters
from special.renditions import RenditionStore
from special.serving import PyramidMaker, Tiles, info
from special.storage import Source


@dataclass(frozen=True, slots=True)
class StaticWriter:
    """Writes tile sets of images that are open to all."""

    store: RenditionStore
    masters: Masters
    pyramid_maker: PyramidMaker
    target: Source
    base_url: str
    """Where the files will be found, without a trailing slash."""

    def writing(self, work: Work) -> Work:
        """The same work, and then the image's tile set."""

        async def both(image: InputImage) -> Outcome:
            outcome = await work(image)
            if outcome.result not in ("made", "stood"):
                return outcome
            detail = await self.write(image.identifier)
            return replace(outcome, result="made", detail=", ".join(filter(None, (outcome.detail, detail))))

        return both

    async def write(self, identifier: str) -> str:
        """Write all files of an image, info.json last; what was done, in words. Nothing of a restricted image."""
        stored = await self.store.reload(identifier)
        if stored is None or stored.rule.max_unauthorised is not None:
            return "restricted: no static tiles"
        master = await self.masters.find(identifier)
        grid, count = Grid(master.layout.size, self.pyramid_maker.tile), 0

        async def put(tiles: Tiles) -> None:
            nonlocal count
            files = [(path, files[0]) for place, files in tiles for path in _paths(grid, place)]
            count += len(files)
            await asyncio.gather(
                *(self.target.write(f"{identifier}/{path}", data, media="image/jpeg") for path, data in files)
            )

        await self.pyramid_maker.make(master, put)
        document = json.dumps(self._info(identifier, grid), indent=2).encode()
        await self.target.write(f"{identifier}/info.json", document, media="application/json")
        return f"{count} static tiles"

    def _info(self, identifier: str, grid: Grid) -> dict[str, object]:
        smallest = grid.size(grid.levels - 1)
        return {
            "@context": info.CONTEXT[3],
            "id": f"{self.base_url}/{quote(identifier, safe='/')}",
            "type": "ImageService3",
            "protocol": info.PROTOCOL,
            "profile": "level0",
            "width": grid.full.width,
            "height": grid.full.height,
            "sizes": [{"width": smallest.width, "height": smallest.height}],
            "tiles": [{"width": grid.tile, "scaleFactors": list(grid.tiling.scale_factors)}],
        }


def _paths(grid: Grid, place: Place) -> list[str]:
    """The addresses of a tile, in canonical form and as viewers write them."""
    box = grid.box(place.level, Box(place.column, place.row, 1, 1))
    size = grid.shown(place.level, box)
    regions = [str(box), *(["full"] if box.size == grid.full else [])]
    sizes = [str(size), *(["max"] if box.size == grid.full == size else [])]
    return [f"{region}/{size}/0/default.jpg" for region in regions for size in sizes]
