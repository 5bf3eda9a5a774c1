"""Lanes: kinds of work by cost, each with its own limits, so that expensive work never keeps cheap work waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ANY: Final = "any"
"""The name of the only lane, where the caller names none."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The limits of one kind of work."""

    name: str
    running: int
    """Maximum number of jobs in decoders at the same time."""
    queue: int
    """Maximum number of jobs that wait; a further one is refused."""
    deadline_s: float
    """Seconds from the arrival of a request to its answer, and the longest that one job may take."""
    reading: int = 0
    """How many jobs of the queue may read their bytes already, so that decoders do not wait for the store."""
    share: float = 1.0
    """Fraction of the memory budget that may be reserved once a job of this lane is admitted."""

    def __post_init__(self) -> None:
        if self.running < 1 or not 0 <= self.reading <= self.queue or not 0 < self.share <= 1:
            raise ValueError(f"lane {self.name} needs running >= 1, 0 <= reading <= queue, 0 < share <= 1")


def single_lane(count: int) -> tuple[Lane, ...]:
    """One lane for all work."""
    return (Lane(ANY, running=count, queue=4096, deadline_s=60.0),)


def standard_lanes(cores: int) -> tuple[Lane, ...]:
    """Tiles and renditions, full regions up to 4 megapixels, and larger ones, in the order in which they are served."""
    half = max(1, cores // 2)
    return (
        Lane("tile", cores, queue=32 * cores, deadline_s=10.0, reading=16 * cores),
        Lane("full", half, queue=16 * half, deadline_s=15.0, reading=3 * half, share=0.875),
        Lane("max", half, queue=4 * half, deadline_s=60.0, reading=half, share=0.75),
    )
