"""The open connections of one server process, counted by client, and who of them is told to come again.

A connection is refused when its first request is known, not when it is opened: the pages for monitoring are answered
whatever the load is. Until then it takes a descriptor, and at the limit of descriptors new connections are reset before
anything can be said. So connections over the limit are bounded too: one that asks for nothing is closed for a new one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from special.errors import Busy
from special.web.proxies import TrustedProxies, client_name
from special.web.response import send_error

CLIENT_SHARE = 4
"""One client address may have one connection in this many."""
SURPLUS_SHARE = 8
"""Connections over the limit, as a part of it: they are told to come again, or ask for a page for monitoring."""
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be at a time."""

    connections: int
    """Maximum number of connections of the server process, idle ones included."""
    proxies: TrustedProxies
    """Peers that bring the requests of many clients: no limit of their own."""

    @property
    def of_one_client(self) -> int:
        return max(1, self.connections // CLIENT_SHARE)

    @property
    def surplus(self) -> int:
        return max(1, self.connections // SURPLUS_SHARE)


class Connection(Protocol):
    """What an open connection can be asked."""

    def close_unused(self) -> bool:
        """Close it unless it has a request to answer or an answer to send; whether it closes."""


@dataclass(slots=True)
class Connections:
    """The connections that are open now."""

    limits: ConnectionLimits
    _max_of_client: int = field(init=False)
    _by_client: Counter[str] = field(default_factory=Counter)
    _open: int = 0
    _surplus: dict[Connection, None] = field(default_factory=dict)
    """Those that were opened over the limit, oldest first."""

    def __post_init__(self) -> None:
        self._max_of_client = self.limits.of_one_client

    def opened(self, peer: str, connection: Connection) -> None:
        self._open += 1
        self._by_client[client_name(peer)] += 1
        if self._open > self.limits.connections:
            self._surplus[connection] = None
            if self._open > self.limits.connections + self.limits.surplus:
                closed = next((it for it in self._surplus if it.close_unused()), None)
                if closed is not None:
                    del self._surplus[closed]

    def closed(self, peer: str, connection: Connection) -> None:
        name = client_name(peer)
        self._surplus.pop(connection, None)
        self._open -= 1
        self._by_client[name] -= 1
        if not self._by_client[name]:
            del self._by_client[name]

    def is_too_many(self, peer: str) -> bool:
        """Whether the requests of a peer are refused: there are too many connections, or too many of its own."""
        if self._open <= self._max_of_client:
            return False
        if self._open > self.limits.connections:
            return True
        return peer not in self.limits.proxies and self._by_client[client_name(peer)] > self._max_of_client


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection too many."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    await send_error(closing, Busy(after_s=RETRY_AFTER_S), head=scope["method"] == "HEAD")
