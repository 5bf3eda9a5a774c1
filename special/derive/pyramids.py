"""Publishes pyramids of masters beside their renditions: each is decoded once in a collection's life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from special import formats
from special.codecs import subsampling
from special.derive.inputs import InputImage
from special.derive.outcome import Outcome, Work
from special.errors import MasterError
from special.formats.tiff import Grid, Place, Wanted
from special.images import Access, Master, Masters
from special.renditions import PyramidName, RenditionStore, Sidecar, pyramid_file
from special.serving import PyramidMaker, Tiles


@dataclass(frozen=True, slots=True)
class PyramidPublisher:
    """Makes, plans and tidies up published pyramids, an image at a time."""

    store: RenditionStore
    masters: Masters
    name: PyramidName
    pyramid_maker: PyramidMaker | None
    """None in a run that decodes nothing."""
    wanted: Wanted
    """Which masters get pyramids."""

    def publishing(self, work: Work, *, remake: bool) -> Work:
        """The same work, and then the image's pyramid, where its master wants one and has none, or with `remake`."""

        async def both(image: InputImage) -> Outcome:
            outcome = await work(image)
            if outcome.result not in ("made", "stood"):
                return outcome
            detail = await self.publish(image.identifier, remake=remake)
            if not detail:
                return outcome
            return replace(outcome, result="made", detail=", ".join(filter(None, (outcome.detail, detail))))

        return both

    def planning(self, work: Work) -> Work:
        """The same estimate, and what the image's pyramid would take."""

        async def both(image: InputImage) -> Outcome:
            outcome = await work(image)
            if outcome.result not in ("due", "stood"):
                return outcome
            stored = await self.store.reload(image.identifier)
            master = await self._master(image.identifier, stored.sidecar if stored else None)
            is_missing = (
                stored is None or stored.sidecar is None or not await self._is_there(stored.sidecar, image, master)
            )
            if not self._is_wanted(master) or not is_missing:
                return outcome
            size_bytes = pyramid_file.estimated_bytes(master.layout.size)
            detail = ", ".join(filter(None, (outcome.detail, f"a pyramid of about {size_bytes / 1e6:,.1f} MB")))
            return replace(outcome, result="due", detail=detail, planned_bytes=size_bytes)

        return both

    async def publish(self, identifier: str, *, remake: bool) -> str:
        """Publish an image's pyramid, and remove those of other versions or settings; what was done, in words.

        Two lists, and for a new one a write. Raises `SourceError`, `DecodeError`.
        """
        stored = await self.store.reload(identifier)
        sidecar = stored.sidecar if stored else None
        if sidecar is None:
            return ""
        master = await self._master(identifier, sidecar)
        if not self._is_wanted(master):
            return ""
        key, found = self._key(identifier, sidecar), await self.store.list_pyramids(identifier)
        strays = [it for it in found if it != key]
        for stray in strays:  # of an image that is restricted by now first of all
            await self.store.source.delete(stray)
        done = [f"{len(strays)} other pyramids removed"] if strays else []
        if key not in found or remake:
            try:
                data = await self._made(master)
            except MasterError as error:
                return ", ".join([*done, f"no pyramid ({error})"])
            await self.store.source.write(key, data, media=pyramid_file.MEDIA)
            done.append(f"a pyramid of {len(data) / 1e6:,.1f} MB")
        return ", ".join(done)

    async def _made(self, master: Master) -> bytes:
        assert self.pyramid_maker is not None, "a run that publishes has decoders"
        tiles: dict[Place, Sequence[bytes]] = {}

        async def put(made: Tiles) -> None:
            tiles.update(made)

        channels = await self.pyramid_maker.make(master, put)
        grid, sampling = Grid(master.layout.size, self.name.tile), subsampling(self.name.quality)
        return pyramid_file.assemble(grid, tiles, channels=channels, subsampling=sampling)

    async def _master(self, identifier: str, sidecar: Sidecar | None) -> Master:
        """The version that the side-car is of, else the current one: one GET of its headers."""
        if sidecar is None or sidecar.layout is None:
            return await self.masters.find(identifier)
        return Master(sidecar.blob(self.masters.root_of(sidecar.key)), formats.load(sidecar.layout))

    async def _is_there(self, sidecar: Sidecar, image: InputImage, master: Master) -> bool:
        return self._is_wanted(master) and self._key(image.identifier, sidecar) in await self.store.list_pyramids(
            image.identifier
        )

    def _is_wanted(self, master: Master) -> bool:
        return self.wanted(master.layout, Grid(master.layout.size, self.name.tile))

    def _key(self, identifier: str, sidecar: Sidecar) -> str:
        return current_key(self.name, identifier, sidecar)


def current_key(name: PyramidName, identifier: str, sidecar: Sidecar) -> str:
    """Where the pyramid of what a side-car describes is."""
    access: Access = "open" if sidecar.max_unauthorised is None else "auth"
    return name.key(identifier, sidecar.blob(""), access)
