"""Advice for `inspect`: which feature makes a master expensive, and how to re-encode it."""

from __future__ import annotations

from collections.abc import Sequence

from special.formats.jp2.main_header import Header
from special.formats.jp2.tile_parts import PartIndex
from special.formats.jp2.tile_selection import MAX_TILES


def advice(header: Header, index: PartIndex, doubts: Sequence[str], full_size_reason: str) -> tuple[str, ...]:
    """What made a more expensive way necessary, and what would make it cheaper; see `Jp2Layout.full_size_reason`."""
    found: list[str] = []
    tiles = header.canvas.columns * header.canvas.rows
    if header.refusal is not None:
        found.append(f"It has {header.refusal}: the whole object is read. Re-encode it without.")
    found += [f"{doubt}: the whole object is read. Re-encode it." for doubt in doubts]
    if index.refusal is not None:
        found.append(f"It has {index.refusal}: whole tiles are read. Re-encode it without.")
    elif index.scanned or any(index.lacks_lengths(tile) for tile in index.rows):
        is_tiled = tiles > 1
        read = "whole tiles are read" if is_tiled else "small sizes are found packet by packet, all else reads it whole"
        found.append(
            f"It has no packet lengths (PLT): {read}. Re-encode it with them"
            " (Kakadu: ORGgen_plt=yes; opj_compress: -PLT; grk_compress: -L)."
        )
    if tiles > MAX_TILES:
        found.append(
            f"It has {tiles} tiles: a part that touches more than {MAX_TILES} is read whole. "
            "Re-encode it with larger tiles, or none."
        )
    if header.is_high_throughput:
        found.append("It is HTJ2K: a region is decoded at the full extent of its level.")
    if full_size_reason:
        found.append(
            f"It has {full_size_reason}: it is always decoded at full resolution. "
            "Re-encode it with 8 bits for each colour."
        )
    return tuple(found)
