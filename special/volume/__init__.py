"""A bounded local disk in front of a store: blocks fetched once, however many ask.

The words of this room. A *block* is what is fetched, stored and checked as one. A *shelf* is
the files of one object (one version of one master): a sparse data file, a map of the blocks in
it and, where one was made, a *pyramid*, a file of checked *parts*, and a *note* of what its
headers say. The *stacks* are all shelves, with the *ledger* that says what they take and when
they were read. A *flight* is a run of missing blocks on its way from the source.

Imports go one way: volume → notes, stocking → pyramids → flights → shelf → parts → blocks, and
volume → stacks → ledger, tenancy, shelf → locks.
"""

from special.volume import admin
from special.volume.admin import Cleared, Verified, VolumeStat, clear, stat, verify
from special.volume.blocks import Damaged
from special.volume.ledger import Entry
from special.volume.metadata import MetadataStore, StoredMetadata
from special.volume.pack_file import PackFile
from special.volume.prefetch import PrefetchResult
from special.volume.pyramids import Elsewhere, Making, NoRoom, Pyramids
from special.volume.volume import DEFAULT_BLOCK_BYTES, Volume, VolumeReader

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "Cleared",
    "Damaged",
    "Elsewhere",
    "Entry",
    "Making",
    "MetadataStore",
    "NoRoom",
    "PackFile",
    "PrefetchResult",
    "Pyramids",
    "StoredMetadata",
    "Verified",
    "Volume",
    "VolumeReader",
    "VolumeStat",
    "admin",
    "clear",
    "stat",
    "verify",
]
