"""Who may see how much of an image. Pure.

Nothing is planned without a `Grant`, so that no path can leave the check out. It is decided
once, before routing, caches and 304.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fnmatch import translate
from typing import Self

from special.errors import Forbidden, Unauthorised
from special.geometry import Box
from special.iiif import Job, fold_identifier
from special.images import OPEN, Asset, Rule, Verdict, stricter


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client has proved of itself."""

    roles: frozenset[str] = frozenset()
    """The roles that were proved."""
    known: bool = False
    """Whether the client proved an identity, with roles or without."""
    verdict: Verdict | None = None
    """What the operator's own code allows it of the image that it asks for; None: there is no such code."""

    def __hash__(self) -> int:
        return hash(self.roles)  # computed once by the set, and asked for at every request


ANONYMOUS = Identity()
"""A client that has proved nothing."""


@dataclass(frozen=True, slots=True)
class PatternRule:
    """The operator's rule for the identifiers that match a pattern."""

    pattern: re.Pattern[str]
    rule: Rule

    @classmethod
    def of(cls, pattern: str, rule: Rule) -> Self:
        """`pattern` as a shell has it: `*` is any text, slashes included, `?` one character, `[ab]` one of these."""
        return cls(re.compile(translate(unicodedata.normalize("NFC", pattern))), rule)


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules by identifier."""

    patterns: tuple[PatternRule, ...] = ()
    """The first that matches counts."""
    default_roles: frozenset[str] = frozenset()
    """Lift a restriction that only the store of renditions makes."""

    def govern(self, stored: Rule, *names: str, catalogued: Rule | None = None) -> Rule:
        """The rule of an image: the strictest of what store and catalogue say and of the rules for each of its names.

        An image has two names where a key template makes one master known by several identifiers: its
        identifier and its master's key. What a store that folds paths may make of a name is a name too.
        Roles are those of the operator's rule, or of the catalogue's; of several, those in all of them.
        """
        spellings = dict.fromkeys((*names, *map(fold_identifier, names)))
        found = [rule for rule in (*map(self._match, spellings), catalogued) if rule is not None]
        limit = stored.max_unauthorised
        for rule in found:
            limit = stricter(limit, rule.max_unauthorised)
        if limit is None:
            return OPEN
        named = [rule.roles for rule in found if rule != OPEN]
        return Rule(limit, frozenset.intersection(*named) if named else self.default_roles)

    def _match(self, name: str) -> Rule | None:
        return next((it.rule for it in self.patterns if it.pattern.match(name)), None)


@dataclass(slots=True)
class RulesInForce:
    """The rules that hold now; they are replaced as a whole, while requests are answered."""

    rules: Rules


@dataclass(frozen=True, slots=True)
class Grant:
    """What one caller may see of one image."""

    max_side: int | None = None
    """Longest side of the full region that may be seen; None: everything. 0: nothing."""
    known: bool = False
    """Whether the caller is known: what is refused is then forbidden, not unauthorised."""
    is_personal: bool = False
    """Whether the operator's own code may grant another caller something else."""

    @property
    def unlimited(self) -> bool:
        """Whether everything may be seen, crops included."""
        return self.max_side is None


def grant(asset: Asset, identity: Identity) -> Grant:
    """What this caller may see of this image."""
    rule, verdict = asset.rule, identity.verdict
    limit = None if rule.max_unauthorised is None or rule.roles & identity.roles else max(0, rule.max_unauthorised)
    if verdict is None:
        return Grant(limit, identity.known)
    return Grant(stricter(limit, verdict.max_side), identity.known, verdict.private)


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
