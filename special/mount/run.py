"""`special mount`: a source on a folder, until it is unmounted or told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from special.errors import ConfigurationError
from special.mount import mounting
from special.mount.filesystem import FileSystem
from special.mount.session import Session
from special.storage import Bucket, Folder, folder_path
from special.volume import Volume

log = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long programs may read to the end what they have open, after the mount was told to stop."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a source is mounted."""

    directory: Path
    """The folder to mount on."""
    entry_s: float
    """For how long a name is believed to stand for the same version of its object."""
    deadline_s: float = 30.0
    """How long a program waits for the store before it gets EIO."""
    shared: bool = False
    """Whether other users may read it."""
    lists: bool = True
    """Whether folders can be listed."""


async def run(
    source: Bucket | Folder, volume: Volume, options: MountOptions, *, ready: Callable[[], None] = lambda: None
) -> None:
    """Mount a source and answer until it is unmounted, or until SIGTERM or SIGINT. Closes the source.

    `ready` is called when programs can read. Raises `ConfigurationError`, and what the source's check raises.
    """
    directory = options.directory.absolute()
    directory = directory.parent.resolve() / directory.name  # not the folder itself: it may be a mount that is dead
    _check_apart(directory, source.root, volume.directory)
    try:
        await source.check()
        async with volume:
            files = FileSystem(source, volume, lists=options.lists)
            if options.lists:
                await files.check()
            await _serve(files, source.root, directory, options, ready)
    finally:
        await source.close()


async def _serve(
    files: FileSystem, name: str, directory: Path, options: MountOptions, ready: Callable[[], None]
) -> None:
    device = mounting.mount(directory, name=name, shared=options.shared)
    try:
        session = Session(device, files, entry_s=options.entry_s, deadline_s=options.deadline_s)
        serving = asyncio.create_task(session.serve())
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        stopping = asyncio.create_task(stopped.wait())
        starting = asyncio.create_task(session.ready())
        await asyncio.wait([serving, starting], return_when=asyncio.FIRST_COMPLETED)
        ready()
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(mounting.unmount, directory)
        await asyncio.wait([serving], timeout=DRAIN_S)
        for task in (starting, stopping):
            task.cancel()
        if serving.cancel():
            log.warning("%s was still in use %.0f s after it was unmounted", directory, DRAIN_S)
        await asyncio.gather(serving, return_exceptions=True)
        if not serving.cancelled():
            serving.result()
    finally:
        await files.close()
        os.close(device)  # programs that have files open get ENOTCONN from now on
        await asyncio.to_thread(mounting.unmount, directory)


def _check_apart(directory: Path, source: str, volume: Path) -> None:
    """Raise `ConfigurationError` where reading the mount would read the mount."""
    folder = folder_path(source)
    places = {"the source": folder, "the volume": volume}
    for what, place in places.items():
        if place is None:
            continue
        place = place.resolve()
        if place == directory or place in directory.parents or directory in place.parents:
            raise ConfigurationError(f"{directory} and {what} {place} are inside each other: choose another folder")
