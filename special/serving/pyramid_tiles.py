"""Tiles out of the pyramids that the volume keeps: as they are on the grid, resampled off it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

from special import formats
from special.codecs import memory_estimate
from special.concurrency import Deadline, SingleFlight
from special.errors import Malformed
from special.formats import drive
from special.formats.tiff import HEAD_BYTES, Grid, Place, PyramidIndex, TiffLayout
from special.geometry import Box
from special.iiif import Job
from special.images import Master
from special.observability import trace
from special.renditions import pyramid_file
from special.serving.master_pixels import MasterRenderer
from special.storage import Blob, Span
from special.volume import Damaged, PackFile, Pyramids

CHECK_S: Final = 0.25
"""How often the disk is asked whether another process has made a pyramid."""
MORE_QUALITY: Final = 3
"""What is encoded for the second time is encoded with more care: an eighth longer, to lose 0.1 to 1.2 dB less."""


Read = Callable[[Sequence[Span]], Awaitable[list[bytes] | None]]
"""Reads spans of a pyramid; None where it is gone, or broken."""
Turn = Callable[[], AbstractAsyncContextManager[object]]
"""What a decoder is waited for in, beside admission."""


class PyramidTiles:
    """Finds pyramids of one name in the volume, and makes answers of them."""

    def __init__(self, renderer: MasterRenderer, pyramids: Pyramids, name: str, *, tile: int) -> None:
        self._renderer = renderer
        self._pyramids = pyramids
        self._name = name
        self._tile = tile
        self._indexes: WeakKeyDictionary[PackFile, PyramidIndex] = WeakKeyDictionary()
        self._checked_s: dict[tuple[str, int], float] = {}
        self._looks: SingleFlight[PackFile | None] = SingleFlight()
        self._news = 0
        """How often a pyramid may have come."""

    def cached(self, blob: Blob, job: Job) -> bytes | None:
        """The tile of a pyramid that was found before, if it is in memory. Never waits for the disk."""
        file = self._pyramids.peek_file(blob)
        index = self._indexes.get(file) if file is not None else None
        span = _find(index, job, file) if index is not None and file is not None else None
        return self._pyramids.peek(blob, span) if span is not None else None

    async def render(self, master: Master, job: Job, *, deadline: Deadline, turn: Turn = nullcontext) -> bytes | None:
        """What the job asks for, from the master's pyramid; None where there is none that can be used.

        `turn` is taken for what has to be decoded.
        """
        blob = master.blob
        with trace().reading():
            async with deadline.limit(f"reading the pyramid of {blob.url}"):
                file = self._pyramids.peek_file(blob) or await self._find(blob)
                if file is None:
                    return None
                index = self._indexes.get(file) or await self._read_index(master, file)
                if index is None:
                    return None
                span = _find(index, job, file)
                if span is not None:
                    found = await self._pyramids.read(blob, [span])
                    return found[0] if found is not None else None
        read = partial(self._pyramids.read, blob)
        async with turn():
            return await render_off_grid(self._renderer, index, job, read, deadline=deadline, key=blob.version)

    def has(self, blob: Blob) -> bool:
        """Whether the volume has a pyramid of this version that was read before."""
        file = self._pyramids.peek_file(blob)
        return file is not None and file in self._indexes

    async def tiles(self, master: Master) -> tuple[dict[Place, Sequence[bytes]], int] | None:
        """All tiles of a pyramid, each as it is shown and, at an edge, filled up, and their number of channels.

        None where it is gone by now. All of them are in memory.
        """
        file = self._pyramids.peek_file(master.blob)
        index = self._indexes.get(file) if file is not None else None
        if file is None or index is None:
            return None
        grid, found = index.grid, dict[Place, Sequence[bytes]]()
        for place in pyramid_file.places(grid):
            box = grid.box(place.level, Box(place.column, place.row, 1, 1))
            size = grid.shown(place.level, box)
            spans = (
                [index.span(place)]
                if grid.is_whole(size)
                else [file.before(index.span(place).start), index.span(place)]
            )
            files = await self._pyramids.read(master.blob, spans)
            if files is None:
                return None
            found[place] = files
        return found, index.layout.full.samples

    def look_again(self, blob: Blob) -> None:
        """A pyramid may be there by now: the next request asks the disk at once, also where it is asked already."""
        self._checked_s.pop((blob.url, blob.page), None)
        self._news += 1

    async def _find(self, blob: Blob) -> PackFile | None:
        """The pyramid, if there is one by now; the disk is asked once in `CHECK_S`, for all requests."""
        if monotonic() < self._checked_s.get((blob.url, blob.page), 0.0) + CHECK_S:
            return None
        return await self._looks.run((blob.url, blob.page, self._news), partial(self._look, blob, self._news))

    async def _look(self, blob: Blob, news: int) -> PackFile | None:
        found, now = await self._pyramids.find(blob, self._name), monotonic()
        self._checked_s = {page: then for page, then in self._checked_s.items() if now < then + CHECK_S}
        if news == self._news:
            self._checked_s[blob.url, blob.page] = now
        return found

    async def _read_index(self, master: Master, file: PackFile) -> PyramidIndex | None:
        """What a pyramid's directories say; None, and the pyramid is removed, where they make no sense."""
        try:
            index = await read_index(file, Grid(master.layout.size, self._tile))
        except (Damaged, Malformed, OSError):
            await self._pyramids.discard(master.blob)
            return None
        self._indexes[file] = index
        return index


async def render_off_grid(
    renderer: MasterRenderer, index: PyramidIndex, job: Job, read: Read, *, deadline: Deadline, key: str
) -> bytes | None:
    """What the job asks for, from the tiles of a pyramid that show it; None where `read` gives none.

    `key` names the pyramid for admission and quarantine.
    """
    extract = index.layout.extract(job.box, index.source_size(job.box, job.size))
    memory_bytes = memory_estimate.decode_bytes("tiff", extract, job)
    encoding = renderer.encoding
    careful = replace(
        encoding,
        jpeg_quality=min(100, encoding.jpeg_quality + MORE_QUALITY),
        webp_quality=min(100, encoding.webp_quality + MORE_QUALITY),
        avif_quality=min(100, encoding.avif_quality + MORE_QUALITY),
    )
    key = f"{key} (its pyramid)"
    async with renderer.admission.admit(
        "tile", memory_bytes, deadline=deadline, client=trace().client, master=key
    ) as admission:
        with trace().reading():
            async with deadline.limit(f"reading {key}"):
                found = await read(extract.spans)
        if found is None:
            return None
        piece = index.layout.rebuild(extract, found)
        return await renderer.decode(piece, job, admission, quarantine_key=key, encoding=careful)


def _find(index: PyramidIndex, job: Job, file: PackFile) -> Span | None:
    """The part that is the answer as it is, if there is one."""
    if not job.plain or job.format != "jpg":
        return None
    return index.find(job.box, job.size, whole_part_before=file.before)


async def read_index(file: PackFile, grid: Grid) -> PyramidIndex:
    """Read a pyramid's directories. Raises `Damaged`, `Malformed`, `OSError`."""
    file.read(Span(0, HEAD_BYTES))
    file.read(file.last)
    blob, content = Blob("", file.path.name, "", file.size_bytes), _Unchecked(file)
    layout = await drive(formats.parse(file.size_bytes), content, blob)
    for level in range(grid.levels):  # all of the index, however long
        missing = layout.prepare(Box.whole(grid.full), grid.size(level))
        if missing is not None:
            layout = await drive(missing, content, blob, first_bytes=0, chunk_bytes=0)
    if not isinstance(layout, TiffLayout) or layout.levels != tuple(map(grid.size, range(grid.levels))):
        raise Malformed(f"{file.path} is no pyramid of {grid.full} pixels")
    return PyramidIndex(grid, layout)


@dataclass(frozen=True, slots=True)
class _Unchecked:
    """A pyramid's bytes for the parser, which asks for more than it reads."""

    file: PackFile

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        return [self.file.unchecked(span) for span in spans]
