"""How much more than the wanted pixels a decoder must be asked for, so that they come out exactly.

Asked for an area, OpenJPEG decodes fewer wavelet coefficients than the filters touch: some samples beyond the area in
each subband, however many levels are above it. What is missing shifts pixels near the edge by one. So a
wider area is asked for, and cropped: as wide as makes both of OpenJPEG's own margins enough, and no wider.
"""

from __future__ import annotations

from dataclasses import dataclass

from special.formats.jp2.main_header import Coding
from special.geometry import ceil_div

STEP_PIXELS = 8
"""The least by which an area is widened."""


@dataclass(frozen=True, slots=True)
class SynthesisFilter:
    """One synthesis filter, and how far OpenJPEG 2.5 follows it."""

    low: int
    """Reach of a low-pass sample, in samples of the interleaved signal (tables F.2, F.3)."""
    high: int
    """Reach of a high-pass sample."""
    block_margin: int
    """Subband samples around an area of which the code-blocks are decoded (its tcd.c)."""
    window_margin: int
    """Subband samples around an area that go into the synthesis (its dwt.c)."""


REVERSIBLE = SynthesisFilter(low=1, high=2, block_margin=2, window_margin=2)
IRREVERSIBLE = SynthesisFilter(low=3, high=4, block_margin=3, window_margin=4)

Interval = tuple[int, int]
"""First sample, and the first that is outside."""


def widened(wanted: Interval, limits: Interval, coding: Coding, *, step: int, reduce: int, alignment: int) -> Interval:
    """The interval to ask for, along one axis of the reference grid, for one component.

    `wanted` and `limits` (the picture's edges) are on the full grid; `step` is the distance between the component's
    samples. The edges asked for are multiples of `alignment` or of the picture's.
    """
    start, stop = wanted
    margin = 0
    furthest = STEP_PIXELS << coding.levels
    while margin <= furthest and (start > limits[0] or stop < limits[1]):
        is_enough_before, is_enough_after = _enough(wanted, (start, stop), coding, step=step, reduce=reduce)
        if (is_enough_before or start == limits[0]) and (is_enough_after or stop == limits[1]):
            break
        margin = max(2 * margin, STEP_PIXELS)
        if not is_enough_before:
            start = max((wanted[0] - margin) // alignment * alignment, limits[0])
        if not is_enough_after:
            stop = min(ceil_div(wanted[1] + margin, alignment) * alignment, limits[1])
    return start, stop


def _enough(wanted: Interval, asked: Interval, coding: Coding, *, step: int, reduce: int) -> tuple[bool, bool]:
    """Whether OpenJPEG, asked for the one, uses all that the other needs: on its left, on its right."""
    kind = REVERSIBLE if coding.is_reversible else IRREVERSIBLE
    scale = step << reduce
    first, last = ceil_div(wanted[0], scale), ceil_div(wanted[1], scale) - 1
    begin, end = ceil_div(asked[0], step), ceil_div(asked[1], step)
    before = after = True
    for level in range(reduce + 1, coding.levels + 1):
        # Low-pass sample k is at 2k of the interleaved signal, high-pass sample k at 2k + 1.
        bands = (
            (0, ceil_div(first - kind.low, 2), (last + kind.low) // 2),
            (1, ceil_div(first - kind.high - 1, 2), (last + kind.high - 1) // 2),
        )
        for offset, low, high in bands:
            half = offset << (level - 1)
            left, right = ceil_div(begin - half, 1 << level), ceil_div(end - half, 1 << level)
            block = coding.smallest_block(level)
            decoded = max(left - kind.block_margin, 0) // block * block
            decoded_end = ceil_div(right + kind.block_margin, block) * block
            before = before and max(low, 0) >= max(decoded, left - kind.window_margin)
            after = after and high < min(decoded_end, right + kind.window_margin)
        first, last = max(bands[0][1], 0), bands[0][2]
    return before, after
