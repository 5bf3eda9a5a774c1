"""Keeps what full-region requests made of masters, so that the next of them finds it stored.

Beside the answers, never before them: a request does not wait for this, and a store that cannot be written to
costs nobody an answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import get_args

from special.codecs import Encoding
from special.errors import SpecialError
from special.iiif import Job
from special.images import Asset, Master, StoredFormat
from special.observability import metrics
from special.renditions import Addition, RenditionStore, dump_layout

log = logging.getLogger(__name__)

MAX_PIXELS = 4_000_000
"""Larger pictures are rare, and nobody needs them at once."""
MAX_RUNNING = 8
"""Images whose pictures are being stored; while there are as many, others are made again when they are asked for."""


class RenditionWriter:
    """Stores pictures in the background, one for an image at a time."""

    def __init__(self, store: RenditionStore, encoding: Encoding) -> None:
        self._store = store
        self._encoding = encoding
        self._running: dict[str, asyncio.Task[None]] = {}

    def submit(self, asset: Asset, master: Master, job: Job, data: bytes) -> None:
        """Store a full region in the background, if it is one that is worth it and nothing is in its way."""
        identifier, form = asset.identifier, next((it for it in get_args(StoredFormat) if it == job.format), None)
        if form is None or not job.plain or job.size.area > MAX_PIXELS:
            return
        if len(self._running) >= MAX_RUNNING or identifier in self._running:
            return
        addition = Addition(
            identifier,
            master.blob,
            master.layout.size,
            dump_layout(master.layout),
            asset.rule.max_unauthorised,
            job.size,
            form,
            self._encoding.described(form),
            data,
        )
        task = asyncio.create_task(self._keep(addition))
        self._running[identifier] = task
        task.add_done_callback(lambda _: self._running.pop(identifier))

    async def close(self) -> None:
        """Wait for what is being stored."""
        await asyncio.gather(*self._running.values())

    async def _keep(self, addition: Addition) -> None:
        try:
            outcome = "stored" if await self._store.add(addition) else "declined"
        except SpecialError as error:
            log.warning("%s was not stored: %s", addition.rendition.key, error)
            outcome = "failed"
        metrics.KEPT.labels(outcome).inc()
