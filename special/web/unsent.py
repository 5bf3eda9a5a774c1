"""Bounds the memory of answers that wait for their clients to read them.

An answer is whole in memory until its last byte has been written. Clients that do not read would otherwise hold as many
as they ask for: twelve of 290 MB took a server from 100 to 2,942 MiB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from special.errors import Busy
from special.web.response import CHUNK_BYTES

SMALL_BYTES = 1 << 20
"""Answers up to this size have a budget of their own: slow readers of large ones do not stop tiles."""
RETRY_AFTER_S = 5.0


class UnsentAnswers:
    """The answers of one server process that are being sent, but for those that fit into one chunk."""

    def __init__(self, budget_bytes: int) -> None:
        self._large = _Budget(budget_bytes // 2)
        self._small = _Budget(budget_bytes // 2)

    def holding(self, client: str, size_bytes: int) -> AbstractContextManager[None]:
        """The time in which one answer is sent. Raises `Busy` where too much waits already."""
        return nullcontext() if size_bytes <= CHUNK_BYTES else self._counted(client, size_bytes)

    @contextmanager
    def _counted(self, client: str, size_bytes: int) -> Iterator[None]:
        budget = self._small if size_bytes <= SMALL_BYTES else self._large
        budget.take(client, size_bytes)
        try:
            yield
        finally:
            budget.give_back(client, size_bytes)


class _Budget:
    """Bytes by client. One client has at most half of them; any answer may be sent where no other is."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._by_client: Counter[str] = Counter()

    def take(self, client: str, size_bytes: int) -> None:
        of_client = self._by_client.get(client, 0)
        if (self._bytes and self._bytes + size_bytes > self._max_bytes) or (
            of_client and of_client + size_bytes > self._max_bytes // 2
        ):
            raise Busy(f"{self._bytes:,} bytes of answers are not sent yet", after_s=RETRY_AFTER_S)
        self._bytes += size_bytes
        self._by_client[client] += size_bytes

    def give_back(self, client: str, size_bytes: int) -> None:
        self._bytes -= size_bytes
        self._by_client[client] -= size_bytes
        if not self._by_client[client]:
            del self._by_client[client]
