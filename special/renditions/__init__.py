"""Stored renditions of one image: where they lie, and what is known of them without a look at the master.

    {id}/open/{long side}.jpg            may be had by everybody; `.webp` where the sizes file says so
    {id}/auth/{long side}.jpg            restricted; some sites write `authed`
    {id}/s.json                          which sizes there are; some sites write `sizes.json`
    {id}/full/{w},{h}/0/default.jpg      where older sites keep a size that the sizes file names
    {id}/special.json                    our own side-car

All but the side-car and WebPs are the DLCS's; a bucket that knows nothing of us is served as it is. The side-car
spares a server the master's headers, and tells `derive` what still stands. What is written here is
read here, so that the two never part.
"""

from special.renditions.addition import Addition
from special.renditions.sidecar import Sidecar, dump_layout
from special.renditions.sizes_file import SizesFile, rendition_key
from special.renditions.store import CachedRendition, RenditionStore, StoredRenditions
from special.renditions.write_back import RenditionWriter

__all__ = [
    "Addition",
    "CachedRendition",
    "RenditionStore",
    "RenditionWriter",
    "Sidecar",
    "SizesFile",
    "StoredRenditions",
    "dump_layout",
    "rendition_key",
]
