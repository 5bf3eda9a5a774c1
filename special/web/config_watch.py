"""Reads the configuration file again when it changes, so that rules can be changed without a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from special.errors import ConfigurationError

T = TypeVar("T")

INTERVAL_S = 1.0
"""The shortest time between two looks at the file."""

log = logging.getLogger("special.web")

_Stamp = tuple[int, int, int]


class ConfigWatch(Generic[T]):
    """Hands what `read` makes of a file to `use` whenever that changes; after a broken file the last value stays.

    `read` raises `ConfigurationError` or `OSError` for a broken file, of which the log says one line. A changed file is
    read when two looks have found it the same: one that is being written may be whole TOML with half of its rules.
    """

    def __init__(
        self, path: Path, read: Callable[[], T], use: Callable[[T], None], *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._path = path
        self._read = read
        self._use = use
        self._clock = clock
        self._next_s = 0.0
        self._read_stamp: _Stamp | None = None
        """Of the file as it was last read."""
        self._seen_stamp: _Stamp | None = None
        """Of the file at the last look."""
        self._is_asked = asyncio.Event()

    def reload(self) -> None:
        """Read the file now, whether or not it has changed."""
        stamp = self._stamp()
        try:
            value = self._read()
        except (ConfigurationError, OSError) as error:
            log.error("the rules stay as they are, the new configuration cannot be used: %s", error)
        else:
            self._use(value)
        self._read_stamp = self._seen_stamp = stamp

    def check(self) -> None:
        """Read the file if it has changed since it was last read; looks at most once in `INTERVAL_S`."""
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + INTERVAL_S
        stamp = self._stamp()
        is_still, self._seen_stamp = stamp == self._seen_stamp, stamp
        if stamp != self._read_stamp and is_still:
            self.reload()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Read the file, then check it all the time; at SIGHUP read it at once."""
        await asyncio.to_thread(self.reload)
        loop = asyncio.get_running_loop()
        handles_signals = threading.current_thread() is threading.main_thread()
        if handles_signals:
            loop.add_signal_handler(signal.SIGHUP, self._is_asked.set)
        task = loop.create_task(self._keep_checking())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if handles_signals:
                loop.remove_signal_handler(signal.SIGHUP)

    async def _keep_checking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._is_asked.wait()
            except TimeoutError:
                await asyncio.to_thread(self.check)
            else:
                self._is_asked.clear()
                await asyncio.to_thread(self.reload)

    def _stamp(self) -> _Stamp | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
