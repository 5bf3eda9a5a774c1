"""A fair queue: clients are served in turn, so that one client's hundred requests do not delay another's one. Pure.

Within a client first come is first served; among clients one each, in turn. In a full queue the client with most
items loses its last one to a client with fewer. (Fair queueing with drops from the longest queue: Demers 1989,
McKenney 1990.)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by client. A client without items is forgotten."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, item: T) -> None:
        """Add an item behind the client's others; a new client is served after all others."""
        self._queues.setdefault(client, deque()).append(item)
        self._count += 1

    def first(self, accepted: Callable[[T], bool] = lambda _: True) -> T | None:
        """The next item in turn that is accepted; None where there is none."""
        return next((item for items in self._queues.values() for item in items if accepted(item)), None)

    def take(self) -> T:
        """The next item; its client is served again after all others. Raises `LookupError` if none waits."""
        client, items = next(iter(self._queues.items()), (None, None))
        if client is None or items is None:
            raise LookupError("nothing waits")
        item = items[0]
        self.serve(client, item)
        return item

    def serve(self, client: str, item: T) -> None:
        """Remove an item whose turn it is; its client is served again after all others."""
        self.remove(client, item)
        if client in self._queues:
            self._queues.move_to_end(client)

    def remove(self, client: str, item: T) -> None:
        """Remove a waiting item. Raises `LookupError` where it does not wait."""
        items = self._queues.get(client)
        if items is None or item not in items:
            raise LookupError(f"no such item of {client} waits")
        items.remove(item)
        self._count -= 1
        if not items:
            del self._queues[client]

    def give_way(self, client: str) -> T | None:
        """Drop the last item of the client with most, if it then still has at least as many as `client` with one more.

        None, and nothing is dropped, where `client` has the most itself, or as many but one.
        """
        if not self.gives_way(client):
            return None
        self._count -= 1
        return max(self._queues.values(), key=len).pop()

    def gives_way(self, client: str) -> bool:
        """Whether `give_way` would drop anything."""
        most = max(map(len, self._queues.values()), default=0)
        return most >= len(self._queues.get(client, ())) + 2

    def before(self, client: str) -> int:
        """How many items would be taken before a further one of `client`, if no others came."""
        own = len(self._queues.get(client, ()))
        return own + sum(min(len(items), own + 1) for name, items in self._queues.items() if name != client)
