"""Lanes: how much of each kind of work runs, how much waits, and for how long.

Each lane has places of its own, and a part of the memory that dearer ones cannot take, so that dear work never
keeps cheap work waiting: the operating system divides the processors among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ANY: Final = "any"
"""The name of the only lane, where nobody asked for several."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One kind of work."""

    name: str
    running: int
    """Jobs at once."""
    queue: int
    """Jobs that may wait; one more is refused."""
    max_wait_s: float
    """Longest wait for a decoder; a job that waits longer is refused."""
    deadline_s: float
    """Longest time from call to result."""
    ahead: int = 0
    """Jobs of the queue whose bytes may be fetched already, so that decoders need not wait for the store."""
    share: float = 1.0
    """How much of the memory may be taken once a job of this lane is let in; the rest is kept for other lanes."""

    def __post_init__(self) -> None:
        if self.running < 1 or not 0 <= self.ahead <= self.queue or not 0 < self.share <= 1:
            raise ValueError(f"lane {self.name} needs running >= 1, 0 <= ahead <= queue, 0 < share <= 1")


def single_lane(count: int) -> tuple[Lane, ...]:
    """One lane for all work, bounded by deadlines and by a queue that no honest load fills."""
    return (Lane(ANY, running=count, queue=4096, max_wait_s=60.0, deadline_s=60.0),)


def standard_lanes(cores: int) -> tuple[Lane, ...]:
    """Tiles and renditions, full regions up to 4 megapixels, and larger ones; the first is never behind the rest."""
    half = max(1, cores // 2)
    return (
        Lane("tile", cores, queue=32 * cores, max_wait_s=2.0, deadline_s=10.0, ahead=16 * cores),
        Lane("full", half, queue=16 * half, max_wait_s=4.0, deadline_s=15.0, ahead=3 * half, share=0.875),
        Lane("max", half, queue=4 * half, max_wait_s=10.0, deadline_s=60.0, ahead=half, share=0.75),
    )
