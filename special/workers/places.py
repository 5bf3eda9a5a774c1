"""Places of a lane: how many jobs are in it, and that no client and no master keeps the others out. Pure.

A client, and a master, counts for at most half of the places, rounded up. Alone it may take all of them; what it then
has above its half does not count when another one comes, which so need not wait until a slow job ends. There may be
half as many jobs again as there are places, and never more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeVar

from special.concurrency import FairQueue


class Holder(Protocol):
    """A job that waits for a place or has one."""

    @property
    def client(self) -> str:
        """Who asks."""
        ...

    @property
    def master(self) -> str | None:
        """What is worked on; None for work that belongs to no master."""
        ...


H = TypeVar("H", bound=Holder)


class Places:
    """The places of one lane."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._half = (count + 1) // 2
        self._clients: Counter[str] = Counter()
        self._masters: Counter[str] = Counter()
        self.taken = 0
        """How many jobs have a place."""

    @property
    def unused(self) -> int:
        """Places that no job has."""
        return max(0, self._count - self.taken)

    def enter(self, holder: Holder) -> None:
        """Give a job a place."""
        self.taken += 1
        self._clients[holder.client] += 1
        if holder.master is not None:
            self._masters[holder.master] += 1

    def leave(self, holder: Holder) -> None:
        """Take a job's place back."""
        self.taken -= 1
        _decrement(self._clients, holder.client)
        if holder.master is not None:
            _decrement(self._masters, holder.master)

    def admits(self, holder: Holder) -> bool:
        """Whether there is a place for this job, if no other waits."""
        return self.taken < self._count or (self._counted < self._count and self._has_share_left(holder))

    def next(
        self, waiting: FairQueue[H], accepted: Callable[[H], bool] = lambda _: True, *, extra: int = 0
    ) -> H | None:
        """The waiting job that may enter now, of those accepted, and with less than half of the places first.

        `extra` places are for these alone.
        """
        if self._counted >= self._count + extra:
            return None
        found = waiting.first(lambda job: accepted(job) and self._has_share_left(job))
        return found if found is not None or self.taken >= self._count else waiting.first(accepted)

    def next_beyond(self, waiting: FairQueue[H]) -> H | None:
        """The waiting job that may use what other lanes leave idle."""
        found = waiting.first(self._has_share_left)
        return found if found is not None else waiting.first()

    @property
    def _counted(self) -> int:
        """Places that are taken from the point of view of a client and master that have none."""
        if self.taken < self._count:
            return self.taken
        above = (sum(max(0, n - self._half) for n in held.values()) for held in (self._clients, self._masters))
        return self.taken - max(above)

    def _has_share_left(self, holder: Holder) -> bool:
        if self._clients[holder.client] >= self._half:
            return False
        return holder.master is None or self._masters[holder.master] < self._half


def _decrement(held: Counter[str], name: str) -> None:
    held[name] -= 1
    if not held[name]:
        del held[name]
