"""Where the directories of a pyramid should be that are not linked yet.

A directory is found by the link in the one before it, so a pyramid of six levels costs five round trips in
series. But libvips writes one page after the other, each directory behind its tiles, and bytes for each pixel
change by a like share from level to level. So two offsets and the file's length tell roughly where all others are
(mostly within 12 % of what follows them, for JPEG and deflate, with and without noise), and those bytes are read
along. That is an estimate of what to *read*, never of what is there: only links are followed. A directory that is
elsewhere costs the round trip that it would have cost anyway, and then the next estimate is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from special.geometry import Size, ceil_div
from special.storage import Span

ENTRIES_BYTES = 1024
"""What a directory takes besides its lists of tiles, if libvips wrote it and there is no profile."""
MARGIN_BYTES = 8192
"""How far around an estimated offset is read at least."""
MARGIN_PART = 16
"""How far around the first estimate is read, as a part of what follows it; twice that for the second, and so on."""
MAX_BYTES = 256 << 10
"""Maximum number of bytes read for all estimated offsets of one file."""
LIKELY = 4.0
"""Pixels of one level take at most this many times the bytes of those of the next, and at least the inverse."""
STEPS = 40
"""Halvings of an interval: as many as tell shares apart."""


@dataclass(frozen=True, slots=True)
class ExpectedPyramid:
    """A pyramid as libvips writes it: each level half of the one before, down to one that fits into a tile."""

    tiles: tuple[int, ...]
    """How many tiles each level has."""
    weights: tuple[float, ...]
    """How many pixels a level counts for: between those that it shows and those that its tiles hold."""
    number_bytes: int
    """What a tile takes in the lists of a directory."""
    other_bytes: int
    """What a directory takes besides."""

    @classmethod
    def of(cls, size: Size, tile: Size, *, number_bytes: int, reach_bytes: int = 0) -> ExpectedPyramid:
        """That of a full picture of `size`, whose own directory takes `reach_bytes`."""
        tiles: list[int] = []
        weights: list[float] = []
        width, height = size.width, size.height
        while True:
            tiles.append(ceil_div(width, tile.width) * ceil_div(height, tile.height))
            weights.append(math.sqrt(width * height * tiles[-1] * tile.area))
            if width <= tile.width and height <= tile.height:
                other_bytes = max(ENTRIES_BYTES, reach_bytes - number_bytes * tiles[0])
                return cls(tuple(tiles), tuple(weights), number_bytes, other_bytes)
            width, height = max(1, width // 2), max(1, height // 2)

    def directory_bytes(self, level: int) -> int:
        """What the directory of a level takes, about; of one that it has not, the least that one can take."""
        return self.other_bytes + self.number_bytes * (self.tiles[level] if level < len(self.tiles) else 1)

    def offsets(self, links: Sequence[int], *, size_bytes: int) -> list[int]:
        """Where the directories behind the last link should be; nothing if the pages do not follow each other so.

        `links` are the offsets of the first directory and of those that follow it, two at least.
        """
        known = len(links)
        starts = [0, *(at + self.directory_bytes(level) for level, at in enumerate(links))]
        if known >= len(self.tiles):
            return []
        before, each = ((links[level] - starts[level]) / self.weights[level] for level in (known - 2, known - 1))
        if before <= 0 or not 1 / LIKELY < each / before < LIKELY:
            return []
        lists = sum(self.directory_bytes(level) for level in range(known, len(self.tiles)))
        share = _share(self.weights[known:], (size_bytes - starts[-1] - lists) / each)
        found, at = [], float(starts[-1])
        for level in range(known, len(self.tiles)):
            each *= share
            at += self.weights[level] * each
            found.append(int(at))
            at += self.directory_bytes(level)
        return found

    def windows(self, links: Sequence[int], *, size_bytes: int, tail: int) -> list[Span]:
        """What to read so that the directories behind the last link are most likely in it.

        From byte `tail` on it is read already. At most `MAX_BYTES`.
        """
        found: list[Span] = []
        left = MAX_BYTES
        for number, at in enumerate(self.offsets(links, size_bytes=size_bytes)):
            margin = max(MARGIN_BYTES, (size_bytes - at << number) // MARGIN_PART)
            length = self.directory_bytes(len(links) + number)
            # A directory that begins before the tail may end in it.
            start, stop = max(at - margin, links[-1] + 1), min(at + margin, tail) + length
            if start < tail and stop <= size_bytes and stop - start <= left:
                found.append(Span(start, stop))
                left -= stop - start
        return found


def _share(weights: Sequence[float], wanted: float) -> float:
    """By how much pixels become cheaper from level to level, so that all take `wanted` times a pixel of the last known.

    Solves sum(weights[k] * share**(k + 1)) = wanted, to at most `LIKELY`.
    """
    low, high = 0.0, LIKELY
    for _ in range(STEPS):
        middle = (low + high) / 2
        total = sum(weight * middle ** (number + 1) for number, weight in enumerate(weights))
        low, high = (middle, high) if total < wanted else (low, middle)
    return high
