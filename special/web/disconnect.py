"""Whether the client is still there while an answer is made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class Disconnected(Exception):
    """The client has left; nobody is there to be answered."""


async def until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of some work, which is cancelled when the client leaves first. Raises `Gone`."""
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
