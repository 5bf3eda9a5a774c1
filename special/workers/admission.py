"""The gate: what is let in to be read and decoded, in whose turn, and how much memory it may take together.

    async with gate.admit("tile", cost_bytes, client=address) as admitted:
        async with admitted.in_time():
            ...                                   # read
        await workers.run(..., deadline_s=admitted.left_s)

Everything that needs a decoder passes here before a byte of it is fetched, so that a refusal costs nothing
and waiting takes no memory. Who cannot be served in time is told so at once: refusals are cheap while
they are early.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from special.concurrency import Deadline, FairQueue
from special.errors import Busy, TooExpensive
from special.observability import metrics, trace
from special.workers.lanes import Lane

_NEWEST: Final = 0.2
"""Weight of the last job in the mean time that jobs take: that of the last ten or so."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A place inside, with the time by which it must be given back."""

    lane: str
    deadline: Deadline


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody before the gate."""

    client: str
    cost_bytes: int
    turn: asyncio.Future[None]


@dataclass(slots=True)
class _LaneState:
    """A lane's own way in."""

    lane: Lane
    most_bytes: int
    """That may be taken, by all lanes together, once a job of this one is in."""
    inside: int = 0
    mean_s: float = 0.0
    """How long the last jobs were inside; 0 before the first."""
    waiting: FairQueue[_Waiter] = field(default_factory=FairQueue)

    @property
    def places(self) -> int:
        return self.lane.running + self.lane.ahead

    @property
    def room(self) -> int:
        """How many may wait."""
        return self.lane.queue - self.lane.ahead

    def wait_s(self, client: str) -> float:
        """How long a further job of this client would wait, if jobs go on taking as long as they did."""
        return self.mean_s * (self.waiting.before(client) + 1) / max(1, self.inside)


class AdmissionController:
    """Lets jobs in by lane, clients in turn, within a budget of memory. One event loop only; not thread-safe."""

    def __init__(self, lanes: Sequence[Lane], *, budget_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self._doors = {lane.name: _LaneState(lane, int(lane.share * budget_bytes)) for lane in lanes}
        self._clock = clock
        self._taken_bytes = 0

    @property
    def taken_bytes(self) -> int:
        """Memory that is set aside for those inside."""
        return self._taken_bytes

    def inside(self, lane: str) -> int:
        """How many jobs of a lane are in."""
        return self._doors[lane].inside

    def waiting(self, lane: str) -> int:
        """How many jobs of a lane wait."""
        return len(self._doors[lane].waiting)

    def check(self, lane: str, *, deadline: Deadline, client: str = "") -> None:
        """Raise `Busy` where `admit` would do so at once, whatever the cost; then it need not even be told."""
        door = self._doors[lane]
        if door.waiting or door.inside >= door.places:
            self._check_room(door, client, deadline)

    @asynccontextmanager
    async def admit(
        self, lane: str, cost_bytes: int, *, deadline: Deadline, client: str = ""
    ) -> AsyncGenerator[Admission, None]:
        """A place and memory for one job, waited for in the client's turn and given back at the end of the block.

        Raises `TooDear` where the job could never be let in; `Busy`, at once, where the queue is full of jobs of
        clients that have no more there than this one, or where the wait would be too long by all that is known;
        `Busy` too when it has been, or when somebody with fewer jobs needed the place in the queue.
        """
        door = self._doors[lane]
        if cost_bytes > door.most_bytes:
            raise TooExpensive(f"lane {lane}: {cost_bytes} bytes of memory; decode_memory leaves it {door.most_bytes}")
        if door.waiting or not self._fits(door, cost_bytes):
            await self._wait(door, cost_bytes, client, deadline)
        else:
            self._enter(door, cost_bytes)
        start_s = self._clock()
        try:
            yield Admission(lane, deadline)
        finally:
            took_s = self._clock() - start_s
            door.mean_s = took_s if not door.mean_s else door.mean_s + _NEWEST * (took_s - door.mean_s)
            self._leave(door, cost_bytes)

    async def _wait(self, door: _LaneState, cost_bytes: int, client: str, deadline: Deadline) -> None:
        self._make_room(door, client, deadline)
        waiting = _Waiter(client, cost_bytes, asyncio.get_running_loop().create_future())
        door.waiting.put(client, waiting)
        arrived_s = self._clock()
        try:
            await asyncio.wait([waiting.turn], timeout=deadline.left_s)
        except asyncio.CancelledError:
            self._give_up(door, waiting)
            raise
        finally:
            trace().took("queue", arrived_s, self._clock())
        if not waiting.turn.done():
            self._give_up(door, waiting)
            raise _busy(door, "no place before the deadline", door.wait_s(client))
        waiting.turn.result()

    def _check_room(self, door: _LaneState, client: str, deadline: Deadline) -> None:
        expected_s = door.wait_s(client)
        if expected_s > deadline.left_s:
            raise _busy(door, f"the wait would be {expected_s:.1f} s", expected_s)
        if len(door.waiting) >= door.room and not door.waiting.gives_way(client):
            raise _busy(door, f"{len(door.waiting)} wait already", expected_s)

    def _make_room(self, door: _LaneState, client: str, deadline: Deadline) -> None:
        self._check_room(door, client, deadline)
        if len(door.waiting) >= door.room and (longest := door.waiting.give_way(client)) is not None:
            refusal = _busy(door, "somebody with fewer requests came", door.wait_s(longest.client))
            longest.turn.set_exception(refusal)

    def _give_up(self, door: _LaneState, waiting: _Waiter) -> None:
        """Whoever leaves gives back what it was let in to at that very moment, or its place in the queue."""
        if not waiting.turn.done():
            door.waiting.remove(waiting.client, waiting)
            self._open()  # whoever stands behind may need less
        elif waiting.turn.exception() is None:
            self._leave(door, waiting.cost_bytes)

    def _fits(self, door: _LaneState, cost_bytes: int) -> bool:
        return door.inside < door.places and self._taken_bytes + cost_bytes <= door.most_bytes

    def _enter(self, door: _LaneState, cost_bytes: int) -> None:
        door.inside += 1
        self._taken_bytes += cost_bytes
        metrics.DECODE_BYTES.set(self._taken_bytes)

    def _leave(self, door: _LaneState, cost_bytes: int) -> None:
        door.inside -= 1
        self._taken_bytes -= cost_bytes
        metrics.DECODE_BYTES.set(self._taken_bytes)
        self._open()

    def _open(self) -> None:
        """Let in whoever's turn it is, lane by lane in their order. Nobody overtakes who waits for memory."""
        for door in self._doors.values():
            while (first := door.waiting.first()) is not None and self._fits(door, first.cost_bytes):
                door.waiting.take()
                self._enter(door, first.cost_bytes)
                first.turn.set_result(None)


def _busy(door: _LaneState, reason: str, after_s: float) -> Busy:
    metrics.DECODER_JOBS.labels("busy").inc()
    metrics.LANE_REFUSALS.labels(door.lane.name).inc()
    return Busy(f"lane {door.lane.name}: {reason}", after_s=after_s)
