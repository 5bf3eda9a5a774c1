"""Stores what full-region requests made of masters, so that the next such request finds it stored.

In the background, after the answer: no request waits for it, and a store that cannot be written to fails no request.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import get_args

from special.concurrency import KeyedTasks
from special.errors import SpecialError
from special.geometry import Size
from special.iiif import Job
from special.images import Asset, Master, StoredFormat
from special.observability import metrics
from special.renditions.addition import Addition
from special.renditions.policy import Policy
from special.renditions.sidecar import dump_layout
from special.renditions.store import RenditionStore

log = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Maximum number of images whose pictures are being stored; others are made again when they are asked for."""


class RenditionWriter:
    """Stores pictures of the policy's sizes and formats in the background, one for an image at a time."""

    def __init__(self, store: RenditionStore, policy: Policy) -> None:
        self._store = store
        self._policy = policy
        self._tasks = KeyedTasks(MAX_RUNNING)

    def submit(self, asset: Asset, master: Master, job: Job, data: bytes) -> None:
        """Store a full region in the background, if the policy has it and nothing of its image is being stored."""
        form = next((it for it in get_args(StoredFormat) if it == job.format), None)
        if form and job.plain and self._policy.includes(master.layout.size, job.size, form):
            self._tasks.start(asset.identifier, partial(self._add, asset, master, job.size, form, data))

    async def close(self) -> None:
        """Wait for what is being stored."""
        await self._tasks.wait()

    async def _add(self, asset: Asset, master: Master, size: Size, form: StoredFormat, data: bytes) -> None:
        addition = Addition(
            asset.identifier,
            master.blob,
            master.layout.size,
            dump_layout(master.layout),
            asset.rule.max_unauthorised,
            size,
            form,
            self._policy.qualities.label(form),
            data,
        )
        try:
            outcome = "stored" if await self._store.add(addition) else "declined"
        except SpecialError as error:
            log.warning("%s was not stored: %s", addition.rendition.key, error)
            outcome = "failed"
        metrics.WRITE_BACKS.labels(outcome).inc()
