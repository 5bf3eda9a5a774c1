"""JPEG 2000 masters: which bytes a picture needs, and a small valid file of just those.

    parse(size_bytes)   boxes, main header, tile-parts, packet lengths -> Jp2Layout
    load(data)          the same, from its serial form
    read_whole(data)    what a decoder must know of a file in memory, and that nothing of it is missing
    sniff(head)         whether these first bytes are JPEG 2000 at all

A codestream is a sequence of packets, one for each (tile, component, resolution, precinct, layer),
and the file says how long each is. So the packets of a smaller resolution, or of a region, can be read by
themselves and put behind a rewritten header. What makes that unsafe is refused by name, and the whole
object is read instead: a prefix that is a little too short decodes to wrong pixels without an error.

Sections cited as A.… and B.… are those of ISO/IEC 15444-1, where the boxes are in I.….
"""

from __future__ import annotations

from special.formats.jp2.boxes import NO_COLOURS, sniff
from special.formats.jp2.colours import Colours, ColourSpace, Lab
from special.formats.jp2.layout import Jp2Layout, load, parse
from special.formats.jp2.serial import MAGIC
from special.formats.jp2.whole_file import WholeFile, read_whole

__all__ = [
    "MAGIC",
    "NO_COLOURS",
    "ColourSpace",
    "Colours",
    "Jp2Layout",
    "Lab",
    "WholeFile",
    "load",
    "parse",
    "read_whole",
    "sniff",
]
