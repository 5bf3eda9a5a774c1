"""The route `tile`: a part of a master, from its pyramid where it has one, else from spans through the volume.

The answer is the same either way: a tile on the grid is the same file, byte for byte, so its entity
tag stays too; the smaller tiles of a large flat master differ by rounding (see `codecs.pyramid_cutter`).
Off the grid a pyramid's pixels have been through JPEG before; pictures without loss (PNG, TIFF, GIF) and
black and white ones are therefore always made from the master itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Final

from special.concurrency import Deadline, KeyedLimiter, LRUCache, SingleFlight
from special.errors import Preparing, TimedOut
from special.formats import Stored
from special.formats.tiff import Grid, PyramidGrids
from special.geometry import Size
from special.iiif import MEDIA, Job
from special.images import Asset, Master
from special.observability import trace
from special.serving.answers import Answer, AnswerHead, PlannedRequest, pixels_etag
from special.serving.master_pixels import MasterRenderer, stored_tile
from special.serving.prefetch import Prefetcher
from special.serving.published_tiles import PublishedTiles
from special.serving.pyramid_builder import PyramidBuilder
from special.serving.pyramid_maker import LARGE_PIXELS, is_flat
from special.serving.pyramid_publisher import PyramidPublisher
from special.serving.pyramid_tiles import PyramidTiles, Turn
from special.serving.read_piece import plan_extract
from special.storage import Blob, NotModified, Reader, Span, Unless
from special.volume import Volume

MAX_WAITING: Final = 1024
"""Requests that may wait for tiles of one expensive master: they cost nothing but their connections."""
LARGE_PART: Final = 0.125
"""Part of a large master's bytes from which on a tile is better waited for than made: a view has as many of them."""
DECODE_RESERVE_S: Final = 2.0
"""Least time that is left for a second try, where a request shared one that had less."""


class TileRoute:
    """Answers requests for parts of masters."""

    def __init__(
        self,
        renderer: MasterRenderer,
        volume: Volume,
        reader: Reader,
        grids: PyramidGrids,
        builder: PyramidBuilder,
        pyramids: PyramidTiles,
        published: PublishedTiles,
        *,
        publisher: PyramidPublisher | None,
        master_of: Callable[[Asset], Master],
        prefetcher: Prefetcher | None,
        max_running: int,
        hot_bytes: int,
    ) -> None:
        """`master_of` gives the master of an image that was just found.

        `max_running`: tiles of one expensive master that are made at once. `hot_bytes`: memory for stored tiles.
        """
        self._renderer = renderer
        self._volume = volume
        self._reader = reader
        self._grids = grids
        self._builder = builder
        self._published = published
        self._master_of = master_of
        self._prefetcher = prefetcher
        self._pyramids = pyramids
        self._publisher = publisher
        self._limiter = KeyedLimiter(max_running, max_waiting=MAX_WAITING)
        self._crowds: Counter[str] = Counter()
        """How many different tiles are asked for now, by version of their master."""
        self._single_flight: SingleFlight[bytes] = SingleFlight()
        self._hot: LRUCache[tuple[str, str], bytes] = LRUCache(hot_bytes, len)

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        """With the entity tag, and with the master's own tile where its place is known."""
        blob, job = planned.asset.blob, planned.job
        assert blob is not None, "routing chose a master"
        planned = replace(planned, etag=pixels_etag(blob.picture_tag, job, self._renderer.encoding))
        layout = self._renderer.masters.peek_prepared(self._master_of(planned.asset), job.box, job.size)
        if layout is None:
            return replace(planned, final=False)
        return replace(planned, stored=stored_tile(layout, job))

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        etag, blob = planned.etag, planned.asset.blob
        assert etag is not None and blob is not None, "the request is complete"  # noqa: PT018
        if unless and unless.hold(etag):
            raise NotModified(etag)
        name = (planned.asset.identifier, etag)
        data = self._hot.get(name)
        if data is not None:
            self._volume.in_use(blob)  # it is not evicted meanwhile: its other tiles will be asked for
        else:
            data = self._stored_or_pyramid_tile(blob, planned.job, planned.stored)
            if data is None:
                return None
            self._hot.put(name, data)
        return Answer(data, MEDIA["jpg"], etag, len(data), incomplete=self._renderer.masters.incomplete(blob))

    def purge(self, identifier: str) -> None:
        """Forget the tiles in memory of an image and its pages."""
        split = self._renderer.masters.templates.form.split
        image, _ = split(identifier)
        for name in [name for name in self._hot if split(name[0])[0] == image]:
            self._hot.pop(name)

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        if unless and planned.etag and unless.hold(planned.etag):
            raise NotModified(planned.etag)
        make = partial(self.render, planned.asset, job=planned.job, deadline=deadline)
        master, answer = await self._renderer.answer(planned, make)
        if self._publisher is not None and not planned.grant.is_personal:
            self._publisher.submit(planned.asset, master)
        trace().preparing = self._builder.is_building(master)
        if planned.stored is not None and isinstance(answer.body, bytes):
            self._hot.put((planned.asset.identifier, answer.etag), answer.body)
        return answer

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        return self._renderer.head(planned, unless=unless)

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        return await self._renderer.estimate(planned)

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        return None

    async def render(self, asset: Asset, master: Master, job: Job, *, deadline: Deadline) -> bytes:
        """What the job asks for. Raises `SourceError`, `MasterError`, `DecodeError`."""
        if self._grids.of(master.layout) is None:
            return await self._from_master(master, job, deadline)
        layout = self._renderer.masters.peek_prepared(master, job.box, job.size)
        if layout is not None and stored_tile(layout, job) is not None:  # nothing is cheaper, nor better
            return await self._from_master(master, job, deadline)
        if self._builder.is_off:  # there is one already, or none comes: nothing is waited for but a decoder
            data = await self._existing(asset, master, job, deadline) if _is_lossy(job) else None
            return data if data is not None else await self._from_master(master, job, deadline)
        key = (master.blob.version, job)
        try:
            return await self._single_flight.run(key, partial(self._render_expensive, asset, master, job, deadline))
        except (TimedOut, Preparing):
            if deadline.left_s < DECODE_RESERVE_S:
                raise
        # The first request for this tile had less time left than this one.
        return await self._single_flight.run(key, partial(self._render_expensive, asset, master, job, deadline))

    def _stored_or_pyramid_tile(self, blob: Blob, job: Job, stored: Stored | None) -> bytes | None:
        """The answer, if it is a tile in memory: some microseconds.

        `stored` is the master's own tile that is the answer, where there is one; else the pyramid's is meant.
        """
        if stored is None:
            return self._pyramids.cached(blob, job)
        found = self._volume.peek(blob, stored.spans)
        if found is None:
            return None
        if self._prefetcher is not None:
            self._prefetcher.record_cached(blob, job)
        return stored.assemble(found)

    async def _from_master(self, master: Master, job: Job, deadline: Deadline) -> bytes:
        data = await self._renderer.render(master, job, self._reader, lane="tile", deadline=deadline)
        if self._prefetcher is not None and (self._builder.is_off or self._grids.of(master.layout) is None):
            self._prefetcher.record(master, job)  # no pyramid will answer what is asked for next
        return data

    async def render_full(self, asset: Asset, master: Master, job: Job, *, deadline: Deadline) -> bytes | None:
        """The full region of a master, from its pyramid; None where that has none, or would lose by it.

        That of a large flat one is begun for the size that a viewer asks for as the smallest tile, not for a single
        picture of any other. Of others only that tile is taken.
        """
        grid = self._grids.of(master.layout)
        twice = Size(2 * job.size.width - 1, 2 * job.size.height - 1)
        if grid is None or not _is_lossy(job) or not master.layout.size.covers(twice):
            return None
        if not is_flat(master.layout):
            return await self.smallest_tile(asset, job, deadline=deadline)
        if grid.find(job.box, job.size) or self._builder.is_building(master):
            return await self._from_pyramid(asset, master, job, deadline)
        return await self._existing(asset, master, job, deadline)

    async def smallest_tile(self, asset: Asset, job: Job, *, deadline: Deadline) -> bytes | None:
        """The full region at the size of its pyramid's only tile of a level, undecoded; None where there is none.

        For an image that was just found.
        """
        if asset.blob is None or not job.plain or job.format != "jpg":
            return None
        master = self._master_of(asset)
        grid = self._grids.of(master.layout)
        if grid is None or grid.find(job.box, job.size) is None:
            return None
        return await self._existing(asset, master, job, deadline)

    async def _render_expensive(self, asset: Asset, master: Master, job: Job, deadline: Deadline) -> bytes:
        """A tile of an expensive master: from its pyramid, or else made beside some others."""
        version = master.blob.version
        lossy = _is_lossy(job)
        self._crowds[version] += 1
        try:
            for is_last in (False, True):
                if lossy and (data := await self._from_pyramid(asset, master, job, deadline)) is not None:
                    return data
                async with self._limiter.slot(version, deadline=deadline) as state:
                    if lossy and (data := await self._existing(asset, master, job, deadline)) is not None:
                        return data
                    # Those that came since may have made a pyramid the cheaper way for this tile, too.
                    if lossy and not is_last and self._is_crowded(master):
                        continue
                    # Decoders share the processors: the fewer tiles are made meanwhile, the sooner there is a pyramid.
                    async with state.alone if self._builder.is_building(master) else nullcontext():
                        return await self._from_master(master, job, deadline)
            raise AssertionError("the last turn ends with a picture or an error")
        finally:
            self._crowds[version] -= 1
            if not self._crowds[version]:
                del self._crowds[version]

    async def _from_pyramid(self, asset: Asset, master: Master, job: Job, deadline: Deadline) -> bytes | None:
        """The answer from a pyramid that exists, or is made now because that costs less; None if there is none.

        Raises `Preparing` where it is not far enough at the deadline.
        """
        # Many may have waited for it: decoders would refuse most of them at once.
        turn = partial(self._limiter.slot, master.blob.version, deadline=deadline)
        while (data := await self._existing(asset, master, job, deadline, turn)) is None:
            if not (await self._is_worth_it(master, job) and self._builder.begin(master)):
                self._builder.count_tiles(master)
                return None
            data = await self._builder.wait(master, job, deadline=deadline)
            if data is not None:
                return data
        return data

    async def _existing(
        self, asset: Asset, master: Master, job: Job, deadline: Deadline, turn: Turn = nullcontext
    ) -> bytes | None:
        """The answer from a pyramid: what is made of it already, the volume's, or a published one."""
        data = await self._builder.peek(master, job)
        if data is None:  # perhaps since it has just been published
            data = await self._pyramids.render(master, job, deadline=deadline, turn=turn)
        if data is None:
            data = await self._published.render(asset, master.blob, job, deadline=deadline, turn=turn)
        return data

    async def _is_worth_it(self, master: Master, job: Job) -> bool:
        """Whether to wait for a pyramid costs less than to make this tile, and those that others ask for now."""
        if self._is_crowded(master):
            return True
        if self._builder.is_off or master.layout.size.area < LARGE_PIXELS:
            return False
        grid = Grid(master.layout.size, self._grids.tile)
        is_whole = job.box.size == master.layout.size
        if is_flat(master.layout) and self._builder.is_building(master) and (is_whole or grid.find(job.box, job.size)):
            return True
        layout = await self._renderer.masters.prepared(master, job.box, job.size, self._reader)
        extract = await plan_extract(master.blob, layout, job.box, job.size, limits=self._renderer.limits)
        return sum(map(len, extract.spans)) > LARGE_PART * master.blob.size

    def _is_crowded(self, master: Master) -> bool:
        """Whether half as many tiles are asked for now as the picture has."""
        grid = Grid(master.layout.size, self._grids.tile)
        crowd = self._crowds[master.blob.version]
        return self._builder.is_enough(crowd) and 2 * crowd > grid.columns(0) * grid.rows(0)


def _is_lossy(job: Job) -> bool:
    """Whether a picture may be made of JPEGs."""
    return job.format in ("jpg", "webp", "avif") and job.quality != "bitonal"
