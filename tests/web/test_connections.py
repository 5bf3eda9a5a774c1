"""Which connections are closed for new ones, with connections that only record it."""

from __future__ import annotations

from dataclasses import dataclass

from special.web.connections import ConnectionLimits, Connections
from special.web.proxies import TrustedProxies

LIMITS = ConnectionLimits(16, TrustedProxies.parse(["127.0.0.1"]))


@dataclass(eq=False)
class Recorded:
    """A connection that has a request, or none."""

    is_used: bool = False
    is_closed: bool = False

    def close_unused(self) -> bool:
        self.is_closed = not self.is_used
        return self.is_closed


def opened(connections: Connections, number: int, *, is_used: bool = False) -> list[Recorded]:
    made = [Recorded(is_used) for _ in range(number)]
    for connection in made:
        connections.opened("127.0.0.1", connection)
    return made


def test_the_oldest_connection_over_the_limit_is_closed_for_a_new_one() -> None:
    connections = Connections(LIMITS)
    made = opened(connections, 16 + LIMITS.surplus)
    assert not any(it.is_closed for it in made)
    opened(connections, 1)
    assert [it.is_closed for it in made] == [*[False] * 16, True, *[False] * (LIMITS.surplus - 1)]


def test_a_connection_with_a_request_is_not_closed() -> None:
    connections = Connections(LIMITS)
    opened(connections, 16)
    (used,) = opened(connections, 1, is_used=True)
    unused = opened(connections, LIMITS.surplus)[0]
    assert (used.is_closed, unused.is_closed) == (False, True)


def test_a_connection_that_is_gone_is_not_asked() -> None:
    connections = Connections(LIMITS)
    opened(connections, 16)
    gone, other = opened(connections, 2)
    connections.closed("127.0.0.1", gone)
    opened(connections, 2)
    assert (gone.is_closed, other.is_closed) == (False, True)
