"""A queue in which clients take turns, so that nobody's hundred requests stand before another's one. Pure.

Within a client first come is first served; among clients one each, in turn. A full queue makes room for
whoever has less in it: the last to be served of whoever has most gives way. (Fair queueing with drops
from the longest queue: Demers 1989, McKenney 1990.)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of clients, who are served in turn. A client without items is forgotten."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, item: T) -> None:
        """Add an item behind the client's others; a new client's turn comes after everybody else's."""
        self._turns.setdefault(client, deque()).append(item)
        self._count += 1

    def first(self) -> T | None:
        """What `take` would give; None where nothing waits."""
        return next((items[0] for items in self._turns.values()), None)

    def take(self) -> T:
        """The next item; its client's turn comes again after everybody else's. Raises `LookupError` if none waits."""
        client, items = next(iter(self._turns.items()), (None, None))
        if client is None or items is None:
            raise LookupError("nothing waits")
        item = items.popleft()
        self._count -= 1
        if items:
            self._turns.move_to_end(client)
        else:
            del self._turns[client]
        return item

    def remove(self, client: str, item: T) -> None:
        """Take an item out of its turn. Raises `LookupError` where it does not wait."""
        items = self._turns.get(client)
        if items is None or item not in items:
            raise LookupError(f"nothing such waits of {client}")
        items.remove(item)
        self._count -= 1
        if not items:
            del self._turns[client]

    def give_way(self, client: str) -> T | None:
        """Drop the last item of whoever has most, if that leaves them no less than one more of `client` would have.

        None, and nothing is dropped, where `client` has the most itself, or as many but one.
        """
        if not self.gives_way(client):
            return None
        self._count -= 1
        return max(self._turns.values(), key=len).pop()

    def gives_way(self, client: str) -> bool:
        """Whether `give_way` would drop anything."""
        most = max(map(len, self._turns.values()), default=0)
        return most >= len(self._turns.get(client, ())) + 2

    def before(self, client: str) -> int:
        """How many items would be taken before a further one of `client`, if nobody else came."""
        own = len(self._turns.get(client, ()))
        return own + sum(min(len(items), own + 1) for name, items in self._turns.items() if name != client)
