"""Whose turn it is, as a pure queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from special.concurrency.fair_queue import FairQueue


def queue(*arrivals: str) -> FairQueue[str]:
    """Items called by their client and number: `a1 a2 b1`."""
    made: FairQueue[str] = FairQueue()
    for item in arrivals:
        made.put(item[0], item)
    return made


def drained(waiting: FairQueue[str]) -> list[str]:
    return [waiting.take() for _ in range(len(waiting))]


@pytest.mark.parametrize(
    ("arrivals", "served"),
    [
        pytest.param("", "", id="none"),
        pytest.param("a1 a2 a3", "a1 a2 a3", id="one client: first come, first served"),
        pytest.param("a1 a2 a3 b1", "a1 b1 a2 a3", id="one request behind three"),
        pytest.param("a1 b1 a2 b2 a3", "a1 b1 a2 b2 a3", id="in turn already"),
        pytest.param("a1 a2 a3 b1 b2 c1", "a1 b1 c1 a2 b2 a3", id="three clients"),
    ],
)
def test_clients_take_turns(arrivals: str, served: str) -> None:
    assert drained(queue(*arrivals.split())) == served.split()


def test_who_comes_back_stands_behind_those_who_wait() -> None:
    waiting = queue("a1", "b1")
    assert waiting.take() == "a1"
    waiting.put("a", "a2")
    assert drained(waiting) == ["b1", "a2"]


def test_leaving_does_not_change_the_order_of_the_others() -> None:
    waiting = queue("a1", "a2", "b1", "c1")
    waiting.remove("a", "a1")
    waiting.remove("c", "c1")
    assert waiting.first() == "a2"
    assert drained(waiting) == ["a2", "b1"]
    with pytest.raises(LookupError):
        waiting.remove("a", "a2")
    with pytest.raises(LookupError):
        waiting.take()


@pytest.mark.parametrize(
    ("arrivals", "newcomer", "dropped"),
    [
        pytest.param("a1 a2 a3", "b", "a3", id="the last of the client with most"),
        pytest.param("a1 a2", "b", "a2", id="two against none"),
        pytest.param("a1", "b", None, id="one against none"),
        pytest.param("a1 a2 a3 b1 b2", "b", None, id="three against two"),
        pytest.param("a1 a2 a3 a4 b1 b2", "b", "a4", id="four against two"),
        pytest.param("a1 a2 a3", "a", None, id="the client with most gets no more"),
        pytest.param("", "a", None, id="none waits"),
    ],
)
def test_who_has_most_gives_way(arrivals: str, newcomer: str, dropped: str | None) -> None:
    waiting = queue(*arrivals.split())
    assert waiting.give_way(newcomer) == dropped
    assert drained(waiting).count(dropped or "") == 0
    assert len(arrivals.split()) - len(waiting) >= 0


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.sampled_from("abcde"))
def test_no_item_waits_longer_than_was_said(clients: list[str], newcomer: str) -> None:
    waiting: FairQueue[str] = FairQueue()
    for client in clients:
        waiting.put(client, client)
    expected = waiting.before(newcomer)
    waiting.put(newcomer, "last")
    order = drained(waiting)
    assert order.index("last") <= expected
    assert expected <= len(clients)
    if newcomer not in clients:
        assert order.index("last") == expected == len(set(clients))
