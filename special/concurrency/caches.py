"""Caches in memory: least recently used (LRU), and with a time to live (TTL) and one look-up for all callers.

Masters' headers and sizes files are looked up alike: the first request starts one detached look-up, the others
wait for it, and one that leaves early does not disturb those that stay.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Generic, TypeVar

from special.concurrency.singleflight import SingleFlight, result_of
from special.errors import Missing, SpecialError, Unreachable

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")

MAX_MISSING = 10_000
"""Maximum number of names that are remembered as missing."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    expires_s: float
    retry_s: float = 0.0
    """When it is worth asking again: the store failed when it was asked last."""


class StoreSilence:
    """Whether a store is silent, as far as its caches know: one request waits to find out, and no other does.

    A store is silent for ten times `after_s` once a look-up has failed with `Unreachable` or taken longer than
    `after_s`, unless one succeeds before. What expired less than `stale_s` ago may be believed meanwhile.
    """

    def __init__(self, stale_s: float, *, after_s: float = 1.0) -> None:
        self.stale_s = stale_s
        self.after_s = after_s
        self._until_s = 0.0

    def is_on(self, now_s: float) -> bool:
        return now_s < self._until_s

    def begin(self, now_s: float) -> None:
        """A look-up did not answer in time, or failed."""
        self._until_s = now_s + 10 * self.after_s

    def end(self) -> None:
        """A look-up succeeded."""
        self._until_s = 0.0


class LRUCache(Generic[N, T]):
    """The values that were put or got last, up to a capacity; those that were got longest ago go first."""

    def __init__(self, capacity: int, weigh: Callable[[T], int] = lambda value: 1) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[N, T] = OrderedDict()

    def __contains__(self, name: N) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[N]:
        """The names, those that were got longest ago first."""
        return iter(self._values)

    def get(self, name: N) -> T | None:
        value = self._values.get(name)
        if value is not None:
            self._values.move_to_end(name)
        return value

    def put(self, name: N, value: T) -> None:
        self.pop(name)
        self._values[name] = value
        self._weight += self._weigh(value)
        while self._weight > self._capacity:
            self._weight -= self._weigh(self._values.popitem(last=False)[1])

    def pop(self, name: N) -> T | None:
        """Remove a value, and return it, if it is there."""
        value = self._values.pop(name, None)
        if value is not None:
            self._weight -= self._weigh(value)
        return value


class TTLCache(Generic[N, T]):
    """A bounded, expiring, single-flight cache from a name of type N to a value of type T.

    `look_up(name, previous)` finds a value; `previous` is the expired one, which may be returned again where the store
    says that it is still the version. All callers get what it raises. `Missing` is remembered for `missing_ttl_s`,
    every other failure is forgotten at once. When all values together, as `weigh` has it, are above `capacity`, those
    that were got longest ago go.

    During a `silence` of the store, which its other caches share, an expired value for which `stale_if(name, value)`
    is true (None: a remembered `Missing`) is believed for a bounded time more, while it is looked up in the background.
    """

    def __init__(
        self,
        look_up: Callable[[N, T | None], Awaitable[T]],
        *,
        ttl_s: float,
        missing_ttl_s: float = 2.0,
        capacity: int = 10_000,
        weigh: Callable[[T], int] = lambda value: 1,
        silence: StoreSilence | None = None,
        stale_if: Callable[[N, T | None], bool] = lambda name, value: True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._look_up = look_up
        self._ttl_s = ttl_s
        self._missing_ttl_s = missing_ttl_s
        self._silence = silence or StoreSilence(stale_s=0.0)
        self._stale_if = stale_if
        self._clock = clock
        self._entries: LRUCache[N, _Entry[T]] = LRUCache(capacity, lambda entry: weigh(entry.value))
        self._missing: LRUCache[N, _Entry[Missing]] = LRUCache(MAX_MISSING)
        self._single_flight: SingleFlight[T] = SingleFlight()

    async def get(self, name: N) -> T:
        """The value; from memory while it is believed, else by one look-up that all callers share."""
        value = self.peek(name)
        if value is not None:
            return value
        missing = self._missing.get(name)
        if missing is not None and self._clock() < missing.expires_s:
            return _value_of(missing)
        stale = self._stale(name)
        if stale is not None:
            return await self._renew(name, stale)
        look_up = self._start(name)
        await asyncio.wait([look_up])
        return result_of(look_up)

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

    def __iter__(self) -> Iterator[N]:
        """The names of all values that are known, expired or not."""
        return iter(self._entries)

    def forget(self, name: N) -> None:
        """Look up again at the next `get`, from nothing."""
        self._entries.pop(name)
        self._missing.pop(name)

    def forget_all(self, chosen: Callable[[N], bool]) -> None:
        """Look up again whatever has a name that is chosen. Costs a look at every name."""
        for name in [name for name in (*self._entries, *self._missing) if chosen(name)]:
            self.forget(name)

    def forget_value(self, name: N, value: T) -> None:
        """The same, unless the name has another value by now."""
        entry = self._entries.get(name)
        if entry is not None and entry.value is value:
            self.forget(name)

    async def close(self) -> None:
        await self._single_flight.close()

    def _stale(self, name: N) -> _Entry[T] | _Entry[Missing] | None:
        """What may be believed of a name while the store is silent."""
        entry = self._entries.get(name) or self._missing.get(name)
        if entry is None or self._clock() >= entry.expires_s + self._silence.stale_s:
            return None
        value = None if isinstance(entry.value, Missing) else entry.value
        return entry if self._stale_if(name, value) else None

    async def _renew(self, name: N, stale: _Entry[T] | _Entry[Missing]) -> T:
        """The value by a look-up, or the stale one where that does not answer."""
        if self._clock() >= stale.retry_s:
            look_up = self._start(name)
            if not self._silence.is_on(self._clock()):
                await asyncio.wait([look_up], timeout=self._silence.after_s)
            if not look_up.done():
                self._silence.begin(self._clock())
            elif not isinstance(look_up.exception(), Unreachable):
                return result_of(look_up)
        return _value_of(stale)

    def _start(self, name: N) -> asyncio.Task[T]:
        return self._single_flight.start(name, partial(self._looked_up, name))

    async def _looked_up(self, name: N) -> T:
        entry = self._entries.get(name)
        try:
            value = await self._look_up(name, entry.value if entry else None)
        except Missing as missing:
            self._silence.end()
            self.forget(name)
            self._missing.put(name, _Entry(missing, self._clock() + self._missing_ttl_s))
            raise
        except SpecialError as error:
            stale = self._stale(name) if isinstance(error, Unreachable) else None
            if stale is None:
                self.forget(name)
            else:
                self._silence.begin(self._clock())
                stale.retry_s = self._clock() + self._silence.after_s
            raise
        self._silence.end()
        self.put(name, value)
        return value


def _value_of(entry: _Entry[T] | _Entry[Missing]) -> T:
    if isinstance(entry.value, Missing):
        raise entry.value.with_traceback(None)
    return entry.value
