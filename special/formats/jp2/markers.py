"""The markers of a codestream (A.2, table A.2) and the segments between them.

A main header or a tile-part header is a run of segments: two bytes of marker, two of length, the
contents. `Marker` lists those that are understood, `REFUSED` those that make it unsafe to pick packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from special.errors import Malformed
from special.formats.jp2.reader import CodestreamReader, Reading

MAX_SEGMENTS = 40_000
"""Maximum number of segments: COC and QCC of each of 16,384 components, and all others."""


class Marker(IntEnum):
    """Those that are understood, by their names in the standard."""

    SOC = 0xFF4F
    CAP = 0xFF50
    SIZ = 0xFF51
    COD = 0xFF52
    COC = 0xFF53
    TLM = 0xFF55
    PRF = 0xFF56
    PLM = 0xFF57
    PLT = 0xFF58
    CPF = 0xFF59
    QCD = 0xFF5C
    QCC = 0xFF5D
    RGN = 0xFF5E
    POC = 0xFF5F
    PPM = 0xFF60
    PPT = 0xFF61
    CRG = 0xFF63
    COM = 0xFF64
    SOT = 0xFF90
    SOP = 0xFF91
    EPH = 0xFF92
    SOD = 0xFF93
    EOC = 0xFFD9


REFUSED = {
    Marker.POC: "progression order changes (POC)",
    Marker.PPM: "packed packet headers (PPM)",
    Marker.PPT: "packed packet headers (PPT)",
    Marker.RGN: "a region of interest (RGN)",
}
"""Features that make picking packets unsafe: by marker, what to call them."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker segment."""

    marker: int
    """Its two bytes, as a number."""
    body: bytes
    """What follows the length."""

    @property
    def encoded(self) -> bytes:
        """Marker, length and contents, as in a codestream."""
        return encode(self.marker, self.body)


def encode(marker: int, body: bytes) -> bytes:
    """A marker segment."""
    return marker.to_bytes(2, "big") + (len(body) + 2).to_bytes(2, "big") + body


def read_segments(
    reader: CodestreamReader, at: int, end: Marker, stop: int, *, readahead_bytes: int = 0
) -> Reading[tuple[list[Segment], int]]:
    """Segments from `at` as far as the marker `end`, and that marker's offset.

    Reads further in ever larger steps, so that a header of any length takes few round trips. Raises `Malformed`
    where there is no marker or where the header runs past `stop`.
    """
    segments: list[Segment] = []
    start = at
    while len(segments) <= MAX_SEGMENTS:
        readahead = max(readahead_bytes, 16384, 2 * (at - start))
        if at + 2 > stop:
            raise Malformed(f"the header that begins at byte {start} runs past byte {stop}, where it must have ended")
        marker = int.from_bytes((yield from reader.take(at, 2, readahead_bytes=readahead)), "big")
        if marker == end:
            return segments, at
        if marker < 0xFF00 or marker in (Marker.SOC, Marker.SOT, Marker.SOD, Marker.EOC):
            raise Malformed(f"{marker:04x} at byte {at}, where a marker segment or {end.name} belongs")
        if 0xFF30 <= marker <= 0xFF3F:  # these have no length (A.1.1, table A.1)
            at += 2
            continue
        length = int.from_bytes((yield from reader.take(at + 2, 2, readahead_bytes=readahead)), "big")
        if length < 2 or at + 2 + length > stop:
            raise Malformed(f"the marker segment {marker:04x} at byte {at} claims {length} bytes")
        segments.append(Segment(marker, (yield from reader.take(at + 4, length - 2, readahead_bytes=readahead))))
        at += 2 + length
    raise Malformed(f"more than {MAX_SEGMENTS} marker segments in the header that begins at byte {start}")
