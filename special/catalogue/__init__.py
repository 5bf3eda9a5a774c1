"""From an identifier to where its master is, who may see how much of it, and what is said of it."""

from special.catalogue.catalogue import Catalogue
from special.catalogue.entry import Entry
from special.catalogue.hooks import Caller, GuardedHooks, Hooks, text_picture
from special.catalogue.http import HttpOptions
from special.catalogue.opening import (
    BucketIdentifiers,
    CatalogueOptions,
    KindOptions,
    open_catalogue,
    open_hooks,
    open_sources,
)
from special.catalogue.sqlite import SqliteOptions
from special.iiif import Mark
from special.images import ALL, NOTHING, PUBLIC, Description, Verdict

__all__ = [
    "ALL",
    "NOTHING",
    "PUBLIC",
    "BucketIdentifiers",
    "Caller",
    "Catalogue",
    "CatalogueOptions",
    "Description",
    "Entry",
    "GuardedHooks",
    "Hooks",
    "HttpOptions",
    "KindOptions",
    "Mark",
    "SqliteOptions",
    "Verdict",
    "open_catalogue",
    "open_hooks",
    "open_sources",
    "text_picture",
]
