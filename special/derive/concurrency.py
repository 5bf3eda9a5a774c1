"""Many images at once, in bounded memory: candidates stream in, outcomes stream out.

An image that fails is an outcome like any other. A store that does not answer, or asks for less haste, is
given time: the source has its own short patience inside a request, this is the long one of a batch.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from special.derive.inputs import InputImage
from special.derive.outcome import Outcome, Work
from special.errors import SpecialError, Unreachable
from special.observability import tracing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPace:
    """How many images are under way at once, and how a store that is overrun is spared."""

    at_once: int
    retries: int = 4
    """Further tries for an image whose store was `Unreachable`."""
    pause_s: float = 2.0
    """Longest pause before the second try; doubles with each further one."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def derive_all(
    candidates: AsyncIterator[InputImage], work: Work, *, pace: RetryPace
) -> AsyncGenerator[Outcome, None]:
    """The outcome of each image, as it comes. At most `pace.at_once` images are held at any time.

    An identifier that is under way already is not started a second time until it is done. Closing the generator
    cancels what is under way; every image is then as it was, or as it should be, or finished by the next run.
    """
    running: dict[str, asyncio.Task[Outcome]] = {}
    try:
        async for candidate in candidates:
            while len(running) >= pace.at_once or candidate.identifier in running:
                for outcome in await _finished(running):
                    yield outcome
            running[candidate.identifier] = asyncio.create_task(attempt(candidate, work, pace=pace))
        while running:
            for outcome in await _finished(running):
                yield outcome
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


async def attempt(candidate: InputImage, work: Work, *, pace: RetryPace) -> Outcome:
    """One image's outcome, with what it cost; never raises but when cancelled."""
    with tracing() as cost:
        try:
            outcome = await _patiently(candidate, work, pace)
        except SpecialError as error:
            outcome = Outcome(candidate.identifier, "failed", str(error))
        except Exception as error:
            # Our own mistake, on this one image; the run goes on, and the log has the traceback.
            log.exception("%r failed for an unforeseen reason", candidate.identifier)
            outcome = Outcome(candidate.identifier, "failed", f"{type(error).__name__}: {error}")
    return replace(outcome, gets=cost.gets, bytes=cost.bytes, decode_ms=cost.decode_ms + cost.encode_ms)


async def _patiently(candidate: InputImage, work: Work, pace: RetryPace) -> Outcome:
    for tries in range(pace.retries):
        try:
            return await work(candidate)
        except Unreachable as error:
            log.warning("%r waits for its store: %s", candidate.identifier, error)
            # Full jitter: those who failed together must not come back together.
            await pace.sleep(random.uniform(0, pace.pause_s * 2**tries))  # noqa: S311 - no secret depends on it
    return await work(candidate)


async def _finished(running: dict[str, asyncio.Task[Outcome]]) -> list[Outcome]:
    """Wait until something is done and take it out of what is running."""
    done, _ = await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
    names = [name for name, task in running.items() if task in done]
    return [running.pop(name).result() for name in names]
