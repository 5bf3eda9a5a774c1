"""The decoder's part of a piece: how far to reduce it, which part to decode, what to crop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from special.formats.jp2.main_header import Canvas, Header
from special.formats.jp2.precinct_selection import LevelView
from special.formats.jp2.precincts import reduced
from special.formats.jp2.wavelet_margins import Interval, widened
from special.geometry import Box, Frame, Size, ceil_div


@dataclass(frozen=True, slots=True)
class DecodeWindow:
    """The decoder's part of a piece; the fields are those of `Piece`."""

    reduce: int
    area: Box | None
    crop: Frame
    pixels: int
    """How many will be decoded."""


def decode_window(header: Header, seen: LevelView, canvas: Canvas, drop: int) -> DecodeWindow:
    """The decoder's part for a view of a piece with this canvas, from which `drop` levels were dropped."""
    reduce = seen.reduction - drop
    scale = 1 << reduce
    left, top = canvas.left, canvas.top
    edges = (left, top, canvas.right, canvas.bottom)
    across, down = (edges[0], edges[2]), (edges[1], edges[3])
    if header.is_divisible and seen.window != _reduced((across, down), scale):
        small = reduced(header, drop)
        across = _asked(small, (seen.window[0], seen.window[2]), across, 0, reduce)
        down = _asked(small, (seen.window[1], seen.window[3]), down, 1, reduce)
    window = _reduced((across, down), scale)
    is_all = (across[0], down[0], across[1], down[1]) == edges
    area = None if is_all else Box.between(across[0] - left, down[0] - top, across[1] - left, down[1] - top)
    size = Size(window[2] - window[0], window[3] - window[1])
    return DecodeWindow(reduce, area, seen.crop((window[0], window[1]), size), size.area)


def _reduced(axes: tuple[Interval, Interval], scale: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels that a decoder makes of an area (B-15)."""
    (left, right), (top, bottom) = axes
    return ceil_div(left, scale), ceil_div(top, scale), ceil_div(right, scale), ceil_div(bottom, scale)


def _asked(header: Header, window: Interval, limits: Interval, axis: int, reduce: int) -> Interval:
    """The part of one axis to ask a decoder for, so that the window comes out exactly in every component."""
    scale = 1 << reduce
    start, stop = max(window[0] * scale, limits[0]), min(window[1] * scale, limits[1])
    alignment = scale * math.lcm(*(steps[axis] for steps in header.canvas.steps))
    kinds = {(coding, steps[axis]) for coding, steps in zip(header.codings, header.canvas.steps, strict=True)}
    asked = [
        widened((start, stop), limits, coding, step=step, reduce=reduce, alignment=alignment) for coding, step in kinds
    ]
    return min(interval[0] for interval in asked), max(interval[1] for interval in asked)
