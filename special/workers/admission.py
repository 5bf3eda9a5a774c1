"""Admission control: which jobs may read and decode, in which order, and how much memory they may take together.

    async with admission.admit("tile", cost_bytes, deadline=deadline, client=address) as admitted:
        async with deadline.limit("reading"):
            ...
        await workers.run(..., lane=admitted.lane, deadline=admitted.deadline)

Everything that needs a decoder is admitted before any byte is fetched for it, so that a refusal costs nothing and
waiting takes no memory. A job that cannot be done within its deadline is refused at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from special.concurrency import Deadline, FairQueue
from special.errors import Busy, TooExpensive
from special.observability import metrics, trace
from special.workers.lanes import Lane
from special.workers.places import Places

LARGE: Final = 1 / 2
"""A job that needs more than this part of its lane's memory lets others pass while it waits."""
_LAST_JOB_WEIGHT: Final = 0.2
"""Weight of the last job in the moving average of what jobs take: that of the last ten or so."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What an admitted job is handed on with."""

    lane: str
    deadline: Deadline


@dataclass(slots=True, eq=False)
class _Job:
    """A job that is admitted or waits in its lane's queue."""

    client: str
    master: str | None
    cost_bytes: int
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _LaneState:
    """One lane's admitted and waiting jobs."""

    lane: Lane
    max_bytes: int
    """Memory that all lanes together may have reserved once a job of this lane is admitted."""
    places: Places
    mean_s: float = 0.0
    """How long the last jobs took from admission to their end; 0 before the first."""
    waiting: FairQueue[_Job] = field(default_factory=FairQueue)

    @property
    def max_waiting(self) -> int:
        return self.lane.queue - self.lane.reading

    def expected_wait_s(self, client: str) -> float:
        """How long a further job of this client would wait, if jobs go on taking as long as they did."""
        return self.mean_s * (self.waiting.before(client) + 1) / max(1, self.places.taken)


class AdmissionController:
    """Admits jobs by lane, clients in turn, within a memory budget. One event loop only; not thread-safe."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        budget_bytes: int,
        job_bytes: float = math.inf,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`job_bytes` is what one job can take at most, whatever was estimated: a decoder has no more."""
        self._lanes = {
            lane.name: _LaneState(lane, int(lane.share * budget_bytes), Places(lane.running + lane.reading))
            for lane in lanes
        }
        self._job_bytes = job_bytes
        self._clock = clock
        self._reserved_bytes = 0
        self._admitted: Counter[str] = Counter()
        """Admitted jobs by client."""

    @property
    def reserved_bytes(self) -> int:
        """Memory that is reserved for admitted jobs."""
        return self._reserved_bytes

    def admitted(self, lane: str) -> int:
        """How many jobs of a lane are admitted."""
        return self._lanes[lane].places.taken

    def waiting(self, lane: str) -> int:
        """How many jobs of a lane wait."""
        return len(self._lanes[lane].waiting)

    def check(self, lane: str, *, deadline: Deadline, client: str = "", master: str | None = None) -> None:
        """Raise `Busy` where `admit` would at once, whatever the cost: such a request need not even be planned."""
        state = self._lanes[lane]
        if not self._goes_ahead(state, _Job(client, master, 0)):
            self._check_queue(state, deadline, client)

    @asynccontextmanager
    async def admit(
        self, lane: str, cost_bytes: int, *, deadline: Deadline, client: str = "", master: str | None = None
    ) -> AsyncGenerator[Admission, None]:
        """Admit one job when it is its client's turn; it ends, and its memory is free again, with the block.

        A client, and a master, has at most half of the lane's places while others wait.
        Raises `TooExpensive` where the job could never be admitted. Raises `Busy` at once where the queue is full and
        no client has more in it than this one, or where the expected wait is longer than what is left of the
        deadline; later where the deadline is over, or where a client with fewer jobs took the place in the queue.
        """
        state, cost_bytes = self._lanes[lane], int(min(cost_bytes, self._job_bytes))
        if cost_bytes > state.max_bytes:
            raise TooExpensive(
                f"it takes {cost_bytes} bytes of memory; decode_memory leaves {state.max_bytes} to the lane '{lane}': "
                "raise decode_memory, or make the master cheaper (special inspect)"
            )
        job = _Job(client, master, cost_bytes)
        if self._goes_ahead(state, job) and self._fits(state, job):
            self._enter(state, job)
        else:
            await self._wait(state, job, deadline)
        start_s = self._clock()
        try:
            yield Admission(lane, deadline)
        finally:
            took_s = self._clock() - start_s
            state.mean_s = took_s if not state.mean_s else state.mean_s + _LAST_JOB_WEIGHT * (took_s - state.mean_s)
            self._leave(state, job)

    async def _wait(self, state: _LaneState, job: _Job, deadline: Deadline) -> None:
        self._claim_place(state, deadline, job.client)
        state.waiting.put(job.client, job)
        arrived_s = self._clock()
        try:
            left_s = deadline.left_s
            await asyncio.wait([job.admitted], timeout=None if math.isinf(left_s) else left_s)
        except asyncio.CancelledError:
            self._give_up(state, job)
            raise
        finally:
            trace().took("queue", arrived_s, self._clock())
        if not job.admitted.done():
            self._give_up(state, job)
            raise _busy(state, "the deadline is over and the job still waits", state.expected_wait_s(job.client))
        job.admitted.result()

    def _check_queue(self, state: _LaneState, deadline: Deadline, client: str) -> None:
        expected_s = state.expected_wait_s(client)
        if expected_s > deadline.left_s:
            reason = f"the wait would be {expected_s:.1f} s and {deadline.left_s:.1f} s are left of the deadline"
            raise _busy(state, reason, expected_s)
        if len(state.waiting) >= state.max_waiting and not state.waiting.gives_way(client):
            raise _busy(state, f"{len(state.waiting)} wait already", expected_s)

    def _claim_place(self, state: _LaneState, deadline: Deadline, client: str) -> None:
        self._check_queue(state, deadline, client)
        if len(state.waiting) >= state.max_waiting and (dropped := state.waiting.give_way(client)) is not None:
            refusal = _busy(state, "a client with fewer requests came", state.expected_wait_s(dropped.client))
            dropped.admitted.set_exception(refusal)

    def _give_up(self, state: _LaneState, job: _Job) -> None:
        """Leave the queue, or give back the admission that came at the same moment."""
        if not job.admitted.done():
            state.waiting.remove(job.client, job)
            self._admit_next()  # the next one may need less memory
        elif job.admitted.exception() is None:
            self._leave(state, job)

    def _goes_ahead(self, state: _LaneState, job: _Job) -> bool:
        """Whether there is a place for this job, and none that waits could have it."""
        own = state.waiting.first(lambda other: other.client == job.client and not self._fits(state, other))
        return state.places.admits(job) and own is None and self._next(state) is None

    def _fits(self, state: _LaneState, job: _Job) -> bool:
        return self._reserved_bytes + job.cost_bytes <= state.max_bytes

    def _next(self, state: _LaneState) -> _Job | None:
        """The job whose turn it is. It may have to wait for memory, and none overtakes it then.

        Other clients do overtake one whose client has memory already: it gets its own back. And a large one, which
        would keep all others waiting until nearly all memory is free.
        """
        held_up = set[str]()

        def is_next(job: _Job) -> bool:
            yields = self._admitted[job.client] or job.cost_bytes > LARGE * state.max_bytes
            if job.client not in held_up and yields and not self._fits(state, job):
                held_up.add(job.client)
            return job.client not in held_up

        return state.places.next(state.waiting, is_next)

    def _enter(self, state: _LaneState, job: _Job) -> None:
        state.places.enter(job)
        self._admitted[job.client] += 1
        self._reserved_bytes += job.cost_bytes
        metrics.DECODE_BYTES.set(self._reserved_bytes)

    def _leave(self, state: _LaneState, job: _Job) -> None:
        state.places.leave(job)
        self._admitted[job.client] -= 1
        if not self._admitted[job.client]:
            del self._admitted[job.client]
        self._reserved_bytes -= job.cost_bytes
        metrics.DECODE_BYTES.set(self._reserved_bytes)
        self._admit_next()

    def _admit_next(self) -> None:
        """Admit those whose turn it is, in the order of the lanes."""
        for state in self._lanes.values():
            while (job := self._next(state)) is not None and self._fits(state, job):
                state.waiting.serve(job.client, job)
                self._enter(state, job)
                job.admitted.set_result(None)


def _busy(state: _LaneState, reason: str, after_s: float) -> Busy:
    metrics.DECODER_JOBS.labels("busy").inc()
    metrics.LANE_REFUSALS.labels(state.lane.name).inc()
    return Busy(f"lane {state.lane.name}: {reason}", after_s=after_s)
