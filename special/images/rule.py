"""What of one image is restricted, and which roles lift it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """What of one image is restricted, and which roles lift it.

    On a DLCS: -1 or absent is open, 0 is all restricted, N is open where the long side is at most N.
    """

    max_unauthorised: int | None = None
    """Longest side, in pixels, of the full region that is open; None: everything is."""
    roles: frozenset[str] = frozenset()
    """Any one of these lifts the restriction."""


OPEN = Rule()
"""Nothing is restricted."""


def stricter(one: int | None, other: int | None) -> int | None:
    """The lower of two limits, of which None is no limit."""
    return min((limit for limit in (one, other) if limit is not None), default=None)
