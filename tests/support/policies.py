"""Policies for renditions, by the settings that make them."""

from __future__ import annotations

from special import settings
from special.derive.policy import Policy
from special.derive.run import policy_of


def policy(sizes: str = "1024,400,200,100", **given: object) -> Policy:
    """What `special derive --sizes …` with these settings would make."""
    return policy_of(settings.load(source=".", sizes=sizes, **given))
