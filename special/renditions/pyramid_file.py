"""A pyramid that is published beside the renditions of an image: one file, of which each tile is a range. Our own form.

    {id}/pyramid-{tile side}-{JPEG quality}-{version}-{digest}.tif         of an image of which all is open
    {id}/auth/pyramid-{tile side}-{JPEG quality}-{version}-{digest}.tif    of any other

The digest is of the master's name, entity tag and length, so that a pyramid is never taken for that of another version.
The file is a BigTIFF of whole JPEGs, as in the volume (see `formats.tiff.pyramid`), but with its directories first: one
read tells where all tiles are. The tiles follow level by level, row by row; before a tile at an edge, which TIFF wants
filled up, is the same as viewers ask for it.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from special.errors import Malformed
from special.formats import Layout
from special.formats.tiff import HEAD_BYTES, Grid, Place, PyramidIndex, TiffLayout, pyramid
from special.geometry import Size
from special.iiif import Job
from special.images import Access
from special.storage import Blob, Span

MEDIA: Final = "image/tiff"
TILE_BYTES_PER_PIXEL: Final = 0.3
"""About what a pixel takes in a pyramid of photographs or manuscripts at quality 85; scans with grain take 0.5."""
LEVELS_SHARE: Final = 4 / 3
"""How many pixels all levels have, for one of the full size."""
_NAME = re.compile(r"(auth/)?pyramid-\d+-\d+-\d+-[0-9a-f]{32}\.tif")


@dataclass(frozen=True, slots=True)
class PyramidName:
    """How pyramids with the same settings are named."""

    tile: int
    """Length of a tile's sides."""
    quality: int
    """Of the JPEGs."""
    version: int
    """Goes up when the same settings give other tiles."""

    def key(self, identifier: str, master: Blob, access: Access) -> str:
        """Where the pyramid of a version of a master is."""
        name = master.key.rpartition("/")[2]  # side-cars name masters of other sources by URLs
        digest = hashlib.sha256(f"{name}\n{master.picture_tag}\n{master.size}".encode()).hexdigest()[:32]
        folder = "auth/" if access == "auth" else ""
        return f"{identifier}/{folder}pyramid-{self.tile}-{self.quality}-{self.version}-{digest}.tif"


def prefixes(identifier: str) -> tuple[str, ...]:
    """How the keys of an image's pyramids start, of whatever settings and version."""
    return f"{identifier}/pyramid-", f"{identifier}/auth/pyramid-"


def is_pyramid(identifier: str, key: str) -> bool:
    """Whether an object is a published pyramid of an image."""
    return _NAME.fullmatch(key.removeprefix(f"{identifier}/")) is not None


def estimated_bytes(size: Size) -> int:
    """About how long the pyramid of a picture will be."""
    return int(size.area * LEVELS_SHARE * TILE_BYTES_PER_PIXEL)


def places(grid: Grid) -> Iterator[Place]:
    """All tiles in the order in which they are stored."""
    for level in range(grid.levels):
        for row in range(grid.rows(level)):
            for column in range(grid.columns(level)):
                yield Place(level, column, row)


def head(grid: Grid, lengths: Mapping[Place, Sequence[int]], *, channels: int, subsampling: int) -> bytes:
    """All that is before the tiles, given the lengths of each tile's files: as viewers ask for it, and filled up."""
    at = HEAD_BYTES + _directories_bytes(grid, channels, subsampling)
    spans: dict[Place, Span] = {}
    for place in places(grid):
        *before, length = lengths[place]
        spans[place] = Span.at(at + sum(before), length)
        at = spans[place].stop
    directories = pyramid.directories(grid, spans, channels=channels, subsampling=subsampling, at=HEAD_BYTES)
    return pyramid.head(HEAD_BYTES) + directories


def _directories_bytes(grid: Grid, channels: int, subsampling: int) -> int:
    unknown = dict.fromkeys(places(grid), Span(0, 1))  # offsets and lengths take the same space whatever they are
    return len(pyramid.directories(grid, unknown, channels=channels, subsampling=subsampling, at=HEAD_BYTES))


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """Where each tile is in a published pyramid."""

    index: PyramidIndex
    stops: tuple[int, ...]
    """Where the directories end, and then each tile that they name; ascending."""

    @classmethod
    def of(cls, grid: Grid, layout: Layout) -> PublishedIndex:
        """The index of a file with this layout. Raises `Malformed` where it is no pyramid of that grid."""
        if not isinstance(layout, TiffLayout) or layout.levels != tuple(map(grid.size, range(grid.levels))):
            raise Malformed(f"a published pyramid is none of {grid.full} pixels")
        stops = [HEAD_BYTES + _directories_bytes(grid, layout.full.samples, 1)]
        for place in places(grid):
            page = layout.pyramid[place.level].page
            span = page.span(place.row * page.columns + place.column)
            if page.tile != Size(grid.tile, grid.tile) or span is None or span.start < stops[-1]:
                raise Malformed("a published pyramid has its tiles in another order")
            stops.append(span.stop)
        return cls(PyramidIndex(grid, layout), tuple(stops))

    def find(self, job: Job) -> Span | None:
        """The JPEG that is the answer as it is stored, if there is one."""
        if not job.plain or job.format != "jpg":
            return None
        return self.index.find(job.box, job.size, whole_part_before=self._before)

    def _before(self, start: int) -> Span:
        """What is between a tile at an edge and the tile before."""
        return Span(self.stops[bisect_right(self.stops, start) - 1], start)


def assemble(grid: Grid, tiles: Mapping[Place, Sequence[bytes]], *, channels: int, subsampling: int) -> bytes:
    """The file of all tiles, each as viewers ask for it and, at an edge, filled up. One copy."""
    lengths = {place: [len(data) for data in files] for place, files in tiles.items()}
    before = head(grid, lengths, channels=channels, subsampling=subsampling)
    return b"".join((before, *(data for place in places(grid) for data in tiles[place])))
