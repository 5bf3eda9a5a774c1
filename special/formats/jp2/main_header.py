"""The main header of a codestream: the canvas, how each component is coded, what is out of reach.

`Header` keeps the segments that a rebuilt codestream needs and the numbers that packet geometry
is made of. Its `refusal` names the first feature, if any, because of which only the whole object is read.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from special.errors import Malformed, Unsupported
from special.formats.jp2.markers import REFUSED, Marker, Segment
from special.geometry import Size, ceil_div

MAX_TILES = 65535
"""A tile's number has two bytes, and the last value is not used (A.4.2)."""
MAX_COMPONENTS = 5
"""Four inks and opacity; each takes a decoder 8 bytes a pixel, and a file may claim 16,384."""
MAX_PRECISION = 38
"""Bits of a sample (table A.11)."""
EXTENSIONS = 0x8000
"""The bit of Rsiz that announces extensions of part 2."""
HIGH_THROUGHPUT = 0x00020000
"""The bit of Pcap that announces HTJ2K (part 15)."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The reference grid: the image on it and the tiles over it (B.2, B.3)."""

    left: int
    top: int
    right: int
    bottom: int
    tile_width: int
    tile_height: int
    tile_left: int
    tile_top: int
    steps: tuple[tuple[int, int], ...]
    """Of each component, the distance between samples: (XRsiz, YRsiz)."""

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return ceil_div(self.right - self.tile_left, self.tile_width)

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return ceil_div(self.bottom - self.tile_top, self.tile_height)

    def tile(self, column: int, row: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a tile on the grid (B-7 to B-10)."""
        x, y = self.tile_left + column * self.tile_width, self.tile_top + row * self.tile_height
        return (
            max(x, self.left),
            max(y, self.top),
            min(x + self.tile_width, self.right),
            min(y + self.tile_height, self.bottom),
        )


@dataclass(frozen=True, slots=True)
class Coding:
    """How one component is coded (A.6.1)."""

    levels: int
    """Wavelet decompositions; one less than there are resolutions."""
    precincts: tuple[tuple[int, int], ...]
    """Of each resolution, the lowest first: log2 of a precinct's width and height."""
    code_block: tuple[int, int]
    """log2 of a code-block's width and height."""
    style: int
    """The code-block style bits (table A.19)."""
    is_reversible: bool
    """Wavelet 5-3, else 9-7."""

    def smallest_block(self, level: int) -> int:
        """Width or height, whichever is less, of the code-blocks of one decomposition level, in samples (B.7)."""
        resolution = self.levels - level + 1
        across, down = self.precincts[resolution]
        return 1 << min(*self.code_block, across - 1, down - 1)


@dataclass(frozen=True, slots=True)
class Header:
    """A main header."""

    canvas: Canvas
    codings: tuple[Coding, ...]
    """One for each component."""
    progression: int
    """0 to 4: LRCP, RLCP, RPCL, PCRL, CPRL (table A.16)."""
    layers: int
    """Quality layers."""
    uses_sop: bool
    """There may be SOP marker segments before packets."""
    uses_eph: bool
    """There is an EPH marker after every packet header."""
    is_high_throughput: bool
    """HTJ2K."""
    segments: tuple[Segment, ...]
    """What a rebuilt header is made of: no TLM, PLM, CRG, COM."""
    refusal: str | None
    """Why packets cannot be picked here."""
    precision: int
    """Bits of a sample, of the component that has most (Ssiz, table A.11)."""

    @property
    def is_divisible(self) -> bool:
        """Whether OpenJPEG decodes a region as it decodes the whole.

        Not of HTJ2K; nor where packet headers are in the main header, since with a tile it does not skip its headers.
        """
        return not self.is_high_throughput and all(segment.marker != Marker.PPM for segment in self.segments)

    @property
    def max_reduction(self) -> int:
        """Levels that every component can do without."""
        return min(coding.levels for coding in self.codings)

    def bounds(self, reduction: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the decoded picture on its own, reduced grid (B-15)."""
        canvas, scale = self.canvas, 1 << reduction
        return (
            ceil_div(canvas.left, scale),
            ceil_div(canvas.top, scale),
            ceil_div(canvas.right, scale),
            ceil_div(canvas.bottom, scale),
        )

    def size(self, reduction: int) -> Size | None:
        """The size of the decoded picture; None where nothing is left of it."""
        left, top, right, bottom = self.bounds(reduction)
        return Size(right - left, bottom - top) if right > left and bottom > top else None


def read_header(segments: Sequence[Segment]) -> Header:
    """The header that these segments describe. Raises `Malformed`."""
    first: dict[int, bytes] = {}
    for segment in segments:
        first.setdefault(segment.marker, segment.body)
    missing = [marker.name for marker in (Marker.SIZ, Marker.COD, Marker.QCD) if marker not in first]
    if missing:
        raise Malformed(f"the main header has no {' and no '.join(missing)}")
    if segments[0].marker != Marker.SIZ or sum(s.marker in (Marker.SIZ, Marker.COD, Marker.QCD) for s in segments) != 3:
        raise Malformed("the main header must begin with SIZ and have one SIZ, one COD and one QCD")
    canvas = read_canvas(first[Marker.SIZ])
    cod = first[Marker.COD]
    if len(cod) < 10:
        raise Malformed(f"COD has {len(cod)} bytes; it needs at least 10")
    scod, progression, layers, transform = struct.unpack_from(">BBHB", cod)
    default = _coding(cod[5:], has_precincts=bool(scod & 1))
    codings = [default] * len(canvas.steps)
    for component, style, body in component_segments(segments, Marker.COC, len(canvas.steps)):
        codings[component] = _coding(body, has_precincts=bool(style & 1))
    if progression > 4 or not layers:
        raise Malformed(f"COD names progression {progression} and {layers} layers; 0 to 4 and 1 to 65535 exist")
    wavelets = {cod[9]} | {body[4] for _, _, body in component_segments(segments, Marker.COC, len(codings))}
    if scod > 7 or transform > 1 or wavelets - {0, 1}:
        raise Unsupported("the JPEG 2000 has a transformation beyond part 1, which is not undone here; re-encode it")
    header = Header(
        canvas=canvas,
        codings=tuple(codings),
        progression=progression,
        layers=layers,
        uses_sop=bool(scod & 2),
        uses_eph=bool(scod & 4),
        is_high_throughput=any(coding.style & 0x40 for coding in codings),
        segments=tuple(s for s in segments if s.marker not in (Marker.TLM, Marker.PLM, Marker.CRG, Marker.COM)),
        refusal=_refusal(segments, first, codings),
        precision=max((size & 0x7F) + 1 for size in first[Marker.SIZ][36::3]),
    )
    if header.size(0) is None:
        raise Malformed("the image has no samples")
    if header.precision > MAX_PRECISION:
        raise Malformed(f"the JPEG 2000 has samples of {header.precision} bits; at most {MAX_PRECISION} exist")
    return header


def component_segments(segments: Sequence[Segment], marker: Marker, components: int) -> list[tuple[int, int, bytes]]:
    """COC or QCC segments: (component, style byte, the rest). Raises `Malformed`."""
    width = component_bytes(components)
    found: list[tuple[int, int, bytes]] = []
    for segment in segments:
        if segment.marker == marker:
            component = int.from_bytes(segment.body[:width], "big")
            if len(segment.body) < width + 2 or component >= components:
                raise Malformed(f"{marker.name} for component {component} of {components}")
            found.append((component, segment.body[width], segment.body[width + 1 :]))
    return found


def component_bytes(components: int) -> int:
    """Bytes of a component's number in COC and QCC (A.6.2)."""
    return 1 if components < 257 else 2


def read_canvas(siz: bytes) -> Canvas:
    """The canvas that the contents of SIZ describe (A.5.1). Raises `Malformed`, `Unsupported`."""
    if len(siz) < 39:
        raise Malformed(f"SIZ has {len(siz)} bytes; it needs at least 39")
    right, bottom, left, top, width, height, tile_left, tile_top, count = struct.unpack_from(">8IH", siz, 2)
    if len(siz) != 36 + 3 * count or not 1 <= count <= 16384:
        raise Malformed(f"SIZ names {count} components in {len(siz)} bytes")
    if count > MAX_COMPONENTS:
        raise Unsupported(f"the JPEG 2000 has {count} components; at most {MAX_COMPONENTS} are decoded")
    steps = tuple((siz[37 + 3 * i], siz[38 + 3 * i]) for i in range(count))
    if not all(x and y for x, y in steps):
        raise Malformed("SIZ names a component without samples")
    if not (left < right and top < bottom and width and height):
        raise Malformed(
            f"SIZ names an empty image or tile: {left},{top} to {right},{bottom} in tiles of {width}×{height}"
        )
    if not (tile_left <= left < tile_left + width and tile_top <= top < tile_top + height):
        raise Malformed("the first tile is outside the image")  # B-3, B-4
    canvas = Canvas(left, top, right, bottom, width, height, tile_left, tile_top, steps)
    if canvas.columns * canvas.rows > MAX_TILES:
        raise Malformed(f"{canvas.columns}×{canvas.rows} tiles; a codestream has at most {MAX_TILES}")
    return canvas


def _coding(body: bytes, *, has_precincts: bool) -> Coding:
    """The part that COD and COC have in common (tables A.15 and A.20)."""
    if len(body) < 5:
        raise Malformed("COD or COC ends before the transformation")
    levels, width, height, style, wavelet = body[:5]
    sizes = body[5:] if has_precincts else b"\xff" * (levels + 1)
    if levels > 32 or width > 8 or height > 8 or width + height > 8 or len(sizes) != levels + 1:
        raise Malformed(
            f"COD or COC: {levels} levels, {len(sizes)} precinct sizes, code-block exponents {width}, {height}"
        )
    precincts = tuple((size & 15, size >> 4) for size in sizes)
    if any(not (x and y) for x, y in precincts[1:]):
        raise Malformed("a precinct above the lowest resolution is one sample wide")  # table A.21
    return Coding(levels, precincts, (width + 2, height + 2), style, is_reversible=wavelet == 1)


def _refusal(segments: Sequence[Segment], first: dict[int, bytes], codings: Sequence[Coding]) -> str | None:
    siz = first[Marker.SIZ]
    capabilities = int.from_bytes(first.get(Marker.CAP, b"")[:4], "big")
    known = set(Marker)
    for segment in segments:
        if segment.marker in REFUSED:
            return REFUSED[Marker(segment.marker)]
        if segment.marker not in known:
            return f"an extension (marker {segment.marker:04x})"
    if int.from_bytes(siz[:2], "big") & EXTENSIONS or capabilities & ~HIGH_THROUGHPUT:
        return "extensions beyond part 1 and HTJ2K"
    # Decoders count in 32 bits and step over precincts that would be wider than that on the reference grid.
    spread = max(siz[i] for i in range(37, len(siz)) if (i - 36) % 3).bit_length()
    if any(max(x, y) + c.levels - r + spread > 30 for c in codings for r, (x, y) in enumerate(c.precincts)):
        return "too many levels for its precincts"
    return _short_quantisation(segments, codings)


def _short_quantisation(segments: Sequence[Segment], codings: Sequence[Coding]) -> str | None:
    """Whether QCD or QCC names fewer step sizes than there are subbands (A.6.4)."""
    own = {
        component: (style, body) for component, style, body in component_segments(segments, Marker.QCC, len(codings))
    }
    qcd = next(segment.body for segment in segments if segment.marker == Marker.QCD)
    for component, coding in enumerate(codings):
        style, body = own.get(component, (qcd[0] if qcd else 3, qcd[1:]))
        needed = step_bytes(style, coding.levels)
        if needed is None or len(body) < needed:
            return "quantisation steps that do not match its subbands"
    return None


def step_bytes(style: int, levels: int) -> int | None:
    """Bytes of the step sizes for `levels` levels (table A.28); None for a style that does not exist."""
    match style & 31:
        case 0:
            return 3 * levels + 1
        case 1:
            return 2
        case 2:
            return 2 * (3 * levels + 1)
    return None
