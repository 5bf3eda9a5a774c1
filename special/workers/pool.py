"""The pool: gives jobs to idle children, lane by lane and client by client, and replaces children that die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
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
from special.workers.messages import Asks, Call, Failed, Gives, Layers, Outcome, Raised, Returned, Said, Told, dump
from special.workers.places import Places
from special.workers.process import Begun, Child, Unfit, begin, spawn
from special.workers.quarantine import Quarantine
from special.workers.results import ResultForm, form_of

log = logging.getLogger(__name__)
T = TypeVar("T")

_MAX_STARTS: Final = 3
"""How often each child is tried while none is up."""
_FIRST_ALONE_S: Final = 1.0
"""How long the first child has the processors to itself."""
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
"""Between attempts to replace a child, where a replacement does not even get ready."""
_HANGING: Final = 0.5
"""A job that is killed at its deadline counts for the quarantine if it had the decoder for this part of what its lane
allows: one that waited for most of that time says nothing about its master."""
_SLOW: Final = 0.1
"""A job that had the decoder for this part of what its lane allows is slow: while there is one, a client and a master
that have less than half of the lane's places may have one place more, so that they need not wait for its end."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The parent's side of a job that asks for what it needs, and hands over its result in parts.

    An error of either function ends the job, and is raised to its caller.
    """

    answer: Callable[[Sequence[int]], Awaitable[object]]
    """Answers a question; the answer must be picklable."""
    take: Callable[[Any, Sequence[bytes]], Awaitable[None]]
    """Takes a part of the result. Raises `ValueError` where it is none, which ends the child."""
    max_bytes: int
    """Maximum length of the bytes of one part."""


@dataclass(slots=True, eq=False)
class _Job:
    """A call that waits or runs."""

    name: str
    message: list[bytes]
    args: tuple[object, ...]
    form: ResultForm
    lane: _LaneState
    client: str
    master: str | None
    """The quarantine's key."""
    arrived_s: float
    deadline: Deadline
    talk: Talk | None
    result: asyncio.Future[Any]
    started_s: float | None = None
    timer: asyncio.TimerHandle | None = None
    slow_timer: asyncio.TimerHandle | None = None
    is_slow: bool = False
    """It has run for so long that the lane has a place more for others."""
    overdue: bool = False
    """Its child was killed at the deadline, and has not crashed."""

    def end(self, outcome: str, *, value: object = None, error: BaseException | None = None) -> None:
        """Give the caller its result or error, once; a caller that has gone gets none."""
        if self.timer is not None:
            self.timer.cancel()
        if self.started_s is None:
            self.lane.gauge("waiting").dec()
        if self.result.done():
            return
        metrics.DECODER_JOBS.labels(outcome).inc()
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


@dataclass(slots=True, eq=False)
class _LaneState:
    """One lane's running and waiting jobs."""

    lane: Lane
    places: Places
    slow: int = 0
    """How many of the running jobs are slow."""
    waiting: FairQueue[_Job] = field(default_factory=FairQueue)

    def gauge(self, state: Literal["running", "waiting"]) -> Gauge:
        return metrics.LANE_JOBS.labels(self.lane.name, state)


class Workers:
    """Decoder processes behind one `run`.

    There are as many as all lanes together may have running, and one more: a child that dies has a ready successor,
    and is replaced in the background. With `idle_s` they begin on demand: there is one more than jobs, and what nothing
    was asked of for so long ends. One event loop only; not thread-safe.
    """

    def __init__(
        self,
        count: int,
        *,
        memory_bytes: int,
        lanes: Sequence[Lane] | None = None,
        spare: int = 1,
        prepare: Callable[[], object] = prepare_codecs,
        begun: Begun | None = None,
        idle_s: float | None = None,
    ) -> None:
        """`begun`: the first of the children, which gets ready already."""
        chosen = tuple(lanes) if lanes is not None else single_lane(count)
        self._lanes = {lane.name: _LaneState(lane, Places(lane.running)) for lane in chosen}
        self._cores = max(lane.running for lane in chosen)
        self._default = chosen[0].name
        self._size = sum(lane.running for lane in chosen) + spare
        self._memory_bytes = memory_bytes
        self._prepare = prepare
        self._begun = begun
        self._jobs: dict[Child, _Job | None] = {}
        self._idle_s = idle_s
        self._idle: dict[Child, float] = {}
        """The children without a job, and since when, the last one last."""
        self._retiring: asyncio.TimerHandle | None = None
        self._repairs: set[asyncio.Task[None]] = set()
        self._replies: set[asyncio.Task[None]] = set()
        self._quarantine = Quarantine()
        self._sandbox: Layers = {}
        self._open = self._started = False

    async def start(self) -> None:
        """Start the children, and wait for the first; the others get ready in the background.

        One that dies before it is ready, killed from outside perhaps, is tried again: it must not keep a server from
        starting. Raises `ConfigurationError` where none gets ready, each tried three times, or where the first one
        reports that it cannot.
        """
        self._open = True
        coming = [self._repair(tries=_MAX_STARTS)]
        try:
            await asyncio.wait(coming, timeout=_FIRST_ALONE_S)
            if coming[0].done() and isinstance(error := coming[0].exception(), Unfit):
                raise error
            others = 0 if self._idle_s is not None and self.ready else self._size - 1
            coming += [self._repair(tries=_MAX_STARTS) for _ in range(others)]
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
        """End all children and wait until they are gone. Jobs that have no result yet end with `Busy`."""
        self._open = False
        if self._retiring is not None:
            self._retiring.cancel()
        background = (*self._repairs, *self._replies)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for state in self._lanes.values():
            while state.waiting:
                state.waiting.take().end("busy", error=Busy("the server is stopping"))
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
        return any(state.places.taken or state.waiting for state in self._lanes.values())

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
        talk: Talk | None = None,
    ) -> T:
        """`function(*args)` in a child; both must be picklable, the function by its name.

        The job waits for a child until the deadline, and is killed there if it still runs; the lane bounds the
        deadline. Clients are served in turn. `quarantine_key` names what the job works on: its jobs have at most half
        of the lane's places while others wait, and are refused for ten minutes after they cost two decoders.
        A caller that is cancelled leaves nothing behind: a waiting job is dropped, a running one is
        finished, or killed at its deadline, and its result thrown away.

        With `talk` the function is called with a `Channel` before its arguments. Such a job may take any time: the
        lane bounds what passes between two messages of it.

        Raises what the function raises where that is an error that `messages` lets through, and `DecodeError` for
        anything else (the traceback is in the log). `TimedOut`: the deadline is over. `Crashed`: the child died;
        `Quarantined`: others did on this key. `Busy`: the pool is not open.

        Costs 0.2 to 0.3 ms for 100 KB in and 50 KB out, most of it the scheduler's (two cores, both busy).
        """
        state = self._lanes[lane or self._default]
        self._quarantine.check(quarantine_key)
        if not self._open:
            metrics.DECODER_JOBS.labels("busy").inc()
            raise Busy("the pool is not open")
        deadline = deadline.within(state.lane.deadline_s)
        if deadline.expired:
            metrics.DECODER_JOBS.labels("timed-out").inc()
            raise TimedOut(f"lane {state.lane.name}: nothing is left of the deadline")
        message = dump(Call(function, args, deadline.left_s, talk is not None))
        name = getattr(function, "__qualname__", repr(function))
        loop = asyncio.get_running_loop()
        form = form_of(function)
        job = _Job(
            name, message, args, form, state, client, quarantine_key, monotonic(), deadline, talk, loop.create_future()
        )
        job.timer = loop.call_later(deadline.left_s, self._expire, job)
        state.waiting.put(client, job)
        state.gauge("waiting").inc()
        self._dispatch()
        try:
            return cast("T", await job.result)
        except asyncio.CancelledError:
            metrics.DECODER_JOBS.labels("cancelled").inc()
            if job.started_s is None:
                with suppress(LookupError):  # it has just expired, or the server stops and has emptied the queue
                    state.waiting.remove(client, job)
                    job.end("cancelled")
            raise
        finally:
            trace().took("queue", job.arrived_s, job.started_s or monotonic())

    def _expire(self, job: _Job) -> None:
        """The deadline of a waiting job is over."""
        job.lane.waiting.remove(job.client, job)
        metrics.LANE_REFUSALS.labels(job.lane.lane.name).inc()
        waited_s = monotonic() - job.arrived_s
        error = TimedOut(f"lane {job.lane.lane.name}: no decoder was free within {waited_s:.1f} s")
        job.end("timed-out", error=error)

    def _dispatch(self) -> None:
        """Give waiting jobs to idle children, lane by lane in their order, client by client in turn.

        A lane leaves cheaper ones a child for each of their unused places, as far as there are enough children; those
        that begin on demand count.
        """
        reserved = 0
        to_come = 0 if self._idle_s is None else self._size - len(self._jobs)
        most = len(self._jobs) + to_come - 1
        for state in self._lanes.values():
            while self._idle and len(self._idle) + to_come > min(reserved, most) and (job := self._next(state)):
                state.waiting.serve(job.client, job)
                self._begin(job, self._idle.popitem()[0])
            reserved += state.places.unused
        if self._idle_s is not None and self._started and self._open:
            waiting = sum(min(len(it.waiting), it.places.unused) for it in self._lanes.values())
            for _ in range(self._missing(waiting)):
                self._repair()

    def _missing(self, waiting: int) -> int:
        """How many children are to begin, for the jobs that wait and have a place, and one more."""
        up, busy = len(self._jobs) + len(self._repairs), len(self._jobs) - len(self._idle)
        return min(self._size, busy + waiting + 1) - up

    def _rest(self, child: Child) -> None:
        """A child has nothing to do."""
        self._idle[child] = monotonic()
        if self._idle_s is not None and self._retiring is None:
            self._retiring = asyncio.get_running_loop().call_later(self._idle_s, self._retire, self._idle_s)

    def _retire(self, idle_s: float) -> None:
        """End the children that nothing was asked of for so long, but for one more than jobs."""
        self._retiring, latest_s = None, monotonic() - idle_s
        for child in [it for it, since_s in self._idle.items() if since_s <= latest_s][: len(self._idle) - 1]:
            del self._idle[child], self._jobs[child]
            metrics.DECODERS_UP.dec()
            child.kill()
        if len(self._idle) > 1:
            self._retiring = asyncio.get_running_loop().call_later(idle_s, self._retire, idle_s)

    def _next(self, state: _LaneState) -> _Job | None:
        """The job that a lane may begin: any while a processor is idle, else one for which it has a place."""
        if sum(it.places.taken for it in self._lanes.values()) < self._cores:
            return state.places.next_beyond(state.waiting)
        return state.places.next(state.waiting, extra=min(1, state.slow))

    def _begin(self, job: _Job, child: Child) -> None:
        job.started_s = monotonic()
        job.lane.places.enter(job)
        job.lane.gauge("waiting").dec()
        job.lane.gauge("running").inc()
        self._jobs[child] = job
        assert job.timer is not None, "waiting jobs have a timer"
        self._watch(job, child, job.deadline.left_s)
        slow_after_s = _SLOW * job.lane.lane.deadline_s
        job.slow_timer = asyncio.get_running_loop().call_later(slow_after_s, self._slow, job)
        child.send(job.message, max_reply_bytes=job.talk.max_bytes if job.talk else job.form.max_bytes(job.args))
        job.message = []  # it need not be kept while the child works

    def _watch(self, job: _Job, child: Child, seconds: float) -> None:
        """Kill the child after that many seconds, unless it is heard of before."""
        if job.timer is not None:
            job.timer.cancel()
        job.timer = asyncio.get_running_loop().call_later(seconds, self._kill_overdue, job, child)

    def said(self, child: Child, said: Said) -> None:
        """A child's job talks to us."""
        job = self._jobs[child]
        if job is None or job.talk is None or job.result.done():
            child.kill()  # it was not to, or its caller has gone
            return
        self._watch(job, child, job.lane.lane.deadline_s)
        reply = asyncio.create_task(self._reply(child, job, job.talk, said))
        self._replies.add(reply)
        reply.add_done_callback(self._replies.discard)

    async def _reply(self, child: Child, job: _Job, talk: Talk, said: Said) -> None:
        try:
            told: object = None
            match said:
                case Asks(numbers):
                    told = await talk.answer(numbers)
                case Gives(value, parts):
                    await talk.take(value, parts)
        except ValueError:
            child.kill()  # its job is then lost
        except Exception as error:  # the caller's own
            job.overdue = True
            job.end("failed", error=error)
            child.kill()
        else:
            if self._jobs.get(child) is job and not job.result.done():
                child.send(dump(Told(told)), max_reply_bytes=talk.max_bytes)

    def _slow(self, job: _Job) -> None:
        job.is_slow = True
        job.lane.slow += 1
        self._dispatch()

    def _kill_overdue(self, job: _Job, child: Child) -> None:
        job.overdue = True
        child.kill()
        assert job.started_s is not None, "it runs"
        if monotonic() - job.started_s >= _HANGING * job.lane.lane.deadline_s:
            self._quarantine.count(job.master)
        error = TimedOut(f"{job.name} was killed after {monotonic() - job.arrived_s:.1f} s")
        job.end("timed-out", error=error)

    def replied(self, child: Child, reply: Outcome) -> None:
        """A child has done its job: take the next one."""
        job = self._jobs[child]
        if job is None:
            child.kill()  # it was sent no call
            return
        match reply:
            case Returned():
                try:
                    value = job.form.unpack(reply, job.args)
                except ValueError:
                    child.kill()  # its job is then lost
                    return
                self._free(child, job)
                job.end("done", value=value)
            case Raised(error):
                self._free(child, job)
                job.end(error.code, error=error)
            case Failed(text):
                self._free(child, job)
                log.error("%s failed in a decoder:\n%s", job.name, text)
                job.end("failed", error=DecodeError(f"{job.name}: {(text.strip() or 'no reason').splitlines()[-1]}"))
        self._rest(child)
        self._dispatch()

    def lost(self, child: Child) -> None:
        """A child has died: fail its job alone, and start another."""
        if child not in self._jobs:
            return  # it got ready when it had just been given up, or was not needed any more
        metrics.DECODERS_UP.dec()
        job = self._jobs[child]
        if job is None:
            del self._idle[child]
        else:
            self._free(child, job)
        del self._jobs[child]
        if not self._open:
            if job is not None:
                job.end("busy", error=Busy("the server is stopping"))
            return
        log.warning("decoder %d %s%s", child.pid, child.ending, f" during {job.name}" if job else "")
        if job is not None and not job.overdue:
            self._quarantine.count(job.master)
            job.end("crashed", error=Crashed(f"decoder {child.pid} {child.ending} during {job.name}"))
        self._repair()
        self._dispatch()

    def _free(self, child: Child, job: _Job) -> None:
        self._jobs[child] = None
        job.lane.places.leave(job)
        assert job.slow_timer is not None, "running jobs have both timers"
        job.slow_timer.cancel()
        job.lane.slow -= job.is_slow
        job.lane.gauge("running").dec()

    async def _add(self) -> None:
        begun, self._begun = self._begun or begin(), None
        child = await spawn(self, begun, memory_bytes=self._memory_bytes, prepare=self._prepare)
        metrics.DECODERS_UP.inc()
        self._report(child.sandbox)
        self._jobs[child] = None
        self._rest(child)

    def _report(self, sandbox: Layers) -> None:
        """Log the layers of the decoders' sandbox when they are first known, and export them: 1 where all have one."""
        if sandbox != self._sandbox:
            held = ", ".join(name for name, holds in sandbox.items() if holds)
            missing = ", ".join(name for name, holds in sandbox.items() if not holds)
            log.info("sandbox of the decoders: %s%s", held, f"; without {missing}" if missing else "")
            self._sandbox = sandbox
        for name, holds in sandbox.items():
            metrics.DECODER_SANDBOX.labels(name).set(holds)

    def _repair(self, *, tries: int | None = None) -> asyncio.Task[None]:
        """Start another child in the background."""
        repair = asyncio.create_task(self._replace(tries))
        self._repairs.add(repair)
        repair.add_done_callback(self._repaired)
        return repair

    def _repaired(self, repair: asyncio.Task[None]) -> None:
        self._repairs.discard(repair)
        self._dispatch()

    async def _replace(self, tries: int | None) -> None:
        """Try until it works; while the pool starts and no other child is up, `tries` times."""
        pause_s, failures = _FIRST_PAUSE_S, 0
        while True:
            try:
                return await self._add()
            except (ConfigurationError, OSError) as error:
                failures += 1
                hopeless = failures == tries or (tries is not None and isinstance(error, Unfit))
                if hopeless and not (self.ready or self._started):
                    raise
                log.error("a decoder cannot be replaced: %s; trying again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
