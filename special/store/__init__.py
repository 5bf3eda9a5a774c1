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

from special.store.addition import Addition
from special.store.sidecar import Sidecar, dumped
from special.store.sizes import Sizes, rendition_key
from special.store.store import Held, Kept, Store

__all__ = ["Addition", "Held", "Kept", "Sidecar", "Sizes", "Store", "dumped", "rendition_key"]
