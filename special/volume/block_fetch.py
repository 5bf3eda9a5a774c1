"""Single flight: however many readers want a block, it is fetched once on this machine.

A flight is one run of missing blocks on its way, in a task of its own: its readers come and
go, and only when all have left, and nobody came back for a while, does it stop. Across processes
the blocks' locks decide who fetches; the others look again and again whether the blocks have
been published, whether the locks have come free (the kernel frees those of the dead), and
whether their patience with a leader that hangs is at an end.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from special.errors import Unreachable
from special.observability import VOLUME_BLOCKS
from special.storage import Blob, Reader
from special.volume.blocks import runs
from special.volume.faults import record_fault
from special.volume.object_files import ObjectFiles

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05
"""Between two looks at what another process is fetching. Bounds the time until a dead one's work is taken over."""

_HIT, _FETCHED, _WAITED = (VOLUME_BLOCKS.labels(how) for how in ("hit", "fetched", "waited"))


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How patient flights are, and how much they take."""

    run_bytes: int
    """At most so many bytes in one GET."""
    budget_bytes: int
    """At most so many bytes of all flights in memory that are not on disk yet."""
    patience_s: float
    """How long a process that fetches a block may take before others fetch it too."""
    linger_s: float
    """How long a flight goes on when nobody waits for it any more."""
    failure_memory_s: float
    """How long a failure is the answer to those who come after it, and an object that found no room goes past."""


class Budget:
    """Bytes to be shared out, first come, first served."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._free = limit_bytes
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size_bytes: int, *, patience_s: float) -> bool:
        """Wait until so many bytes are free (or all there are, if it is more); False if that takes too long."""
        need = min(size_bytes, self._limit)
        if not self._queue and need <= self._free:
            self._free -= need
            return True
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((need, turn))
        try:
            async with asyncio.timeout(patience_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            # our turn may have come just now; if not, whoever is behind us may fit where we did not
            self.give(0 if turn.cancelled() else need)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def give(self, size_bytes: int) -> None:
        """Give back what was taken."""
        self._free += min(size_bytes, self._limit)
        while self._queue:
            need, turn = self._queue[0]
            if not turn.done():
                if need > self._free:
                    return
                self._free -= need
                turn.set_result(None)
            self._queue.popleft()


class BlockRun:
    """One run of blocks on its way."""

    def __init__(self, indices: range) -> None:
        self.indices = indices
        self.landed: asyncio.Future[dict[int, bytes]] = asyncio.get_running_loop().create_future()
        self.readers = 0
        self.task: asyncio.Task[None] | None = None

    def fail(self, error: BaseException) -> None:
        """Every reader gets this."""
        if not self.landed.done():
            self.landed.set_exception(error)
            self.landed.exception()  # there may be no reader left to take note of it

    def abandon(self) -> None:
        """Stop, unless somebody waits or the bytes are here."""
        if not self.readers and not self.landed.done() and self.task is not None:
            self.task.cancel()


Store = Callable[[int, Sequence[bytes]], Awaitable[None]]
"""Puts adjacent blocks from an index on into the volume; passes faults by."""


class BlockFetcher:
    """What is on its way for one object."""

    def __init__(
        self, shelf: ObjectFiles, blob: Blob, *, manners: FetchLimits, budget: Budget, store: Store, threads: Executor
    ) -> None:
        self._shelf = shelf
        self._blocks = shelf.blocks
        self._blob = blob
        self._manners = manners
        self._budget = budget
        self._store = store
        self._threads = threads
        self._flights: dict[int, BlockRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Stop them all; whoever still waits is told so."""
        for flight in set(self._flights.values()):
            flight.fail(Unreachable(f"the volume was closed while {self._blob.url} was being read"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(self, indices: Sequence[int], source: Reader) -> dict[int, bytes]:
        """Blocks from the disk or from the source. Raises what the source raises, also to those who joined."""
        missing = [index for index in indices if index not in self._flights]
        _WAITED.inc(len(indices) - len(missing))
        self.hits += len(indices) - len(missing)
        for run in runs(missing, max(1, self._manners.run_bytes // self._blocks.block_bytes)):
            self._start(BlockRun(run), source)
        flights = {id(flight): flight for flight in map(self._flights.__getitem__, indices)}.values()
        for flight in flights:
            flight.readers += 1
        found: dict[int, bytes] = {}
        try:
            for flight in flights:
                if not flight.landed.done():
                    await asyncio.wait([flight.landed])
                if flight.landed.cancelled():  # abandoned just when we joined
                    return await self.fetch(indices, source)
                if (error := flight.landed.exception()) is not None:
                    raise copy.copy(error) from error
                found |= flight.landed.result()
        finally:
            for flight in flights:
                flight.readers -= 1
                if not flight.readers and not flight.landed.done():
                    asyncio.get_running_loop().call_later(self._manners.linger_s, flight.abandon)
        return found

    def _count_hits(self, count: int) -> None:
        _HIT.inc(count)
        self.hits += count

    def _start(self, flight: BlockRun, source: Reader) -> None:
        for index in flight.indices:
            self._flights[index] = flight
        task = flight.task = asyncio.create_task(self._fly(flight, source))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(task, flight))

    def _ended(self, task: asyncio.Task[None], flight: BlockRun) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            self._forget(flight)
            flight.landed.cancel()
        elif flight.landed.done():  # the bytes were delivered: a mistake in what comes after, not a fault
            self._forget(flight)
            asyncio.get_running_loop().call_exception_handler({"message": "storing blocks failed", "exception": error})
        else:
            flight.fail(error)
            asyncio.get_running_loop().call_later(self._manners.failure_memory_s, self._forget, flight)

    def _forget(self, flight: BlockRun) -> None:
        for index in flight.indices:
            if self._flights.get(index) is flight:
                del self._flights[index]

    async def _fly(self, flight: BlockRun, source: Reader) -> None:
        size_bytes = len(self._blocks.span(flight.indices))
        if not await self._budget.take(size_bytes, patience_s=self._manners.patience_s):
            record_fault("slow", "the disk does not keep up with what is fetched")
            flight.landed.set_result(await self._fetch(flight.indices, source))
            return
        try:
            await self._fill(flight, source)
        finally:
            self._budget.give(size_bytes)

    async def _fill(self, flight: BlockRun, source: Reader) -> None:
        """Blocks from the disk, and into it: those that are not there, and that nobody else is fetching, are ours."""
        loop = asyncio.get_running_loop()
        found: dict[int, bytes] = {}
        waiting: Sequence[int] = flight.indices
        patience_ends = monotonic() + self._manners.patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            mine = self._shelf.lock_blocks(waiting)
            try:
                here = await uninterrupted(loop.run_in_executor(self._threads, self._shelf.read_blocks, waiting))
                self._count_hits(len(here))
                waiting = [index for index in waiting if index not in here]
                wanted: Sequence[int] = [index for index in mine if index not in here]
                if len(wanted) < len(waiting) and monotonic() > patience_ends:
                    record_fault("locked", f"{self._blob.url} is being fetched for {self._manners.patience_s} s")
                    wanted = waiting
                fetched = await self._fetch(wanted, source) if wanted else {}
                waiting = [index for index in waiting if index not in fetched]
                found |= here | fetched
                if not waiting:
                    flight.landed.set_result(found)
                for run in runs(fetched, self._blocks.count):
                    await uninterrupted(self._store(run.start, [fetched[index] for index in run]))
            finally:
                self._shelf.unlock_blocks(mine)
            if not waiting:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def _fetch(self, indices: Sequence[int], source: Reader) -> dict[int, bytes]:
        """Sorted blocks out of the source: one GET for each run of adjacent ones."""
        wanted = runs(indices, len(indices))
        spans = [self._blocks.span(run) for run in wanted]
        bodies = await source.read(self._blob, spans)
        fetched: dict[int, bytes] = {}
        for run, span, body in zip(wanted, spans, bodies, strict=True):
            if len(body) != len(span):
                raise Unreachable(f"{self._blob.url} gave {len(body)} bytes for {len(span)}")
            fetched |= self._blocks.split(run, body)
        _FETCHED.inc(len(fetched))
        self.misses += len(fetched)
        return fetched


async def uninterrupted(work: Awaitable[T]) -> T:
    """Wait for work that must not be cut short; a cancellation counts when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
