"""Follows a queue of notifications for ever: what happens to masters happens to their renditions.

A message is deleted once all that it tells of is done. One that fails is given back and comes again, later each time;
one that cannot be parsed is left to the queue, whose redrive policy moves it to a dead-letter queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from special.catalogue import Catalogue
from special.derive import events
from special.derive.concurrency import BatchOptions, attempt
from special.derive.inputs import InputImage
from special.derive.outcome import BAD, Outcome, Work
from special.derive.sqs import Message, MessageQueue
from special.errors import CatalogueError, SourceError, Unreachable
from special.images import KeyTemplates

log = logging.getLogger(__name__)

LONGEST_HOLD_S = 900


@dataclass(frozen=True, slots=True)
class VisibilityOptions:
    """How long messages stay hidden from other workers."""

    hold_s: int = 60
    """How long a message stays hidden after this process dies; renewed while it is worked on."""
    again_s: int = 15
    """How long a message that failed stays hidden; doubles each time, up to a quarter of an hour."""


@dataclass(slots=True)
class QueueWorker:
    """Works through one queue."""

    queue: MessageQueue
    work: Work
    root: str
    """Of the masters: events of other places are passed over."""
    templates: KeyTemplates
    batching: BatchOptions
    visibility: VisibilityOptions = field(default_factory=VisibilityOptions)
    catalogue: Catalogue | None = None
    """Tells the images of a master, in place of root and templates."""
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """One for each image in progress: a second message about it waits, and finds it up to date."""

    async def run(self, stop: asyncio.Event) -> AsyncGenerator[Outcome, None]:
        """The outcome of each image, as it comes, until `stop` is set and what is under way is done.

        Closing it early cancels what is under way; the queue delivers those messages again.
        """
        busy: set[asyncio.Task[list[Outcome]]] = set()
        done: set[asyncio.Task[list[Outcome]]] = set()
        try:
            while busy or not stop.is_set():
                free = 0 if stop.is_set() else self.batching.at_once - len(busy)
                for message in await self._take(free) if free else ():
                    busy.add(asyncio.create_task(self._handle(message)))
                if busy:
                    done, busy = await asyncio.wait(
                        busy, timeout=0 if free else None, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        for outcome in task.result():
                            yield outcome
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, *done, return_exceptions=True)  # of several failures the first is raised

    async def _take(self, free: int) -> list[Message]:
        try:
            return await self.queue.take(free, hold_s=self.visibility.hold_s)
        except Unreachable as error:
            log.warning("%s", error)
            await self.batching.sleep(self.batching.pause_s)
            return []

    async def _handle(self, message: Message) -> list[Outcome]:
        async with self._held(message):
            try:
                identifiers = await self._identifiers(message)
            except (ValueError, CatalogueError) as fault:
                await self._give_back(message)
                return [Outcome(f"message {message.id}", "failed", str(fault))]
            outcomes = [await self._do(identifier) for identifier in identifiers]
        if any(outcome.result in BAD for outcome in outcomes):
            await self._give_back(message)
        else:
            try:
                await self.queue.delete(message)
            except SourceError as error:
                log.warning("message %s comes again: %s", message.id, error)
        return outcomes

    async def _give_back(self, message: Message) -> None:
        """Let a message that failed come again, later each time."""
        try:
            await self.queue.hold(message, min(self.visibility.again_s * 2 ** (message.times - 1), LONGEST_HOLD_S))
        except SourceError as error:
            log.warning("message %s comes again: %s", message.id, error)

    async def _do(self, identifier: str) -> Outcome:
        lock = self._locks.setdefault(identifier, asyncio.Lock())
        async with lock:
            return await attempt(InputImage(identifier), self.work, batching=self.batching)

    async def _identifiers(self, message: Message) -> list[str]:
        """The images that a message tells of, each once, in its order. Raises `ValueError`, `CatalogueError`."""
        if self.catalogue is not None:
            urls = [f"s3://{touched.bucket}/{touched.key}" for touched in events.parse(message.body)]
            return list(dict.fromkeys([name for url in urls for name in await self.catalogue.identifiers_of(url)]))
        keys = [key for touched in events.parse(message.body) if (key := events.below(self.root, touched)) is not None]
        return list(dict.fromkeys(name for key in keys if (name := self.templates.identifier_of(key)) is not None))

    @asynccontextmanager
    async def _held(self, message: Message) -> AsyncIterator[None]:
        """Keep a message hidden while it is worked on."""

        async def hold() -> None:
            while True:
                await asyncio.sleep(self.visibility.hold_s / 3)
                try:
                    await self.queue.hold(message, self.visibility.hold_s)
                except SourceError as error:
                    # It may come a second time; what is current then is not made again.
                    log.warning("message %s could not be held: %s", message.id, error)

        holding = asyncio.create_task(hold())
        try:
            yield
        finally:
            holding.cancel()
            with suppress(asyncio.CancelledError):
                await holding
