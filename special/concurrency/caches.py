"""Remembered answers: looked up once however many ask, believed for a while, bounded in number.

Masters' headers, sizes files and key templates are all looked up the same way: the first to ask starts
one detached look-up, the others wait for it, and nobody's departure harms those who stay.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from special.errors import Missing, SpecialError

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")

MAX_MISSING = 10_000
"""So many names are remembered of which there is nothing."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    expires_s: float


class LRUCache(Generic[N, T]):
    """The values that were put or asked for last, as many as are not above a capacity together."""

    def __init__(self, capacity: int, weigh: Callable[[T], int] = lambda value: 1) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[N, T] = OrderedDict()

    def __contains__(self, name: N) -> bool:
        return name in self._values

    def get(self, name: N) -> T | None:
        """The value, if it is there: now it is the last one that was asked for."""
        value = self._values.get(name)
        if value is not None:
            self._values.move_to_end(name)
        return value

    def put(self, name: N, value: T) -> None:
        """Keep a value in place of the name's older one, and let go of the ones that were asked for longest ago."""
        self.pop(name)
        self._values[name] = value
        self._weight += self._weigh(value)
        while self._weight > self._capacity:
            self._weight -= self._weigh(self._values.popitem(last=False)[1])

    def pop(self, name: N) -> T | None:
        """Let go of a value, and return it, if it is there."""
        value = self._values.pop(name, None)
        if value is not None:
            self._weight -= self._weigh(value)
        return value


class TTLCache(Generic[N, T]):
    """A bounded, expiring, single-flight memory from a name of type N to a value of type T.

    `look_up(name, previous)` finds a value; `previous` is the expired one, which may be returned again
    where the store says that it still stands. What it raises reaches all who wait. `Missing` is
    remembered for `missing_ttl_s`, every other failure is forgotten at once. What was asked for longest
    ago goes when all values together, as `weigh` has it, are above `capacity`.
    """

    def __init__(
        self,
        look_up: Callable[[N, T | None], Awaitable[T]],
        *,
        ttl_s: float,
        missing_ttl_s: float = 2.0,
        capacity: int = 10_000,
        weigh: Callable[[T], int] = lambda value: 1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._look_up = look_up
        self._ttl_s = ttl_s
        self._missing_ttl_s = missing_ttl_s
        self._clock = clock
        self._entries: LRUCache[N, _Entry[T]] = LRUCache(capacity, lambda entry: weigh(entry.value))
        self._missing: LRUCache[N, _Entry[Missing]] = LRUCache(MAX_MISSING)
        self._flights: dict[N, asyncio.Task[T]] = {}

    async def get(self, name: N) -> T:
        """The value; from memory while it is believed, else by one look-up that all callers share."""
        value = self.peek(name)
        if value is not None:
            return value
        missing = self._missing.get(name)
        if missing is not None:
            if self._clock() < missing.expires_s:
                raise missing.value.with_traceback(None)
            self._missing.pop(name)
        flight = self._flights.get(name)
        if flight is None:
            entry = self._entries.get(name)
            flight = asyncio.create_task(self._fly(name, entry.value if entry else None))
            self._flights[name] = flight
            flight.add_done_callback(lambda task: self._landed(name, task))
        return await asyncio.shield(flight)

    def peek(self, name: N) -> T | None:
        """The value, if it is believed: nothing is waited for."""
        entry = self._entries.get(name)
        return entry.value if entry is not None and self._clock() < entry.expires_s else None

    def is_missing(self, name: N) -> bool:
        """Whether it is believed that there is nothing of that name."""
        missing = self._missing.get(name)
        return missing is not None and self._clock() < missing.expires_s

    def put(self, name: N, value: T) -> None:
        """Remember a value that was learned by other means."""
        self._missing.pop(name)
        self._entries.put(name, _Entry(value, self._clock() + self._ttl_s))

    def __contains__(self, name: N) -> bool:
        """Whether a value is known, expired or not."""
        return name in self._entries

    def forget(self, name: N) -> None:
        """Look up anew at the next `get`, from nothing."""
        self._entries.pop(name)
        self._missing.pop(name)

    async def close(self) -> None:
        """Cancel the look-ups that are under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, name: N, previous: T | None) -> T:
        try:
            value = await self._look_up(name, previous)
        except Missing as missing:
            self.forget(name)
            self._missing.put(name, _Entry(missing, self._clock() + self._missing_ttl_s))
            raise
        except SpecialError:
            self.forget(name)
            raise
        self.put(name, value)
        return value

    def _landed(self, name: N, task: asyncio.Task[T]) -> None:
        del self._flights[name]
        if not task.cancelled():
            task.exception()  # seen: nobody may be left who waits for it
