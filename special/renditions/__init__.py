"""Stored renditions of one image: their keys, and what is known of them without reading the master.

    {id}/open/{long side}.jpg            open; `.webp` where the sizes file says so
    {id}/auth/{long side}.jpg            restricted; some sites write `authed`
    {id}/s.json                          which sizes there are; some sites write `sizes.json`
    {id}/full/{w},{h}/0/default.jpg      where older sites keep a size that the sizes file names
    {id}/special.json                    our own side-car
    {id}/pyramid-….tif                   our own pyramid, of an expensive master; `auth/pyramid-….tif` where restricted

All but the side-car, pyramids and WebPs are the DLCS's form; a bucket that another tool filled is served as it is. The
side-car saves a server reading the master's headers, and tells `derive` what is still current. Writing and reading are
both in this package, so that they agree.
"""

from special.renditions import pyramid_file
from special.renditions.addition import Addition
from special.renditions.policy import Policy
from special.renditions.pyramid_file import PublishedIndex, PyramidName
from special.renditions.sidecar import FOREIGN, SIDECAR_NAME, Sidecar, dump_layout
from special.renditions.sizes_file import SizesFile, rendition_key
from special.renditions.store import CachedRendition, RenditionStore, StoredRenditions
from special.renditions.write_back import RenditionWriter

__all__ = [
    "FOREIGN",
    "SIDECAR_NAME",
    "Addition",
    "CachedRendition",
    "Policy",
    "PublishedIndex",
    "PyramidName",
    "RenditionStore",
    "RenditionWriter",
    "Sidecar",
    "SizesFile",
    "StoredRenditions",
    "dump_layout",
    "pyramid_file",
    "rendition_key",
]
