"""Tile requests of a deep-zoom viewer, drawn once and for all."""

from __future__ import annotations

import random

from tests.bench.big import HEIGHT, WIDTH


def walk(side: int = 256) -> list[str]:
    """`{region}/{size}/0/default.jpg` of a viewer's tiles: all whole ones of a window that wanders, at three scales."""
    chance, tiles = random.Random(11), []
    for factor in (4, 2, 1):
        across, down = WIDTH // (side * factor), HEIGHT // (side * factor)
        column, row = across // 2, down // 2
        for _ in range(12):
            column = min(max(column + chance.choice((-1, 0, 1)), 0), across - 3)
            row = min(max(row + chance.choice((-1, 0, 1)), 0), down - 3)
            tiles += [
                f"{x * side * factor},{y * side * factor},{side * factor},{side * factor}/{side},/0/default.jpg"
                for y in range(row, row + 3)
                for x in range(column, column + 3)
            ]
    return list(dict.fromkeys(tiles))


def scattered(count: int, side: int = 512) -> list[str]:
    """As many different squares at 1:1, anywhere, on no grid."""
    chance = random.Random(12)
    places = [(chance.randrange(WIDTH - side), chance.randrange(HEIGHT - side)) for _ in range(count)]
    return [f"{x},{y},{side},{side}/{side},/0/default.jpg" for x, y in places]
