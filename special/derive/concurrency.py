"""Many images at once, in bounded memory: images stream in, outcomes stream out.

An image that fails is an outcome like any other. A store that does not answer, or throttles, is tried again: the
source retries within seconds, a batch within minutes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from special.derive.inputs import InputImage
from special.derive.outcome import Outcome, Work
from special.errors import CatalogueError, NotAnImage, SpecialError, Unreachable
from special.images import claims_image
from special.observability import tracing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How many images are in progress at once, and how they are tried again."""

    at_once: int
    retries: int = 4
    """Further tries for an image whose store or catalogue did not answer."""
    pause_s: float = 2.0
    """Longest pause before the second try; doubles with each further one."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def derive_all(
    images: AsyncIterator[InputImage], work: Work, *, batching: BatchOptions
) -> AsyncGenerator[Outcome, None]:
    """The outcome of each image, as it comes. At most `batching.at_once` images are held at any time.

    An identifier that is under way already is not started a second time until it is done. Closing the generator
    cancels what is under way; every image is then as it was, or as it should be, or finished by the next run.
    """
    running: dict[str, asyncio.Task[Outcome]] = {}
    try:
        async for image in images:
            while len(running) >= batching.at_once or image.identifier in running:
                for outcome in await _finished(running):
                    yield outcome
            running[image.identifier] = asyncio.create_task(attempt(image, work, batching=batching))
        while running:
            for outcome in await _finished(running):
                yield outcome
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


async def attempt(image: InputImage, work: Work, *, batching: BatchOptions) -> Outcome:
    """One image's outcome, with what it cost; never raises but when cancelled."""
    if image.listed and image.blob is not None and not image.blob.size:
        return Outcome(image.identifier, "skipped", "it is empty")
    with tracing() as used:
        try:
            outcome = await _with_retries(image, work, batching)
        except NotAnImage as error:
            # A name that promises an image keeps its promise, or is a failure.
            other = image.listed and not claims_image(image.identifier)
            outcome = Outcome(image.identifier, "skipped" if other else "failed", str(error))
        except SpecialError as error:
            outcome = Outcome(image.identifier, "failed", str(error))
        except Exception as error:
            # Our own mistake, on this one image; the run goes on, and the log has the traceback.
            log.exception("%r failed for an unexpected reason", image.identifier)
            outcome = Outcome(image.identifier, "failed", f"{type(error).__name__}: {error}")
    decode_ms = used.decode_ms + used.encode_ms
    return replace(outcome, gets=used.gets, bytes=used.bytes, decode_ms=decode_ms, incomplete=used.incomplete)


async def _with_retries(image: InputImage, work: Work, batching: BatchOptions) -> Outcome:
    for tries in range(batching.retries):
        try:
            return await work(image)
        except (Unreachable, CatalogueError) as error:
            log.warning("%r waits for its store or its catalogue: %s", image.identifier, error)
            # Full jitter: images that failed together must not be tried again together.
            await batching.sleep(random.uniform(0, batching.pause_s * 2**tries))  # noqa: S311 - no secret depends on it
    return await work(image)


async def _finished(running: dict[str, asyncio.Task[Outcome]]) -> list[Outcome]:
    """Wait until something is done and take it out of what is running."""
    done, _ = await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
    names = [name for name, task in running.items() if task in done]
    return [running.pop(name).result() for name in names]
