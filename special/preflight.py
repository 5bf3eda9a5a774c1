"""What must hold before a server starts, each check by itself: `serve` ends at the first fault, `check` lists all."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import sqlite3
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from special import composition, machine
from special.errors import ConfigurationError, SourceError
from special.settings import Settings
from special.storage import check_apart, check_source, open_source
from special.volume import admin
from special.workers import Workers

log = logging.getLogger(__name__)

HEALTH_S: Final = 2.0
"""How long a running server may take to say that it lives."""
_WRONG_PLACE: Final = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""What keeps a folder from being written until the operator changes it; a full disk may have space again."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found that does not end a start."""

    said: str
    warnings: tuple[str, ...] = ()


Check = Callable[[Settings], Awaitable[Report]]
"""Raises `ConfigurationError` for what no request could be answered with."""


async def places(settings: Settings) -> Report:
    """Masters, renditions and state must be apart."""
    for source in (settings.source, *(it.url for it in settings.sources)):
        check_apart(source, thumbs=settings.thumbs_url, home=settings.home, volume=settings.volume_directory)
    return Report("masters, renditions and volume are apart")


async def masters(settings: Settings) -> Report:
    """The sources of the masters must answer. One GET of each, and one list of the first where that is allowed."""
    await check_source(settings.source)
    if (options := composition.catalogue_options(settings)) is not None:
        for url, s3 in options.sources[1:]:
            await check_source(url, s3=s3)
    source = open_source(settings.source)
    try:
        if await source.is_empty():
            return Report(f"{source.root} answers", (f"{source.root} is empty: is the prefix right?",))
    except SourceError:
        return Report(f"{source.root} answers, and cannot be listed")
    finally:
        await source.close()
    return Report(f"{source.root} can be read and listed")


async def renditions(settings: Settings) -> Report:
    """The place of renditions must answer. One GET."""
    await check_source(settings.thumbs_url, create=True)
    return Report(f"{settings.thumbs_url} answers")


async def writing(settings: Settings) -> Report:
    """Whether renditions can be stored, as `derive` and `store_on_miss` do: one PUT and one DELETE."""
    thumbs = open_source(settings.thumbs_url, create=True)
    try:
        await thumbs.write(".special-check", b"This file may be deleted.\n", media="text/plain")
        await thumbs.delete(".special-check")
    finally:
        await thumbs.close()
    return Report(f"{settings.thumbs_url} can be written, and files in it deleted")


async def volume(settings: Settings) -> Report:
    """The volume must be a folder that can be written."""
    return await asyncio.to_thread(_volume, settings.volume_directory, int(settings.volume_size))


def _volume(directory: Path, size_bytes: int) -> Report:
    warnings = []
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        if error.errno in _WRONG_PLACE:
            raise ConfigurationError(
                f"the volume {directory} cannot be written ({error.strerror}): name a folder that this user may "
                "write, with --volume"
            ) from error
        warnings.append(f"the volume {directory} cannot be written for now: {error.strerror}")
        return Report(f"{directory} is bypassed", tuple(warnings))
    try:
        taken_bytes = admin.stat(directory).disk_bytes
    except (ConfigurationError, OSError, sqlite3.Error):
        taken_bytes = 0  # there is none yet
    free_bytes = shutil.disk_usage(directory).free + taken_bytes
    if size_bytes > free_bytes:
        warnings.append(
            f"the volume may take {size_bytes / 2**30:,.1f} GiB, and the disk of {directory} has "
            f"{free_bytes / 2**30:,.1f} GiB for it: make volume_size smaller, or the disk larger"
        )
    return Report(f"{directory} can be written", tuple(warnings))


async def connections(settings: Settings) -> Report:
    """There must be descriptors for as many connections as the settings allow."""
    possible = machine.connections()
    if possible < settings.max_connections:
        warning = (
            f"there are {possible} connections at most and not {settings.max_connections}, since a process may have "
            f"{2 * possible} descriptors: raise its hard limit (ulimit -Hn, LimitNOFILE), or lower max_connections"
        )
        return Report(f"{possible} connections for each server process", (warning,))
    return Report(f"{settings.max_connections} connections for each server process")


async def services(settings: Settings) -> Report:
    """Everything that a server is made of can be made of the settings. Nothing is started or asked."""
    engine = composition.engine(settings)
    await engine.close()
    composition.verifier(settings)
    return Report("all settings work together")


async def decoders(settings: Settings) -> Report:
    """A decoder process must start, which loads every codec. Takes a second."""
    async with Workers(1, memory_bytes=int(settings.decoder_memory), lanes=composition.lanes(settings), spare=0):
        return Report("a decoder starts")


AT_START: Final[Mapping[str, Check]] = {
    "places": places,
    "masters": masters,
    "renditions": renditions,
    "volume": volume,
    "connections": connections,
    "services": services,
}
"""What `serve` checks; it starts decoders anyway."""


async def require(settings: Settings) -> None:
    """Raise `ConfigurationError` at the first check that fails; log what others warn of."""
    for check in AT_START.values():
        for warning in (await check(settings)).warnings:
            log.warning("%s", warning)


def is_alive(settings: Settings) -> Report:
    """Whether the server with these settings lives. Raises `ConfigurationError` where it does not say so."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on
    host = anywhere.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/livez"
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_S) as answer:
            return Report(f"{url} says: {answer.read(200).decode('utf-8', 'replace').strip()}")
    except OSError as error:
        raise ConfigurationError(f"{url} does not answer well: {error}") from error
