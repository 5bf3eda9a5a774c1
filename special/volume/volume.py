"""A bounded local disk in front of a store, shared by all processes of a machine.

Whoever reads a blob through the volume gets the same bytes and the same errors as from the
source itself, and most of the time sooner. A block that is here is read in the event loop,
if it is in the page cache; everything that may wait happens in a `Flight`. Whatever goes
wrong on the local disk ends in a read from the source, and in a count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from types import TracebackType
from typing import Self, TypeVar

from special.errors import ConfigurationError
from special.observability import VOLUME_BLOCKS
from special.storage import Blob, Reader, Span
from special.volume.admin import VolumeStat, survey
from special.volume.block_fetch import BlockFetcher, Budget, FetchLimits, uninterrupted
from special.volume.blocks import PAGE_BYTES, BlockMap
from special.volume.directory import Full, Step, VolumeDirectory
from special.volume.faults import FAULTS, record_fault
from special.volume.ledger import Use
from special.volume.membership import VolumeTerms
from special.volume.metadata import MetadataStore
from special.volume.object_files import ObjectFiles
from special.volume.prefetch import BlockPrefetcher, PrefetchState
from special.volume.pyramids import Pyramids

DEFAULT_BLOCK_BYTES = 64 << 10
"""As quick as 128 KiB and 256 KiB at 20 ms per request, for 20 % and 60 % fewer bytes, and the cheapest to read warm.

Smaller blocks cost more GETs. See tests/bench/volume_blocks.py."""
LEAST_BYTES = 8 << 20
"""Below this the ledger alone would take most of the room."""
PEEK_BYTES = 1 << 20
"""At most so many bytes are read and checked in the event loop at once: some 100 µs."""
UPKEEP_S = 1.0
"""How often uses are written down, idle objects let go, and a broken directory tried again (ten times as long)."""
IDLE_S = 60.0
"""After so long without a read an object's files are closed."""
ADMISSION_S = 5.0
"""A disk that needs longer to open an object is passed by: as long as a leader that hangs.

Shorter, and a flood on a machine without a free processor goes past the volume, each reader with GETs of its own."""

Key = tuple[str, str, int]
T = TypeVar("T")

_HIT, _PASSED = (VOLUME_BLOCKS.labels(how) for how in ("hit", "passed"))


@dataclass(slots=True)
class OpenObject:
    """One object in this process."""

    shelf: ObjectFiles
    """Its files."""
    flights: BlockFetcher
    """What is on its way to them."""
    readers: int = 0
    """Reads under way."""
    hits: int = 0
    """Blocks found in memory since the last upkeep."""
    used_s: float = 0.0
    """When it was last read, by the monotonic clock."""
    stock: PrefetchState = field(default_factory=PrefetchState)
    """What was wanted of it, and what lies ready."""

    @property
    def idle(self) -> bool:
        """Whether nobody needs the files just now."""
        return not self.readers and not self.flights


class Volume:
    """A directory of a declared size. Open it before reading, in the event loop that reads.

    Several processes may open one directory. `at` is called before each named step, for tests
    that stop a process or fail a disk there.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size_bytes: int,
        block_bytes: int = DEFAULT_BLOCK_BYTES,
        run_bytes: int = 8 << 20,
        budget_bytes: int = 64 << 20,
        patience_s: float = 5.0,
        linger_s: float = 1.0,
        failure_memory_s: float = 0.25,
        max_open: int = 128,
        at: Callable[[Step], None] = lambda step: None,
    ) -> None:
        if size_bytes < LEAST_BYTES:
            raise ConfigurationError(
                f"a volume (volume_size) needs at least {LEAST_BYTES >> 20} MiB, not {size_bytes} bytes"
            )
        if block_bytes < PAGE_BYTES or block_bytes % PAGE_BYTES:
            raise ConfigurationError(f"a block is a multiple of {PAGE_BYTES} bytes, not {block_bytes}")
        self.directory = directory
        self.broken: str | None = "not open"
        self._terms = VolumeTerms(size_bytes, block_bytes)
        self._manners = FetchLimits(run_bytes, budget_bytes, patience_s, linger_s, failure_memory_s)
        self._max_open = max_open
        self._stacks = VolumeDirectory(directory, at=at)
        self._objects: dict[Key, OpenObject] = {}
        self._retired: list[OpenObject] = []
        self._opening: dict[Key, asyncio.Task[OpenObject | None]] = {}
        self._refused: dict[Key, float] = {}
        self._budget = Budget(budget_bytes)
        self._scratch = bytearray(block_bytes)
        self._upkeep: asyncio.Task[None] | None = None
        self.pyramids = Pyramids(self)
        self.prefetcher = BlockPrefetcher(self)
        self.metadata = MetadataStore(self)

    async def open(self) -> None:
        """Join the directory and bring it to its size.

        Raises `ConfigurationError` where another server uses it on other terms. A disk that
        fails is passed by until it works: `broken` says why.
        """
        self._disk = ThreadPoolExecutor(1, "volume-disk")
        self._threads = ThreadPoolExecutor(4, "volume-read")
        try:
            await self._join()
        except BaseException:
            self._shut_down()
            raise
        self._upkeep = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Stop what is on its way, write down what was used, and leave the directory."""
        if self._upkeep is None:
            return
        await self.metadata.close()
        self._upkeep.cancel()
        await asyncio.gather(self._upkeep, *self._opening.values(), return_exceptions=True)
        self._upkeep = None
        worked, self.broken = self.broken is None, "closed"
        uses = self._uses()
        for key, open_object in list(self._objects.items()):
            await open_object.flights.close()
            self._drop(key, open_object)
        if worked:
            await self._guarded(self._stacks.touch, uses)
        for open_object in self._retired:
            await open_object.flights.close()
            open_object.shelf.close()
        await self._on_disk(self._stacks.leave)
        self._shut_down()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    def reader(self, source: Reader) -> Reader:
        """The source's blobs, through the volume."""
        return VolumeReader(self, source)

    async def read(self, source: Reader, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, in order. What is missing costs one GET for each run of adjacent blocks.

        Raises what `source.read` raises.
        """
        if not spans:
            return []
        open_object = self.in_use(blob) or await self._admit(blob)
        if open_object is None or any(span.stop > blob.size for span in spans):
            _PASSED.inc(len(spans))
            return await source.read(blob, spans)
        blocks = open_object.shelf.blocks
        wanted, found = self._look(open_object, spans)
        if len(found) < len(wanted):
            missing = [index for index in wanted if index not in found]
            open_object.readers += 1
            try:
                with self.prefetcher.foreground_read():
                    found |= await open_object.flights.fetch(missing, source)
            finally:
                open_object.readers -= 1
        return [blocks.cut(span, found) for span in spans]

    def peek(self, blob: Blob, spans: Sequence[Span]) -> list[bytes] | None:
        """The bytes of each span, if all of them are in memory: nothing is waited for."""
        open_object = self.in_use(blob)
        if open_object is None or any(span.stop > blob.size for span in spans):
            return None
        wanted, found = self._look(open_object, spans)
        return [open_object.shelf.blocks.cut(span, found) for span in spans] if len(found) == len(wanted) else None

    def _look(self, open_object: OpenObject, spans: Sequence[Span]) -> tuple[Sequence[int], dict[int, bytes]]:
        """The blocks that the spans touch, and those of them that are in memory."""
        blocks = open_object.shelf.blocks
        if len(spans) == 1:
            wanted: Sequence[int] = blocks.indices(spans[0])
        else:
            wanted = sorted({index for span in spans for index in blocks.indices(span)})
        self.prefetcher.record_access(open_object, wanted)
        found = open_object.shelf.peek(wanted[: PEEK_BYTES // blocks.block_bytes + 1], self._scratch)
        _HIT.inc(len(found))
        open_object.hits += len(found)
        return wanted, found

    def in_use(self, blob: Blob) -> OpenObject | None:
        """The object, if it is open here, and held: it is not evicted within the next `UPKEEP_S`."""
        open_object = self._objects.get((blob.url, blob.etag, blob.size))
        if open_object is None or not open_object.shelf.acquire():
            return None
        open_object.used_s = monotonic()
        return open_object

    async def hold(self, blob: Blob) -> OpenObject | None:
        """The object, opened if need be, and held as by `in_use`; None if it has to go past the volume."""
        return self.in_use(blob) or await self._admit(blob)

    async def spend(self, shelf: ObjectFiles, need: int, write: Callable[[], None]) -> bool:
        """Let `write` take so many bytes of the disk for an object; False if there is no room. Raises `FAULTS`."""
        return await self._with_room(self._stacks.spend, shelf.blocks, need, write) is True

    async def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes fit without anything being evicted."""
        return await self._guarded(self._stacks.has_room, size_bytes) is True

    async def weigh(self, shelf: ObjectFiles) -> None:
        """Files of an object were removed: give back what they took."""
        await self._guarded(self._stacks.weigh, shelf.blocks)

    async def consult(self, question: Callable[[VolumeDirectory], T]) -> T | None:
        """An answer out of the books, in the disk thread; None while the volume is `broken`, or they are."""
        return None if self.broken is not None else await self._guarded(question, self._stacks)

    async def stat(self, *, top: int = 10) -> VolumeStat | None:
        """How the volume does; None while it is `broken`. What was read in the last second may be missing."""
        if self.broken is not None:
            return None
        return await self._guarded(lambda: survey(self._stacks, top=top))

    async def _admit(self, blob: Blob) -> OpenObject | None:
        """The object, open and held; None if it has to go past the volume."""
        key = (blob.url, blob.etag, blob.size)
        if self.broken is not None or not blob.size or self._refused.get(key, 0.0) > monotonic():
            return None
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._open_object(key, blob))
            task.add_done_callback(lambda _: self._opening.pop(key))
        done, _ = await asyncio.wait([task], timeout=ADMISSION_S)
        if not done:
            record_fault("slow", f"opening {blob.url} takes more than {ADMISSION_S} s")
            return None
        open_object = task.result()
        return open_object if open_object is not None and open_object.shelf.acquire() else None

    async def _open_object(self, key: Key, blob: Blob) -> OpenObject | None:
        if (lost := self._objects.get(key)) is not None:  # evicted by another process
            self._drop(key, lost)
        blocks = BlockMap.of(blob, self._terms.block_bytes)
        loop = asyncio.get_running_loop()
        shelf: ObjectFiles | None = None
        try:
            shelf = await uninterrupted(loop.run_in_executor(self._threads, self._stacks.find, blocks))
            if shelf is None and await self._on_disk(self._stacks.fits, blocks):
                shelf = await self._with_room(self._stacks.admit, blocks)
        except FAULTS as error:
            record_fault("open", error)
        if shelf is None:
            self._refused[key] = monotonic() + self._manners.failure_memory_s
            return None
        open_object = OpenObject(shelf, self._flights(shelf, blob), used_s=monotonic())
        self._objects[key] = open_object
        if len(self._objects) > self._max_open:
            self._close_idle(len(self._objects) - self._max_open)
        return open_object

    def _flights(self, shelf: ObjectFiles, blob: Blob) -> BlockFetcher:
        async def store(first: int, blocks: Sequence[bytes]) -> None:
            try:
                await self._with_room(self._stacks.store, shelf, first, blocks)
            except FAULTS as error:
                record_fault("write", error)

        return BlockFetcher(shelf, blob, manners=self._manners, budget=self._budget, store=store, threads=self._threads)

    async def _with_room(self, work: Callable[..., T], *args: object) -> T | None:
        """Disk work that may need room: what is idle here is let go for it. None if even so there is none."""
        try:
            return await self._on_disk(work, *args)
        except Full as error:
            idle = [each.shelf for each in self._objects.values() if each.idle and each.shelf.held]
            if not idle:
                record_fault("full", error)
                return None
        for shelf in idle:
            shelf.release()
        self._stacks.look_again()
        try:
            return await self._on_disk(work, *args)
        except Full as error:
            record_fault("full", error)
            return None

    async def _join(self) -> None:
        try:
            await self._on_disk(self._stacks.join, self._terms)
        except FAULTS as error:
            record_fault("open", error)
            self.broken = f"{self.directory}: {error}"
        else:
            self.broken = None

    async def _keep_up(self) -> None:
        """Upkeep, every second."""
        retry = monotonic() + 10 * UPKEEP_S
        while True:
            await asyncio.sleep(UPKEEP_S)
            now = monotonic()
            self._close_retired()
            self._refused = {key: until for key, until in self._refused.items() if until > now}
            if self.broken is None:
                await self._guarded(self._stacks.touch, self._uses())
                for key, open_object in list(self._objects.items()):
                    if not open_object.idle or open_object.used_s > now - UPKEEP_S:
                        continue
                    if open_object.used_s < now - IDLE_S or open_object.shelf.gone:
                        self._drop(key, open_object)
                    elif open_object.shelf.held:
                        open_object.shelf.release()
            elif now > retry:
                retry = now + 10 * UPKEEP_S
                with suppress(ConfigurationError):  # another server is there by now, on other terms
                    await self._join()

    def _close_idle(self, count: int) -> None:
        """Close the files of the objects that have been idle longest."""
        idle = sorted((item for item in self._objects.items() if item[1].idle), key=lambda item: item[1].used_s)
        for key, open_object in idle[:count]:
            self._drop(key, open_object)

    def _drop(self, key: Key, open_object: OpenObject) -> None:
        """Forget an object; its files are closed when its last reader and flight have gone."""
        self._objects.pop(key, None)
        self._retired.append(open_object)
        self._close_retired()

    def _close_retired(self) -> None:
        for open_object in self._retired:
            if open_object.idle:
                open_object.shelf.close()
        self._retired = [open_object for open_object in self._retired if not open_object.idle]

    def _uses(self) -> list[Use]:
        """What was read since the last call."""
        now_s, now = time(), monotonic()
        uses: list[Use] = []
        for open_object in self._objects.values():
            flights = open_object.flights
            hits, misses = open_object.hits + flights.hits, flights.misses
            if hits or misses:
                used_s = now_s - (now - open_object.used_s)
                uses.append(Use(open_object.shelf.blocks.name, used_s, hits, misses))
                open_object.hits = flights.hits = flights.misses = 0
        return uses

    async def _guarded(self, work: Callable[..., T], *args: object) -> T | None:
        """Work on the books that nobody waits for."""
        try:
            return await self._on_disk(work, *args)
        except FAULTS as error:
            record_fault("ledger", error)
            return None

    async def _on_disk(self, work: Callable[..., T], *args: object) -> T:
        """The one hop to the one thread that writes to the disk."""
        return await uninterrupted(asyncio.get_running_loop().run_in_executor(self._disk, work, *args))

    def _shut_down(self) -> None:
        self._disk.shutdown()
        self._threads.shutdown()


@dataclass(frozen=True, slots=True)
class VolumeReader:
    """A `Reader` of a source's blobs, through a volume."""

    volume: Volume
    """What is asked first."""
    source: Reader
    """Where the rest comes from."""

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        return await self.volume.read(self.source, blob, spans)
