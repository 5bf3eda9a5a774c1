"""How many blocks of an object may be prefetched. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class PrefetchState:
    """Which blocks of one object were read, and which were prefetched and not read yet."""

    wanted: set[int] = field(default_factory=set)
    """Blocks that readers have asked for."""
    unused: set[int] = field(default_factory=set)
    """Blocks that were prefetched, and that no reader has asked for yet."""

    def record_access(self, indices: Sequence[int]) -> set[int]:
        """A reader asks for blocks: those of them that were prefetched."""
        self.wanted.update(indices)
        used = self.unused.intersection(indices) if self.unused else set()
        self.unused -= used
        return used

    def allowance(self, missing: Iterable[int], *, most: int) -> list[int]:
        """The first of the missing blocks that may be prefetched: never more unused ones than were read."""
        return sorted(missing)[: max(0, min(most, len(self.wanted) - len(self.unused)))]
