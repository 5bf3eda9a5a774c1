"""Single flight: a block that many readers want is fetched once on this machine.

A run of adjacent missing blocks is fetched in a task of its own. Its readers come and go; it stops only when all
have left and none came back for a while. Across processes the blocks' locks decide which one fetches; the others
poll whether the blocks have been published, whether the locks are free again (the kernel frees those of a dead
process), and whether the leader has had more time than it may have.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from special.errors import Unreachable
from special.observability import VOLUME_BLOCKS
from special.storage import Blob, Reader
from special.volume.blocks import runs
from special.volume.disk import VolumeDisk, uninterrupted
from special.volume.faults import record_fault
from special.volume.object_files import ObjectFiles

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05
"""Between two polls of what another process is fetching. Bounds the time until a dead one's work is taken over."""

_HIT, _FETCHED, _WAITED = (VOLUME_BLOCKS.labels(how) for how in ("hit", "fetched", "waited"))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long fetches may take, and how much memory."""

    run_bytes: int
    """Maximum number of bytes in one GET."""
    budget_bytes: int
    """Maximum number of bytes in memory, of all fetches together, that are not on disk yet."""
    leader_timeout_s: float
    """How long a process that fetches a block may take before others fetch it too."""
    linger_s: float
    """How long a fetch goes on when no reader waits for it any more."""
    failure_memory_s: float
    """How long a failure is the answer to later readers, and an object that found no space is read past the volume."""


class Budget:
    """A number of bytes that tasks share, first come, first served."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._free = limit_bytes
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size_bytes: int, *, timeout_s: float) -> bool:
        """Wait until that many bytes are free (or all, if it asks for more); False if that takes too long."""
        need = min(size_bytes, self._limit)
        if not self._queue and need <= self._free:
            self._free -= need
            return True
        granted = asyncio.get_running_loop().create_future()
        self._queue.append((need, granted))
        try:
            async with asyncio.timeout(timeout_s):
                await granted
        except (TimeoutError, asyncio.CancelledError) as error:
            # It may have been granted just now; if not, the next waiter may need less.
            self.give(0 if granted.cancelled() else need)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def give(self, size_bytes: int) -> None:
        self._free += min(size_bytes, self._limit)
        while self._queue:
            need, granted = self._queue[0]
            if not granted.done():
                if need > self._free:
                    return
                self._free -= need
                granted.set_result(None)
            self._queue.popleft()


class BlockRun:
    """A run of adjacent blocks that is being fetched."""

    def __init__(self, indices: range) -> None:
        self.indices = indices
        self.result: asyncio.Future[dict[int, bytes]] = asyncio.get_running_loop().create_future()
        self.readers = 0
        self.task: asyncio.Task[None] | None = None

    def fail(self, error: BaseException) -> None:
        """Raise this to every reader."""
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # there may be no reader left to retrieve it

    def abandon(self) -> None:
        """Stop, unless a reader waits or the bytes have come."""
        if not self.readers and not self.result.done() and self.task is not None:
            self.task.cancel()


Store = Callable[[int, Sequence[bytes]], Awaitable[None]]
"""Puts adjacent blocks from an index on into the volume; counts faults and raises none."""


class BlockFetcher:
    """Fetches missing blocks of one object."""

    def __init__(
        self, files: ObjectFiles, blob: Blob, *, limits: FetchLimits, budget: Budget, store: Store, disk: VolumeDisk
    ) -> None:
        self._files = files
        self._blocks = files.blocks
        self._blob = blob
        self._limits = limits
        self._budget = budget
        self._store = store
        self._disk = disk
        self._runs: dict[int, BlockRun] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Stop all fetches; readers that still wait get `Unreachable`."""
        for run in set(self._runs.values()):
            run.fail(Unreachable(f"the volume was closed while {self._blob.url} was being read"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(self, indices: Sequence[int], source: Reader) -> dict[int, bytes]:
        """Blocks from the disk or from the source. Raises what the source raises, also to those who joined."""
        missing = [index for index in indices if index not in self._runs]
        _WAITED.inc(len(indices) - len(missing))
        self.hits += len(indices) - len(missing)
        for adjacent in runs(missing, max(1, self._limits.run_bytes // self._blocks.block_bytes)):
            self._start(BlockRun(adjacent), source)
        fetching = {id(run): run for run in map(self._runs.__getitem__, indices)}.values()
        for run in fetching:
            run.readers += 1
        found: dict[int, bytes] = {}
        try:
            for run in fetching:
                if not run.result.done():
                    await asyncio.wait([run.result])
                if run.result.cancelled():  # abandoned just when we joined
                    return await self.fetch(indices, source)
                if (error := run.result.exception()) is not None:
                    raise copy.copy(error) from error
                found |= run.result.result()
        finally:
            for run in fetching:
                run.readers -= 1
                if not run.readers and not run.result.done():
                    asyncio.get_running_loop().call_later(self._limits.linger_s, run.abandon)
        return found

    def _count_hits(self, count: int) -> None:
        _HIT.inc(count)
        self.hits += count

    def _start(self, run: BlockRun, source: Reader) -> None:
        for index in run.indices:
            self._runs[index] = run
        task = run.task = self._track(self._bring(run, source))
        task.add_done_callback(lambda _: self._ended(task, run))

    def _track(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ended(self, task: asyncio.Task[None], run: BlockRun) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            self._forget(run)
            run.result.cancel()
        elif run.result.done():  # the bytes were delivered: a mistake in what comes after, not a fault
            self._forget(run)
            asyncio.get_running_loop().call_exception_handler({"message": "storing blocks failed", "exception": error})
        else:
            run.fail(error)
            asyncio.get_running_loop().call_later(self._limits.failure_memory_s, self._forget, run)

    def _forget(self, run: BlockRun) -> None:
        for index in run.indices:
            if self._runs.get(index) is run:
                del self._runs[index]

    async def _bring(self, run: BlockRun, source: Reader) -> None:
        size_bytes = len(self._blocks.span(run.indices))
        if not await self._budget.take(size_bytes, timeout_s=self._limits.leader_timeout_s):
            record_fault("slow", "the disk does not keep up with what is fetched")
            run.result.set_result(await self._fetch(run.indices, source))
            return
        try:
            await self._fill(run, source)
        finally:
            self._budget.give(size_bytes)

    async def _fill(self, run: BlockRun, source: Reader) -> None:
        """Read blocks from the disk; fetch and store those that are not there and that no other process fetches."""
        found: dict[int, bytes] = {}
        waiting: Sequence[int] = run.indices
        leader_ends_s = monotonic() + self._limits.leader_timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            mine = self._files.lock_blocks(waiting)
            try:
                # Tracked, since the files must stay open while the thread reads them.
                reading = self._track(self._disk.read(self._files.read_blocks, waiting))
                done, _ = await asyncio.wait([reading], timeout=self._disk.slow_s)
                if not done:
                    record_fault("slow", f"reading blocks of {self._blob.url} takes too long")
                    run.result.set_result(await self._fetch(run.indices, source))
                    return
                here = reading.result()
                self._count_hits(len(here))
                waiting = [index for index in waiting if index not in here]
                wanted: Sequence[int] = [index for index in mine if index not in here]
                if len(wanted) < len(waiting) and monotonic() > leader_ends_s:
                    leader_s = self._limits.leader_timeout_s
                    record_fault("locked", f"{self._blob.url} is being fetched for {leader_s} s")
                    wanted = waiting
                fetched = await self._fetch(wanted, source) if wanted else {}
                waiting = [index for index in waiting if index not in fetched]
                found |= here | fetched
                if not waiting:
                    run.result.set_result(found)
                for adjacent in runs(fetched, self._blocks.count):
                    await uninterrupted(self._store(adjacent.start, [fetched[index] for index in adjacent]))
            finally:
                self._files.unlock_blocks(mine)
            if not waiting:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def _fetch(self, indices: Sequence[int], source: Reader) -> dict[int, bytes]:
        """Sorted blocks out of the source: one GET for each run of adjacent ones."""
        wanted = runs(indices, len(indices))
        spans = [self._blocks.span(adjacent) for adjacent in wanted]
        bodies = await source.read(self._blob, spans)
        fetched: dict[int, bytes] = {}
        for adjacent, span, body in zip(wanted, spans, bodies, strict=True):
            if len(body) != len(span):
                raise Unreachable(f"{self._blob.url} gave {len(body)} bytes for {len(span)}")
            fetched |= self._blocks.split(adjacent, body)
        _FETCHED.inc(len(fetched))
        self.misses += len(fetched)
        return fetched
