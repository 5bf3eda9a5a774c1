"""Who has which of a lane's places, against the rule as the design states it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from special.concurrency import FairQueue
from special.workers.places import Places


@dataclass(frozen=True, eq=False)
class Job:
    client: str
    master: str | None = None


def entered(places: Places, jobs: list[Job], *, extra: int = 0) -> str:
    """The clients of those that may enter, in that order, where all of them wait."""
    waiting: FairQueue[Job] = FairQueue()
    for job in jobs:
        waiting.put(job.client, job)
    order = ""
    while (job_ := places.next(waiting, extra=extra)) is not None:
        waiting.serve(job_.client, job_)
        places.enter(job_)
        order += job_.client
    return order


@pytest.mark.parametrize(
    ("count", "inside", "waiting", "order"),
    [
        pytest.param(4, "", "aaaaaa", "aaaa", id="alone: all places"),
        pytest.param(4, "", "aaaaaabbbbbb", "abab", id="two: half each"),
        pytest.param(5, "", "aaaaab", "abaaa", id="what the others leave is for the one with most"),
        pytest.param(4, "aaaa", "aaabbb", "bb", id="above its half it counts for nothing"),
        pytest.param(4, "aaa", "ab", "b", id="and the fifth place is not for it"),
        pytest.param(1, "a", "b", "", id="one place has no half"),
        pytest.param(3, "aaa", "bb", "b", id="half of three is two"),
    ],
)
def test_half_of_the_places(count: int, inside: str, waiting: str, order: str) -> None:
    places = Places(count)
    for client in inside:
        places.enter(Job(client))
    assert entered(places, [Job(client) for client in waiting]) == order


def test_extra_places_are_for_those_with_less_than_half() -> None:
    places = Places(1)
    places.enter(Job("a", "slow"))
    assert entered(places, [Job("a", "good"), Job("b", "slow"), Job("c", "good"), Job("d", "fair")], extra=1) == "c"


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from([None, "x", "y"]), st.integers(0, 99))),
)
def test_there_are_never_more_than_half_as_many_again(
    count: int, events: list[tuple[bool, str, str | None, int]]
) -> None:
    places, inside, waiting = Places(count), list[Job](), FairQueue[Job]()
    for comes, client, master, number in events:
        if comes:
            waiting.put(client, Job(client, master))
        elif inside:
            places.leave(inside.pop(number % len(inside)))
        while (job := places.next(waiting)) is not None:
            held = Counter(it.client for it in inside), Counter(it.master for it in inside)
            has_half = max(held[0][job.client], held[1][job.master] if job.master else 0) >= (count + 1) / 2
            assert not has_half or len(inside) < count
            waiting.serve(job.client, job)
            places.enter(job)
            inside.append(job)
        assert places.taken == len(inside) <= count + count // 2
        assert not waiting or len(inside) >= count, "no place is left unused while a job waits"
