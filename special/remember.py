"""Remembered answers: looked up once however many ask, believed for a while, bounded in number.

Masters' headers, sizes files and key templates are all looked up the same way: the first to ask starts
one detached look-up, the others wait for it, and nobody's departure harms those who stay.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from special.errors import Missing, SpecialError

T = TypeVar("T")
V = TypeVar("V")


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    believed_until: float


class Remembered(Generic[T]):
    """A bounded, expiring, single-flight memory from a name to a value of type T.

    `look_up(name, previous)` finds a value; `previous` is the expired one, which may be returned again
    where the store says that it still stands. What it raises reaches all who wait. `Missing` is
    remembered for `missing_ttl_s`, every other failure is forgotten at once.
    """

    def __init__(
        self,
        look_up: Callable[[str, T | None], Awaitable[T]],
        *,
        ttl_s: float,
        missing_ttl_s: float = 2.0,
        capacity: int = 10_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._look_up = look_up
        self._ttl_s = ttl_s
        self._missing_ttl_s = missing_ttl_s
        self._capacity = capacity
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._missing: OrderedDict[str, _Entry[Missing]] = OrderedDict()
        self._flights: dict[str, asyncio.Task[T]] = {}

    async def get(self, name: str) -> T:
        """The value; from memory while it is believed, else by one look-up that all callers share."""
        now = self._clock()
        entry = self._entries.get(name)
        if entry is not None and now < entry.believed_until:
            self._entries.move_to_end(name)
            return entry.value
        missing = self._missing.get(name)
        if missing is not None:
            if now < missing.believed_until:
                raise missing.value.with_traceback(None)
            del self._missing[name]
        flight = self._flights.get(name)
        if flight is None:
            flight = asyncio.create_task(self._fly(name, entry.value if entry else None))
            self._flights[name] = flight
            flight.add_done_callback(lambda task: self._landed(name, task))
        return await asyncio.shield(flight)

    def put(self, name: str, value: T) -> None:
        """Remember a value that was learned by other means."""
        self._missing.pop(name, None)
        self._keep(self._entries, name, _Entry(value, self._clock() + self._ttl_s))

    def __contains__(self, name: str) -> bool:
        """Whether a value is known, expired or not."""
        return name in self._entries

    def forget(self, name: str) -> None:
        """Look up anew at the next `get`, from nothing."""
        self._entries.pop(name, None)
        self._missing.pop(name, None)

    async def close(self) -> None:
        """Cancel the look-ups that are under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, name: str, previous: T | None) -> T:
        try:
            value = await self._look_up(name, previous)
        except Missing as missing:
            self.forget(name)
            self._keep(self._missing, name, _Entry(missing, self._clock() + self._missing_ttl_s))
            raise
        except SpecialError:
            self.forget(name)
            raise
        self.put(name, value)
        return value

    def _landed(self, name: str, task: asyncio.Task[T]) -> None:
        del self._flights[name]
        if not task.cancelled():
            task.exception()  # seen: nobody may be left who waits for it

    def _keep(self, entries: OrderedDict[str, _Entry[V]], name: str, entry: _Entry[V]) -> None:
        entries[name] = entry
        entries.move_to_end(name)
        while len(entries) > self._capacity:
            entries.popitem(last=False)
