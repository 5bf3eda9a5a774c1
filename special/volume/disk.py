"""The threads in which a volume works on its directory, and what it does while the disk is slow.

A request must never wait for a thread that cannot be interrupted: it waits for work in a task of its own
(`attempt`), which it can leave at once and which goes on without it. A disk that does not answer in time
is bypassed, also by later requests, until it has answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from special.errors import ConfigurationError
from special.volume.directory import VolumeDirectory
from special.volume.faults import FAULTS, record_fault
from special.volume.membership import VolumeTerms

T = TypeVar("T")


class VolumeDisk:
    """A volume's directory with one thread that changes it and four that read its files."""

    def __init__(self, directory: VolumeDirectory, terms: VolumeTerms, *, slow_s: float) -> None:
        self.directory = directory
        self.terms = terms
        self.slow_s = slow_s
        """How long a reader waits for the disk."""
        self.broken: str | None = "not open"
        """Why the directory cannot be used; None if it can."""
        self._running: dict[asyncio.Future[Any], float] = {}
        self._attempts: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        self._writer = ThreadPoolExecutor(1, "volume-disk")
        self._readers = ThreadPoolExecutor(4, "volume-read")

    async def join(self) -> None:
        """Enter the directory. Raises `ConfigurationError`; a disk that fails makes it `broken`."""
        try:
            await self.write(self.directory.join, self.terms)
        except FAULTS as error:
            record_fault("open", error)
            self.broken = f"{self.directory.directory}: {error}"
        except ConfigurationError as error:
            self.broken = str(error)
            raise
        else:
            self.broken = None

    async def finish(self) -> None:
        """Wait for the attempts whose callers have left."""
        await asyncio.gather(*self._attempts, return_exceptions=True)

    def stop(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()

    @property
    def is_stuck(self) -> bool:
        """Whether any work in a thread has been taking, or waiting, for more than `slow_s`."""
        return bool(self._running) and next(iter(self._running.values())) < monotonic() - self.slow_s

    async def read(self, work: Callable[..., T], *args: object) -> T:
        """Run work in one of the reading threads. A cancellation counts when it is done."""
        return await self._run(self._readers, work, *args)

    async def write(self, work: Callable[..., T], *args: object) -> T:
        """Run work in the one thread that changes the directory. A cancellation counts when it is done."""
        return await self._run(self._writer, work, *args)

    async def guarded(self, work: Callable[..., T], *args: object) -> T | None:
        """The same, for work on the ledger that may fail: a fault is counted, and None returned."""
        try:
            return await self.write(work, *args)
        except FAULTS as error:
            record_fault("ledger", error)
            return None

    async def attempt(self, what: str, work: Callable[[], Awaitable[T | None]]) -> T | None:
        """The result of work in a task of its own; None while the disk is broken or slow.

        A caller that is cancelled leaves at once; the work goes on until it is done.
        """
        if self.broken is not None or self.is_stuck:
            return None
        task = asyncio.ensure_future(work())
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        done, _ = await asyncio.wait([task], timeout=self.slow_s)
        if not done:
            record_fault("slow", f"{what} takes more than {self.slow_s} s")
            return None
        return task.result()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[..., T], *args: object) -> T:
        future = asyncio.get_running_loop().run_in_executor(threads, work, *args)
        self._running[future] = monotonic()
        future.add_done_callback(self._running.pop)
        return await uninterrupted(future)


async def uninterrupted(work: Awaitable[T]) -> T:
    """Wait for work that must not be stopped half done; a cancellation counts when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
