"""The same work on a Dask cluster: batches of images, each done by the worker that takes it.

A worker that is lost takes nothing with it: its batches go to others, and what it had finished is kept. Every worker
must reach source and store by the same URLs, with credentials of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

from special.derive.concurrency import BatchOptions, derive_all
from special.derive.inputs import InputImage
from special.derive.options import Options
from special.derive.outcome import Outcome
from special.derive.resources import IMAGES_AT_ONCE, ResourceOptions
from special.errors import ConfigurationError

BATCH = 100
"""Images in a batch: starting a decoder (about a second) must not matter, and a lost batch neither."""
BATCHES_PER_THREAD = 2
"""Batches that are handed out for each thread of the cluster."""
TRIES = 3
CONNECT_S = 5


async def derive_on_cluster(
    images: AsyncIterator[InputImage],
    resources: ResourceOptions,
    options: Options,
    *,
    scheduler: str,
    batch: int = BATCH,
) -> AsyncGenerator[Outcome, None]:
    """The outcome of each image, a batch at a time as they come. Images are taken as the cluster takes them.

    Raises `ConfigurationError` where Dask is not installed or its scheduler does not answer.
    """
    async with _connected(scheduler) as client:
        running: dict[Any, list[InputImage]] = {}
        try:
            async for members in _batches(images, batch):
                while len(running) >= BATCHES_PER_THREAD * max(1, sum((await client.nthreads()).values())):
                    for outcome in await _finished(running):
                        yield outcome
                future = client.submit(work_off, resources, options, members, pure=False, retries=TRIES - 1)
                running[future] = members
            while running:
                for outcome in await _finished(running):
                    yield outcome
        finally:
            await client.cancel(list(running))


def work_off(resource_options: ResourceOptions, options: Options, images: list[InputImage]) -> list[Outcome]:
    """Do one batch, in one thread of a worker, with one decoder process of its own."""

    async def stream() -> AsyncIterator[InputImage]:
        for image in images:
            yield image

    async def work() -> list[Outcome]:
        async with options.open(replace(resource_options, decoders=1)) as resources:
            outcomes = derive_all(stream(), options.work(resources), batching=BatchOptions(IMAGES_AT_ONCE))
            return [outcome async for outcome in outcomes]

    return asyncio.run(work())


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError:
        raise ConfigurationError("--scheduler needs Dask: pip install 'special-iiif[cluster]'") from None


@asynccontextmanager
async def _connected(scheduler: str) -> AsyncIterator[Any]:
    try:
        client = await _dask().Client(scheduler, asynchronous=True, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    try:
        yield client
    finally:
        await client.close()


async def _batches(images: AsyncIterator[InputImage], size: int) -> AsyncIterator[list[InputImage]]:
    members: list[InputImage] = []
    async for image in images:
        members.append(image)
        if len(members) == size:
            yield members
            members = []
    if members:
        yield members


async def _finished(running: dict[Any, list[InputImage]]) -> list[Outcome]:
    """Wait until batches are done and take them out of what is running."""
    done, _ = await _dask().wait(list(running), return_when="FIRST_COMPLETED")
    outcomes: list[Outcome] = []
    for future in done:
        images = running.pop(future)
        error = await future.exception()
        if error is None:
            outcomes += await future
        else:
            # The batch was tried often enough, or took too many workers with it.
            outcomes += [Outcome(it.identifier, "failed", f"its batch failed: {error}") for it in images]
    return outcomes
