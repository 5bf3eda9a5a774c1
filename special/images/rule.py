"""What of one image is restricted, and which roles lift it."""

from __future__ import annotations

from dataclasses import dataclass

from special.iiif import Mark


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the operator's own code allows one caller of one image, beside what rules allow."""

    max_side: int | None = None
    """Longest side, in pixels, of the full region that may be seen; None: everything. 0: nothing."""
    private: bool = True
    """Whether another caller may get another verdict: then no shared cache may keep what this one gets."""
    marks: tuple[Mark, ...] = ()
    """What is drawn over the image for this caller; set by `Hooks.overlay` and `Hooks.redact`."""


PUBLIC = Verdict(private=False)
"""Every caller may see everything, as far as the operator's code is concerned; the same for all of them."""
ALL = Verdict()
"""This caller may see everything."""
NOTHING = Verdict(0)
"""This caller may see nothing."""


def stricter(*limits: int | None) -> int | None:
    """The lowest of some limits, of which None is no limit."""
    return min((limit for limit in limits if limit is not None), default=None)
