"""The objects whose files this process has open: opened once, protected while in use, closed when idle.

An object that is protected (a shared lock on its map) is not evicted, by any process. The files of an object that
was evicted or closed stay open until its last reader and its last fetch are over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TypeVar

from special.storage import Blob
from special.volume.block_fetch import BlockFetcher, Budget, FetchLimits
from special.volume.blocks import BlockMap, object_url
from special.volume.directory import Full
from special.volume.disk import VolumeDisk
from special.volume.faults import FAULTS, record_fault
from special.volume.ledger import Use
from special.volume.object_files import ObjectFiles
from special.volume.prefetch_state import PrefetchState

PROTECTED_S = 1.0
"""How long an object is protected from eviction after it was last read, at least."""
IDLE_S = 60.0
"""How long an object's files stay open after it was last read."""

Key = tuple[str, str, int]
T = TypeVar("T")


@dataclass(slots=True)
class OpenObject:
    """One object in this process."""

    files: ObjectFiles
    fetcher: BlockFetcher
    """Brings missing blocks into the files."""
    readers: int = 0
    """Number of reads that are going on."""
    hits: int = 0
    """Blocks that were found in memory since `OpenObjects.take_uses`."""
    used_s: float = 0.0
    """When it was last read, by the monotonic clock."""
    prefetch_state: PrefetchState = field(default_factory=PrefetchState)

    @property
    def idle(self) -> bool:
        """Whether no reader and no fetch needs the files now."""
        return not self.readers and not self.fetcher

    @contextmanager
    def reading(self) -> Iterator[ObjectFiles]:
        """The time in which the files stay open, and protected."""
        self.readers += 1
        try:
            yield self.files
        finally:
            self.readers -= 1


class OpenObjects:
    """The open objects of one volume."""

    def __init__(self, disk: VolumeDisk, *, limits: FetchLimits, max_open: int, name_of: Callable[[str], str]) -> None:
        self._disk = disk
        self._name_of = name_of
        self._limits = limits
        self._max_open = max_open
        self._budget = Budget(limits.budget_bytes)
        self._objects: dict[Key, OpenObject] = {}
        self._retired: list[OpenObject] = []
        self._opening: dict[Key, asyncio.Task[OpenObject | None]] = {}
        self._refused_until: dict[Key, float] = {}

    def __iter__(self) -> Iterator[OpenObject]:
        return iter(self._objects.values())

    def get(self, blob: Blob) -> OpenObject | None:
        """The object, if it is open here: it is protected from eviction for the next `PROTECTED_S`."""
        open_object = self._objects.get(_key(blob))
        if open_object is None or not open_object.files.acquire():
            return None
        open_object.used_s = monotonic()
        return open_object

    async def open(self, blob: Blob) -> OpenObject | None:
        """The object, opened if need be, and protected as by `get`; None if it has to be read past the volume."""
        if (open_object := self.get(blob)) is not None:
            return open_object
        if not blob.size or self._refused_until.get(_key(blob), 0.0) > monotonic():
            return None
        open_object = await self._disk.attempt(f"opening {blob.url}", lambda: self._opened(blob))
        return open_object if open_object is not None and open_object.files.acquire() else None

    async def reserve_and_write(self, files: ObjectFiles, need: int, write: Callable[[], None]) -> bool:
        """Let `write` take that many bytes of the disk for an object; False if they are not free. Raises `FAULTS`."""
        return await self._with_space(self._disk.directory.reserve_and_write, files.blocks, need, write) is True

    async def weigh(self, files: ObjectFiles) -> None:
        """Files of an object were removed: give back what they took."""
        await self._disk.guarded(self._disk.directory.weigh, files.blocks)

    def maintain(self) -> None:
        """Close what has been idle for long or was evicted, and let be evicted what was not read lately."""
        now = monotonic()
        self._close_retired()
        self._refused_until = {key: until for key, until in self._refused_until.items() if until > now}
        for key, open_object in list(self._objects.items()):
            if not open_object.idle or open_object.used_s > now - PROTECTED_S:
                continue
            if open_object.used_s < now - IDLE_S or open_object.files.gone:
                self._retire(key)
            elif open_object.files.protected:
                open_object.files.release()

    def retire_all(self) -> None:
        """Forget all objects; their files are closed when they are idle."""
        for key in list(self._objects):
            self._retire(key)

    def take_uses(self) -> list[Use]:
        """What was read since the last call."""
        now_s, now = time(), monotonic()
        uses: list[Use] = []
        for open_object in self:
            fetcher = open_object.fetcher
            hits, misses = open_object.hits + fetcher.hits, fetcher.misses
            if hits or misses:
                used_s = now_s - (now - open_object.used_s)
                uses.append(Use(open_object.files.blocks.name, used_s, hits, misses))
                open_object.hits = fetcher.hits = fetcher.misses = 0
        return uses

    async def close(self) -> None:
        """Stop what is being fetched, and close all files."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self.retire_all()
        for open_object in self._retired:
            await open_object.fetcher.close()
        await self._disk.finish()
        for open_object in self._retired:
            open_object.files.close()

    def _opened(self, blob: Blob) -> asyncio.Task[OpenObject | None]:
        key = _key(blob)
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._open_files(blob))
            task.add_done_callback(lambda _: self._opening.pop(key))
        return task

    async def _open_files(self, blob: Blob) -> OpenObject | None:
        key = _key(blob)
        if key in self._objects:  # evicted by another process
            self._retire(key)
        blocks = BlockMap(self._name_of(blob.url), blob.etag, blob.size, self._disk.terms.block_bytes)
        directory = self._disk.directory
        files: ObjectFiles | None = None
        try:
            files = await self._disk.read(directory.find, blocks)
            if files is None and await self._disk.write(directory.fits, blocks):
                files = await self._with_space(directory.admit, blocks)
        except FAULTS as error:
            record_fault("open", error)
        if files is None:
            self._refused_until[key] = monotonic() + self._limits.failure_memory_s
            return None
        open_object = OpenObject(files, self._fetcher(files, blob), used_s=monotonic())
        self._objects[key] = open_object
        if len(self._objects) > self._max_open:
            self._close_idle(len(self._objects) - self._max_open)
        return open_object

    def _fetcher(self, files: ObjectFiles, blob: Blob) -> BlockFetcher:
        async def store(first: int, blocks: Sequence[bytes]) -> None:
            try:
                await self._with_space(self._disk.directory.store, files, first, blocks)
            except FAULTS as error:
                record_fault("write", error)

        return BlockFetcher(files, blob, limits=self._limits, budget=self._budget, store=store, disk=self._disk)

    async def _with_space(self, work: Callable[..., T], *args: object) -> T | None:
        """Do disk work that may need space: idle objects may be evicted for it. None if even so there is not enough."""
        try:
            return await self._disk.write(work, *args)
        except Full as error:
            idle = [each.files for each in self if each.idle and each.files.protected]
            if not idle:
                record_fault("full", error)
                return None
        for files in idle:
            files.release()
        self._disk.directory.forget_full()
        try:
            return await self._disk.write(work, *args)
        except Full as error:
            record_fault("full", error)
            return None

    def _close_idle(self, count: int) -> None:
        """Close the files of the objects that have been idle longest."""
        idle = sorted((item for item in self._objects.items() if item[1].idle), key=lambda item: item[1].used_s)
        for key, _ in idle[:count]:
            self._retire(key)

    def retire(self, url: str) -> None:
        """Forget all versions of an object, and its pages, which are opened again when they are next read."""
        for key in [key for key in self._objects if url in (key[0], object_url(key[0]))]:
            self._retire(key)

    def _retire(self, key: Key) -> None:
        """Forget an object; its files are closed when its last reader and fetch are over."""
        self._retired.append(self._objects.pop(key))
        self._close_retired()

    def _close_retired(self) -> None:
        for open_object in self._retired:
            if open_object.idle:
                open_object.files.close()
        self._retired = [open_object for open_object in self._retired if not open_object.idle]


def _key(blob: Blob) -> Key:
    return blob.url, blob.etag, blob.size
