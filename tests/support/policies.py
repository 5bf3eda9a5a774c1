"""Policies for renditions, by the settings that make them."""

from __future__ import annotations

from special import composition, settings
from special.renditions import Policy


def policy(sizes: str = "1024,400,200,100", **given: object) -> Policy:
    """What `special derive --sizes …` with these settings would make."""
    return composition.rendition_policy(settings.load(source=".", sizes=sizes, **given))
