"""Where a pyramid's directories should be, by those in the file's last bytes.

libvips writes a page's tiles, then its directory, then the next page. So the first tile of a level begins where the
directory of the level above ends, and the last bytes of a file lead upwards, level by level, as far as they reach.
From there to the first directory, whose offset the header has, the bytes for a pixel change by a like factor from
level to level: that tells how many levels are between, and roughly where they end.

As in `ifd_prefetch`, this is an estimate of what to *read*, never of what is there: only links are followed.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from special.errors import Malformed
from special.formats.tiff.ifd import Dialect, Directory
from special.formats.tiff.tags import WIDTHS, Tag
from special.geometry import Size, ceil_div
from special.storage import Span

ALIGNMENT_BYTES = 16
"""How far a directory may be from what is before and behind it."""
FIRST_EXTRA_BYTES = 4096
"""What the first directory has besides what the others have: links to these, descriptions."""
MAX_FIRST_BYTES = 160 << 10
"""Longest first directory that is read at once: longer lists are read by the part that is needed, when it is."""
MAX_CANDIDATES = 64
"""Maximum number of places in the last bytes that are looked at as directories."""
MAX_LEVELS = 12
"""Maximum number of levels that are looked for between the first and those at the end."""
MARGIN_PART = 8
"""How far around an estimated offset is read, as a part of what follows it up to the levels at the end."""
MARGIN_BYTES = 16384
"""How far around it is read at least."""
MAX_BYTES = 512 << 10
"""Maximum number of bytes read for all estimated offsets of one file."""
STEPS = 40
"""Halvings of an interval: as many as tell bends apart."""


@dataclass(frozen=True, slots=True)
class LastLevel:
    """A level of a pyramid near the end of a file."""

    size: Size
    tile: Size
    tiles_at: int
    """Where its first tile is."""
    at: int
    """Where its directory is, right behind its tiles."""
    number_bytes: int
    """What a tile takes in the lists of the directory."""
    other_bytes: int
    """What the directory takes besides, up to the next level's tiles."""


def last_levels(dialect: Dialect, tail: bytes, *, size_bytes: int) -> list[LastLevel]:
    """The smallest levels of a pyramid, the largest of them first, by a file's last bytes; none if it is no pyramid."""
    tail_at, found, stop = size_bytes - len(tail), list[LastLevel](), size_bytes
    for match in reversed(list(_width_entry(dialect).finditer(tail))[-MAX_CANDIDATES:]):
        level = _level(dialect, tail, match.start(), tail_at=tail_at, stop=stop)
        if level is None:
            continue
        if found and not _is_twice(level.size, found[-1].size):
            break
        found.append(level)
        stop = level.tiles_at
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Expected:
    """What to read so that the directories above the last levels are most likely in it."""

    first_bytes: int = 0
    """Length of the first directory, with its lists."""
    others: list[Span] = field(default_factory=list)
    """Where those between are: at most `MAX_BYTES`."""


def expected_directories(last: Sequence[LastLevel], first_at: int) -> Expected:
    """Where the directories from the first one, whose offset is known, to those of the last levels should be.

    Nothing where the levels do not follow each other as libvips writes them.
    """
    if not last or last[0].tiles_at <= first_at:
        return Expected()
    levels = min(
        (levels for count in range(1, MAX_LEVELS) if (levels := _Between.of(last[0], first_at, count)) is not None),
        key=lambda levels: abs(levels.bend),
        default=None,
    )
    if levels is None:
        return Expected()
    found, left = list[Span](), MAX_BYTES
    stop = last[0].tiles_at
    for at, length in reversed(levels.directories(first_at)):
        # The last one is known exactly: it ends where the tiles behind it begin.
        margin = max(MARGIN_BYTES, (stop - at) // MARGIN_PART) if found else length // 2
        span_at, span_stop = max(at - margin, first_at + 1), min(at + length + margin, stop)
        if not 0 < span_stop - span_at <= left:
            break
        found.append(Span(span_at, span_stop))
        left -= span_stop - span_at
    first_bytes = levels.directory_bytes[0] + FIRST_EXTRA_BYTES
    return Expected(first_bytes if first_bytes <= MAX_FIRST_BYTES else 0, found)


@dataclass(frozen=True, slots=True)
class _Between:
    """The levels between the first and those at a file's end."""

    bytes: tuple[float, ...]
    """What the tiles of each take."""
    directory_bytes: tuple[int, ...]
    """What the directory of each takes, that of the first level in front."""
    bend: float
    """By how much the bytes for a pixel are off a steady change from the first level to the last; 0 is none."""

    @classmethod
    def of(cls, last: LastLevel, first_at: int, count: int) -> _Between | None:
        """With `count` - 1 levels between; None where there are too many or too few bytes for these."""
        sizes = [Size(last.size.width << up, last.size.height << up) for up in range(count, -1, -1)]
        tiles = [ceil_div(it.width, last.tile.width) * ceil_div(it.height, last.tile.height) for it in sizes]
        weights = [math.sqrt(it.area * number * last.tile.area) for it, number in zip(sizes, tiles, strict=True)]
        directories = [last.other_bytes + last.number_bytes * number for number in tiles[:-1]]
        left = last.tiles_at - first_at - sum(directories)
        if count == 1:
            return cls((), tuple(directories), 0.0) if abs(left) < last.other_bytes + directories[0] else None
        first, end = first_at / weights[0], (last.at - last.tiles_at) / weights[-1]
        if left <= 0 or end <= 0:
            return None

        def between(bend: float) -> list[float]:
            steps = [step / count for step in range(1, count)]
            return [
                weight * first ** (1 - step) * end**step * math.exp(4 * bend * step * (1 - step))
                for weight, step in zip(weights[1:-1], steps, strict=True)
            ]

        low, high = -10.0, 10.0
        for _ in range(STEPS):
            bend = (low + high) / 2
            low, high = (bend, high) if sum(between(bend)) < left else (low, bend)
        return cls(tuple(between(low)), tuple(directories), low)

    def directories(self, first_at: int) -> list[tuple[int, int]]:
        """Offset and length of the directory of each."""
        found, at = list[tuple[int, int]](), float(first_at + self.directory_bytes[0])
        for size_bytes, length in zip(self.bytes, self.directory_bytes[1:], strict=True):
            at += size_bytes
            found.append((int(at), length))
            at += length
        return found


def _width_entry(dialect: Dialect) -> re.Pattern[bytes]:
    """The start of an entry for one ImageWidth, a SHORT or a LONG (TIFF 6.0, "ImageWidth")."""
    count = "Q" if dialect.big else "I"
    entries = (struct.pack(f"{dialect.order}HH{count}", Tag.IMAGE_WIDTH, kind, 1) for kind in (3, 4))
    return re.compile(b"|".join(map(re.escape, entries)), re.DOTALL)


def _level(dialect: Dialect, tail: bytes, width_at: int, *, tail_at: int, stop: int) -> LastLevel | None:
    """The level whose directory has its width at a byte of `tail`, and ends at `stop`; None where that is none."""
    count, entry, _ = dialect.structs
    for before in range(3):  # NewSubfileType and SubfileType may stand before it
        at = tail_at + width_at - before * entry.size - count.size
        if at < tail_at:
            return None
        try:
            directory, _ = dialect.directory(tail, at, data_at=tail_at, end=stop)
            level = _tiled(directory, at, stop)
        except Malformed:
            continue
        if level is not None:
            return level
    return None


def _tiled(directory: Directory, at: int, stop: int) -> LastLevel | None:
    """A directory as a level whose tiles lie right before it. Raises `Malformed`."""
    width, height, across, down = (
        directory.number(tag) for tag in (Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH, Tag.TILE_WIDTH, Tag.TILE_LENGTH)
    )
    stored = [offset for offset in directory.numbers(Tag.TILE_OFFSETS) if offset]
    lists = [directory.fields[tag] for tag in (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS) if tag in directory.fields]
    if not all((width, height, across, down, stored)) or not min(stored) < at:
        return None
    number_bytes = sum(WIDTHS[it.type] for it in lists)
    other_bytes = max(0, stop - at - number_bytes * lists[0].values) + ALIGNMENT_BYTES
    return LastLevel(Size(width, height), Size(across, down), min(stored), at, number_bytes, other_bytes)


def _is_twice(upper: Size, lower: Size) -> bool:
    """Whether a level is the next larger one of another, however halves were rounded."""
    return abs(upper.width - 2 * lower.width) <= 1 and abs(upper.height - 2 * lower.height) <= 1
