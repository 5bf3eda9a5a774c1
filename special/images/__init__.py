"""What is known of an image: its master, its stored renditions, its rule."""

from special.images.asset import Access, Asset, Rendition, StoredFormat
from special.images.description import Description
from special.images.key_templates import KeyTemplates, LeftOut, claims_image
from special.images.masters import Locator, Master, Masters
from special.images.purges import PurgeList
from special.images.rule import ALL, NOTHING, OPEN, PUBLIC, Rule, Verdict, stricter
from special.images.tail_reads import TAIL_BYTES, TailReads

__all__ = [
    "ALL",
    "NOTHING",
    "OPEN",
    "PUBLIC",
    "TAIL_BYTES",
    "Access",
    "Asset",
    "Description",
    "KeyTemplates",
    "LeftOut",
    "Locator",
    "Master",
    "Masters",
    "PurgeList",
    "Rendition",
    "Rule",
    "StoredFormat",
    "TailReads",
    "Verdict",
    "claims_image",
    "stricter",
]
