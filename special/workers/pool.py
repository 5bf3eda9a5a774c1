"""The pool: admits jobs by lane, hands them to idle children, replaces children that die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, cast

from prometheus_client import Gauge

from special.codecs import prepare as prepare_codecs
from special.concurrency import Deadline, FairQueue
from special.errors import Busy, ConfigurationError, Crashed, DecodeError, TimedOut
from special.observability import metrics, trace
from special.workers.lanes import Lane, single_lane
from special.workers.messages import Call, Failed, Outcome, Raised, Returned, dump
from special.workers.process import Child, Unfit, spawn
from special.workers.quarantine import Quarantine

log = logging.getLogger(__name__)
T = TypeVar("T")

_STARTS: Final = 3
"""So often each child is tried while none is up."""
_ALONE_S: Final = 1.0
"""So long the first one has the processors to itself."""
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
"""Between attempts to replace a child, where a replacement does not even get ready."""


@dataclass(slots=True, eq=False)
class _Job:
    """A call on its way."""

    name: str
    message: list[bytes]
    queue: _Queue
    client: str
    culprit: str | None
    arrived: float
    deadline: float
    result: asyncio.Future[Any]
    started: float | None = None
    timer: asyncio.TimerHandle | None = None
    overdue: bool = False
    """Its child was killed at the deadline, and has not crashed."""

    def end(self, outcome: str, *, value: object = None, error: BaseException | None = None) -> None:
        """Give the caller its result or error, once; a caller that has gone gets none."""
        if self.timer is not None:
            self.timer.cancel()
        if self.started is None:
            self.queue.count("waiting").dec()
        if self.result.done():
            return
        metrics.DECODER_JOBS.labels(outcome).inc()
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


@dataclass(slots=True, eq=False)
class _Queue:
    """A lane at work."""

    lane: Lane
    running: int = 0
    waiting: FairQueue[_Job] = field(default_factory=FairQueue)

    def count(self, state: Literal["running", "waiting"]) -> Gauge:
        """The metric of its jobs."""
        return metrics.LANE_JOBS.labels(self.lane.name, state)


class Workers:
    """Decoder processes behind one `run`.

    There is a process for each place of each lane, and one to spare: a child that dies has a ready successor,
    and the spare is made up for in the background. One event loop only; not thread-safe.
    """

    def __init__(
        self,
        count: int,
        *,
        memory_bytes: int,
        lanes: Sequence[Lane] | None = None,
        spare: int = 1,
        prepare: Callable[[], object] = prepare_codecs,
    ) -> None:
        chosen = tuple(lanes) if lanes is not None else single_lane(count)
        self._queues = {lane.name: _Queue(lane) for lane in chosen}
        self._default = chosen[0].name
        self._size = sum(lane.running for lane in chosen) + spare
        self._memory_bytes = memory_bytes
        self._prepare = prepare
        self._jobs: dict[Child, _Job | None] = {}
        self._idle: list[Child] = []
        self._repairs: set[asyncio.Task[None]] = set()
        self._quarantine = Quarantine()
        self._open = self._started = False

    async def start(self) -> None:
        """Start all children, and wait for the first; the others get ready in the background.

        One that dies before it is ready, killed from outside perhaps, is tried again: it must not keep a server from
        starting. Raises `ConfigurationError` where none gets ready, each tried three times, or the first says that it
        cannot.
        """
        self._open = True
        coming = [self._repair(tries=_STARTS)]
        try:
            await asyncio.wait(coming, timeout=_ALONE_S)
            if coming[0].done() and isinstance(error := coming[0].exception(), Unfit):
                raise error
            coming += [self._repair(tries=_STARTS) for _ in range(self._size - 1)]
            while not self.ready and (left := [task for task in coming if not task.done()]):
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            failures = [error for task in coming if task.done() and (error := task.exception())]
            if len(failures) == self._size:
                raise failures[0]
            self._started = True
        except BaseException:
            await self.close()
            raise
        for _ in failures:
            self._repair()

    async def close(self) -> None:
        """End all children and wait until they are gone. Whoever waits for a result gets `Busy`."""
        self._open = False
        for repair in self._repairs:
            repair.cancel()
        await asyncio.gather(*self._repairs, return_exceptions=True)
        for queue in self._queues.values():
            while queue.waiting:
                queue.waiting.take().end("busy", error=Busy("the server is stopping"))
        children = list(self._jobs)
        for child in children:
            child.kill()
        await asyncio.gather(*(child.gone for child in children))

    @property
    def ready(self) -> bool:
        """Whether any child is up."""
        return bool(self._jobs)

    @property
    def busy(self) -> bool:
        """Whether any job runs or waits."""
        return any(queue.running or queue.waiting for queue in self._queues.values())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run(
        self,
        function: Callable[..., T],
        /,
        *args: object,
        deadline: Deadline,
        lane: str | None = None,
        client: str = "",
        quarantine_key: str | None = None,
    ) -> T:
        """`function(*args)` in a child; both must be picklable, the function by its name.

        `deadline_s` counts from now, the wait included; the lane's own bounds it. `wait_s` is the longest wait for a
        decoder, the lane's if it is not given. Clients are served in turn. `culprit` names what the job works on:
        after two crashes on it, its jobs are refused for ten minutes.
        A caller that is cancelled leaves nothing behind: a waiting job is dropped, a running one is
        finished, or killed at its deadline, and its result thrown away.

        Raises what the function raises where that is a `SpecialError`, and `DecodeError` for anything else (the
        traceback is in the log). `Busy`: the queue is full, or the wait too long. `TimedOut`: the child was
        killed at the deadline. `Crashed`: it died, or others did on this culprit.

        Costs 0.2 to 0.3 ms for 100 KB in and 50 KB out, most of it the scheduler's (two cores, both busy).
        """
        queue = self._queues[lane or self._default]
        self._quarantine.check(quarantine_key)
        allowed_s = deadline.left_s
        self._check(queue, allowed_s)
        now = monotonic()
        message = dump(Call(function, args, allowed_s))
        name = getattr(function, "__qualname__", repr(function))
        loop = asyncio.get_running_loop()
        job = _Job(name, message, queue, client, quarantine_key, now, now + allowed_s, loop.create_future())
        job.timer = loop.call_later(allowed_s, self._waited_too_long, job)
        queue.waiting.put(client, job)
        queue.count("waiting").inc()
        self._dispatch()
        try:
            return cast("T", await job.result)
        except asyncio.CancelledError:
            metrics.DECODER_JOBS.labels("cancelled").inc()
            if job.started is None:
                with suppress(LookupError):  # it has just been refused, or the server stops and has emptied the queue
                    queue.waiting.remove(client, job)
                    job.end("cancelled")
            raise
        finally:
            trace().took("queue", job.arrived, job.started or monotonic())

    def _check(self, queue: _Queue, allowed_s: float) -> None:
        """Raise `Busy` where a job cannot be taken."""
        lane = queue.lane
        free = queue.running < lane.running and not queue.waiting
        refusal = (
            "the pool is not open"
            if not self._open
            else f"{allowed_s:.3f} s are left of the deadline"
            if allowed_s <= 0
            else f"{len(queue.waiting)} jobs wait already"
            if not free and len(queue.waiting) >= lane.queue
            else None
        )
        if refusal is not None:
            metrics.DECODER_JOBS.labels("busy").inc()
            metrics.LANE_REFUSALS.labels(lane.name).inc()
            raise Busy(f"lane {lane.name}: {refusal}")

    def _waited_too_long(self, job: _Job) -> None:
        job.queue.waiting.remove(job.client, job)
        waited_s = monotonic() - job.arrived
        metrics.LANE_REFUSALS.labels(job.queue.lane.name).inc()
        job.end("busy", error=Busy(f"lane {job.queue.lane.name}: no decoder was free within {waited_s:.1f} s"))

    def _dispatch(self) -> None:
        """Give waiting jobs to idle children, lane by lane in their order, client by client in turn."""
        for queue in self._queues.values():
            while self._idle and queue.waiting and queue.running < queue.lane.running:
                self._begin(queue.waiting.take(), self._idle.pop())

    def _begin(self, job: _Job, child: Child) -> None:
        job.started = monotonic()
        job.queue.running += 1
        job.queue.count("waiting").dec()
        job.queue.count("running").inc()
        self._jobs[child] = job
        assert job.timer is not None, "admitted jobs have a timer"
        job.timer.cancel()
        job.timer = asyncio.get_running_loop().call_later(job.deadline - job.started, self._overdue, job, child)
        child.send(job.message)
        job.message = []  # what was sent need not be kept while the child works

    def _overdue(self, job: _Job, child: Child) -> None:
        job.overdue = True
        child.kill()
        job.end("timed-out", error=TimedOut(f"{job.name} was killed after {monotonic() - job.arrived:.1f} s"))

    def replied(self, child: Child, reply: Outcome) -> None:
        """A child has done its job: take the next one."""
        job = self._jobs[child]
        if job is None:
            child.kill()  # it answers what nobody asked
            return
        self._free(child, job)
        match reply:
            case Returned(value):
                job.end("done", value=value)
            case Raised(error):
                job.end(error.code, error=error)
            case Failed(text):
                log.error("%s failed in a decoder:\n%s", job.name, text)
                job.end("failed", error=DecodeError(f"{job.name}: {text.strip().splitlines()[-1]}"))
        self._idle.append(child)
        self._dispatch()

    def lost(self, child: Child) -> None:
        """A child has died: fail its job alone, and start another."""
        if child not in self._jobs:
            return  # it got ready just when nobody waited for it any more
        metrics.DECODERS_UP.dec()
        job = self._jobs[child]
        if job is None:
            self._idle.remove(child)
        else:
            self._free(child, job)
        del self._jobs[child]
        if not self._open:
            if job is not None:
                job.end("busy", error=Busy("the server is stopping"))
            return
        log.warning("decoder %d %s%s", child.pid, child.ending, f" during {job.name}" if job else "")
        if job is not None and not job.overdue:
            self._quarantine.crashed(job.culprit)
            job.end("crashed", error=Crashed(f"decoder {child.pid} {child.ending} during {job.name}"))
        self._repair()
        self._dispatch()

    def _free(self, child: Child, job: _Job) -> None:
        self._jobs[child] = None
        job.queue.running -= 1
        job.queue.count("running").dec()

    async def _add(self) -> None:
        child = await spawn(self, memory_bytes=self._memory_bytes, prepare=self._prepare)
        metrics.DECODERS_UP.inc()
        self._jobs[child] = None
        self._idle.append(child)
        self._dispatch()

    def _repair(self, *, tries: int | None = None) -> asyncio.Task[None]:
        """Have another child in the background."""
        repair = asyncio.create_task(self._replace(tries))
        self._repairs.add(repair)
        repair.add_done_callback(self._repairs.discard)
        return repair

    async def _replace(self, tries: int | None) -> None:
        """Try until it works, or so often while we start and no other child is up."""
        pause_s, failures = _FIRST_PAUSE_S, 0
        while True:
            try:
                return await self._add()
            except (ConfigurationError, OSError) as error:
                failures += 1
                hopeless = failures == tries or (tries is not None and isinstance(error, Unfit))
                if hopeless and not (self.ready or self._started):
                    raise
                log.error("no decoder more: %s; trying again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
