"""Cancels the work on an answer when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class Disconnected(Exception):
    """The client has left before its answer was ready."""


async def until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of some work, which is cancelled when the client disconnects first. Raises `Disconnected`."""
    here, left = asyncio.current_task(), False
    assert here is not None

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        here.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        # Cancelled from elsewhere too (the server stops): that goes on.
        if left and here.uncancel() == 0:
            raise Disconnected from None
        raise
    finally:
        watcher.cancel()
