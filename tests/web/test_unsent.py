"""How much of what clients have not read is in memory at a time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from special.errors import Busy
from special.web.unsent import UnsentAnswers

MIB = 1 << 20


def sent(*answers: tuple[str, int], budget_bytes: int = 64 * MIB) -> list[bool]:
    """Which of some answers, by client and size, may be sent while those before them are not read."""
    unsent, allowed = UnsentAnswers(budget_bytes), []
    with ExitStack() as stack:
        for client, size_bytes in answers:
            try:
                stack.enter_context(unsent.holding(client, size_bytes))
                allowed.append(True)
            except Busy:
                allowed.append(False)
    return allowed


@pytest.mark.parametrize(
    ("answers", "allowed"),
    [
        pytest.param([("a", 10 * MIB)] * 3, [True, False, False], id="a client has half"),
        pytest.param([("a", 10 * MIB), ("b", 10 * MIB), ("c", 20 * MIB)], [True, True, False], id="all clients"),
        pytest.param([("a", 900 * MIB)], [True], id="any answer, alone"),
        pytest.param([("a", 900 * MIB), ("b", 2 * MIB)], [True, False], id="none beside it"),
        pytest.param([("a", 900 * MIB), ("b", MIB), ("b", 2 * MIB)], [True, True, False], id="but small ones"),
        pytest.param([("a", MIB)] * 17 + [("b", MIB)], [True] * 16 + [False, True], id="small ones of one client"),
        pytest.param([("a", 65536)] * 2000, [True] * 2000, id="one chunk"),
    ],
)
def test_what_is_not_read_is_bounded(answers: list[tuple[str, int]], allowed: list[bool]) -> None:
    assert sent(*answers) == allowed


def test_what_was_sent_is_free_again() -> None:
    unsent = UnsentAnswers(64 * MIB)
    for _ in range(10):
        with pytest.raises(ConnectionError), unsent.holding("a", 10 * MIB):
            raise ConnectionError
