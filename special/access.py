"""Who may see how much of an image. Pure.

Nothing is planned without a `Grant`, so that nobody can forget to ask for one. It is decided
once, before routing, caches and 304.
"""

from __future__ import annotations

from dataclasses import dataclass

from special.asset import Asset
from special.errors import Forbidden, Unauthorised
from special.geometry import Box
from special.iiif import Job


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking."""

    roles: frozenset[str] = frozenset()
    """The roles that were proved."""
    known: bool = False
    """Whether anybody proved to be anybody."""


NOBODY = Identity()
"""A caller that has said nothing about itself."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one caller may see of one image."""

    max_side: int | None = None
    """Longest side of the full region that may be seen; None: everything. 0: nothing."""
    known: bool = False
    """Whether the caller is known: what is refused is then forbidden, not unauthorised."""

    @property
    def unlimited(self) -> bool:
        """Whether everything may be seen, crops included."""
        return self.max_side is None


def grant(asset: Asset, identity: Identity) -> Grant:
    """What this caller may see of this image."""
    rule = asset.rule
    if rule.max_unauthorised is None or rule.roles & identity.roles:
        return Grant(None, identity.known)
    return Grant(max(0, rule.max_unauthorised), identity.known)


def check(job: Job, asset: Asset, grant: Grant) -> None:
    """Raise `Unauthorised` or `Forbidden` unless the grant covers the job.

    Without an unlimited grant only the full region may be seen, no side longer than granted. A small
    crop of a restricted image is not small: many of them are the image.
    """
    if grant.max_side is None:
        return
    if job.box == Box.whole(asset.size) and job.size.long_side <= grant.max_side:
        return
    refusal = Forbidden if grant.known else Unauthorised
    raise refusal(
        "This image is restricted."
        if grant.max_side == 0
        else f"This image is restricted; its full region may be seen with sides of up to {grant.max_side} pixels."
    )
