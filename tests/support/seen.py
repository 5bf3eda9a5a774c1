"""A picture whose colours say where each of its points is, and what of it a screenshot shows: an oracle for viewers.

Red grows from 0 to 255 across the picture and green from its top to its bottom; blue is between two greys, in squares.
Whatever a viewer draws, each point of the screen thus says which point of the picture it shows, and all of them
together whether the picture is in one piece, undistorted, whole, and as sharp as the screen can show it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LOW, HIGH = 104, 152
"""Blue in one square and in the next."""
SQUARE = 4
"""Side of a square in pixels of the picture: too small to be told apart at a third of its size."""
STEP = 3
"""Every third point of the screen in both directions is looked at."""


def draw(path: Path, width: int, height: int) -> None:
    """Write the picture, in the format that the file's name says."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    squares = np.where((across // SQUARE + down // SQUARE) % 2, LOW, HIGH)
    picture = np.stack([across * 255 / (width - 1), down * 255 / (height - 1), squares], axis=2)
    Image.fromarray(picture.round().astype(np.uint8)).save(path, quality=95, subsampling=0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a screenshot shows of the picture."""

    scale: float
    """Pixels of the screen for a pixel of the picture."""
    distortion: float
    """How much the scale down differs from that across; 0: not at all."""
    misplaced: float
    """Share of the points that are not where the others say."""
    left: float
    top: float
    right: float
    bottom: float
    """The part of the picture that is seen, in shares of its sides."""
    contrast: float
    """Of the squares, in shares of that of the picture itself."""

    @property
    def is_right(self) -> bool:
        """Whether it is in one piece and undistorted."""
        return self.misplaced < 0.1 and abs(self.distortion) < 0.02

    @property
    def is_whole(self) -> bool:
        return max(self.left, self.top) < 0.03 and min(self.right, self.bottom) > 0.97

    @classmethod
    def of(cls, screenshot: bytes, width: int, height: int) -> Seen | None:
        """What is seen of the picture of that size; None where it is not to be seen."""
        shot = np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB"))[::STEP, ::STEP].astype(
            float
        )  # rows, columns, colours
        red, green, blue = shot[..., 0], shot[..., 1], shot[..., 2]
        # Pages are grey, black or white; where the picture itself is grey is a thin line.
        mask = (blue > LOW - 30) & (blue < HIGH + 30) & (np.ptp(shot, axis=2) > 16)
        rows, columns = np.nonzero(mask)
        if len(rows) < 1000:
            return None
        x, y = red[mask] / 255 * width, green[mask] / 255 * height
        across, down = _line(columns, x), _line(rows, y)
        if across is None or down is None:
            return None
        off_x = np.abs(x - np.polyval(across, columns)) / width
        off_y = np.abs(y - np.polyval(down, rows)) / height
        placed = (off_x < 0.03) & (off_y < 0.03)
        edges = [float(np.percentile(it[placed], share)) for it in (x / width, y / height) for share in (0.1, 99.9)]
        return cls(
            scale=float(STEP / across[0]),
            distortion=float(across[0] / down[0] - 1),
            misplaced=float(1 - placed.mean()),
            left=edges[0],
            right=edges[1],
            top=edges[2],
            bottom=edges[3],
            contrast=float(np.percentile(blue[mask], 90) - np.percentile(blue[mask], 10)) / (HIGH - LOW),
        )


def _line(places: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Slope and offset of the line that most points are on."""
    chosen = np.ones(len(places), dtype=bool)
    line = np.zeros(2)
    for _ in range(5):
        if np.ptp(places[chosen]) < 50 / STEP:
            return None
        line = np.polyfit(places[chosen], values[chosen], 1)
        off = np.abs(values - np.polyval(line, places))
        chosen = off <= max(3 * np.median(off), 1e-6)
    return line if line[0] > 0 else None
