"""What is known of an image: its master, its stored renditions, its rule."""

from special.images.asset import Access, Asset, Rendition, StoredFormat
from special.images.key_templates import KeyTemplates, claims_image
from special.images.masters import Master, Masters
from special.images.rule import OPEN, Rule, stricter
from special.images.takedowns import Takedowns

__all__ = [
    "OPEN",
    "Access",
    "Asset",
    "KeyTemplates",
    "Master",
    "Masters",
    "Rendition",
    "Rule",
    "StoredFormat",
    "Takedowns",
    "claims_image",
    "stricter",
]
