"""Who may see how much of one image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may see how much of one image.

    On a DLCS: -1 or absent is open, 0 is all restricted, N is open where the long side is at most N.
    """

    max_unauthorised: int | None = None
    """Longest side, in pixels, that anybody may have of the full region; None: everything is open."""
    roles: frozenset[str] = frozenset()
    """Any one of these lifts the restriction."""


OPEN = Rule()
"""Everybody may see everything."""


def stricter(one: int | None, other: int | None) -> int | None:
    """The lower of two limits, of which None is no limit."""
    return min((limit for limit in (one, other) if limit is not None), default=None)
