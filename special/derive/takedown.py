"""Take-down of images: removes all that is ours of them, and has running servers forget them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from special.derive.concurrency import BatchOptions, attempt
from special.derive.inputs import InputImage
from special.derive.outcome import Outcome
from special.derive.resources import IMAGES_AT_ONCE, ResourceOptions, open_read_only
from special.errors import ConfigurationError, Missing
from special.images import PurgeList
from special.storage import with_endpoint
from special.volume import admin


async def take_down(
    options: ResourceOptions, identifiers: Sequence[str], *, volume: Path, purges: PurgeList
) -> AsyncIterator[Outcome]:
    """What became of each image: renditions, side-car, sizes file and what the volume has of it are removed.

    The master is left alone, and so are files of others. The limit of a restricted image stays in its side-car, should
    the master come back. Raises `ConfigurationError`.
    """
    async with open_read_only(options) as resources:
        root = with_endpoint(resources.source)(resources.source.root)
        for identifier in identifiers:
            image = InputImage(identifier)
            outcome = await attempt(image, resources.generator.remove, batching=BatchOptions(IMAGES_AT_ONCE))
            keys = options.templates.keys_of(identifier)
            cleared = await asyncio.to_thread(_clear, volume, identifier, keys, root)
            await asyncio.to_thread(purges.add, [identifier])
            yield replace(outcome, detail=", ".join(filter(None, (outcome.detail, cleared))))


def _clear(volume: Path, identifier: str, keys: Sequence[str], root: str) -> str:
    """Remove an image's master from a volume; what was done, in words."""
    try:
        gone = admin.clear(volume, admin.find(volume, identifier, keys=keys, root=root))
    except (Missing, ConfigurationError):
        return "nothing of it in the volume"
    if gone.kept:
        return "its blocks are being read, and stay in the volume: run it again"
    return f"{gone.objects} versions of its master removed from the volume"
