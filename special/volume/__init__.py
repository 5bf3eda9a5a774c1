"""A bounded local disk in front of a store: each block is fetched once for all processes of a machine.

The words of this package. A *block* is what is fetched, stored and checked as one. An *object* is one version of one
master. Its *files* are a sparse data file, a map of the blocks in it and, where one was made, a *pyramid* (a file of
checked *parts*) and the *metadata* of its headers. The *directory* has the files of all objects and the *ledger* that
says what they take and when they were read. A *fetcher* brings missing blocks from the source.

Each module imports only what comes after it: volume → metadata, prefetch, pyramids → open_objects → block_fetch →
disk → directory → ledger, membership, object_files → pack_file, locks, faults → blocks. The import linter holds it.
"""

from special.volume import admin
from special.volume.admin import Cleared, Verified, VolumeStat, clear, stat, verify
from special.volume.blocks import Damaged
from special.volume.ledger import Entry
from special.volume.metadata import MetadataStore, StoredMetadata
from special.volume.pack_file import PackDraft, PackFile
from special.volume.prefetch import PrefetchResult
from special.volume.pyramids import Elsewhere, NoSpace, Pyramids, PyramidWriter
from special.volume.volume import DEFAULT_BLOCK_BYTES, Volume, VolumeReader

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "Cleared",
    "Damaged",
    "Elsewhere",
    "Entry",
    "MetadataStore",
    "NoSpace",
    "PackDraft",
    "PackFile",
    "PrefetchResult",
    "PyramidWriter",
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
