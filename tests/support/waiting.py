"""Waiting for what announces itself to nobody: a file, a lock, another process, a metric."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, sleep

LONGEST_S = 60.0
"""A test that waits in vain fails; on a busy machine much takes ten times as long as on an idle one."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait in an event loop."""
    async with asyncio.timeout(LONGEST_S):
        while not condition():  # noqa: ASYNC110  nothing sets an event
            await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait where there is no event loop."""
    end_s = monotonic() + LONGEST_S
    while not condition():
        assert monotonic() < end_s, "it never happened"
        sleep(0.05)
