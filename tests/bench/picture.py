"""The table of benches as a picture, a bar for each line that has a ratio.

`python -m tests.bench picture TABLE > speed.svg`, where TABLE is a file with what `python -m tests.bench` printed. A
bar is how many times better special was than what stood beside it. Lines without a ratio are exact, and not drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2
from xml.sax.saxutils import escape

WIDTH, ROW, TEXT, MARGIN = 960, 44, 420, 70
"""In pixels: the picture's width, a bar's height with its gap, the width of its words, and the space for its number."""
_LINE = re.compile(r"\| (B\d+) \| ([^|]+) \| ([^|]+) \| ([^|:]+): [^|]+ \| ([\d.,]+) × \|")


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the table that has a ratio."""

    bench: str
    job: str
    special: str
    peer: str
    ratio: float


def bars(table: str) -> Iterator[Bar]:
    """The lines with a ratio, in their order."""
    for bench, job, special, peer, ratio in _LINE.findall(table):
        yield Bar(bench, job, special, peer, float(ratio.replace(",", "")))


def svg(found: Sequence[Bar]) -> str:
    """The bars on a logarithmic scale, from a line at 1 ×: to the right where special is better, else to the left."""
    lowest = min(0, floor(log2(min(bar.ratio for bar in found))))
    highest = max(1, ceil(log2(max(bar.ratio for bar in found))))
    per_doubling = (WIDTH - TEXT - 2 * MARGIN) / (highest - lowest)
    one, height = TEXT + MARGIN - lowest * per_doubling, ROW * len(found) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" fill="#222" font-family="sans-serif" '
        'font-size="13">',
        f'<rect class="ground" width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, bar in enumerate(found):
        top, length = number * ROW + 8, log2(bar.ratio) * per_doubling
        end = one + length
        lines += [
            f'<text x="10" y="{top + 13}">{escape(f"{bar.bench}  {bar.job}")}</text>',
            f'<text x="10" y="{top + 28}" font-size="11">{escape(f"{bar.special}, beside {bar.peer}")}</text>',
            f'<rect class="bar" x="{min(one, end):.1f}" y="{top + 4}" width="{abs(length):.1f}" height="22" '
            f'fill="{"#2b6cb0" if length >= 0 else "#c05621"}"/>',
            f'<text x="{end + (6 if length >= 0 else -6):.1f}" y="{top + 20}" '
            f'text-anchor="{"start" if length >= 0 else "end"}">{bar.ratio:g} ×</text>',
        ]
    bottom = height - 22
    lines += [
        f'<line x1="{one:.1f}" x2="{one:.1f}" y1="4" y2="{bottom}" stroke="#222"/>',
        f'<text x="{one:.1f}" y="{height - 6}" text-anchor="middle">as fast (logarithmic)</text>',
        "</svg>",
    ]
    return "\n".join(lines)
