"""What is fetched ahead: more and more of a run, and nothing of reads here and there."""

from __future__ import annotations

import random
from itertools import pairwise

from special.mount.read_ahead import MOST_BYTES, NEAR_BYTES, PIECE_BYTES, ReadAhead, Spread
from special.storage import Span

MIB = 1 << 20
STEP = 128 << 10


def test_a_run_is_fetched_ahead_once_and_without_a_gap() -> None:
    size = 40 * MIB + 77
    pattern, ahead = ReadAhead(size), []
    for start in range(0, size, STEP):
        read = Span(start, min(start + STEP, size))
        pieces = pattern.record(read)
        ahead += pieces
        assert all(piece.start >= read.stop and len(piece) <= PIECE_BYTES for piece in pieces)
        assert not pieces or pieces[-1].stop - read.stop <= MOST_BYTES
    assert ahead[0].start == 2 * STEP, "from 256 KiB in a row on"
    assert all(one.stop == other.start for one, other in pairwise(ahead))
    assert ahead[-1].stop == size
    assert max(piece.stop - piece.start for piece in ahead) == PIECE_BYTES


def test_reads_that_the_kernel_sends_in_any_order_are_a_run() -> None:
    chance, pattern, fetched = random.Random(1), ReadAhead(16 * MIB), 0
    for start in range(0, 8 * MIB, 2 * STEP):
        pair = [Span(start, start + STEP), Span(start + STEP, start + 2 * STEP)]
        chance.shuffle(pair)
        fetched += sum(len(piece) for read in pair for piece in pattern.record(read))
    assert fetched > 7 * MIB


def test_reads_here_and_there_fetch_nothing() -> None:
    chance, pattern = random.Random(2), ReadAhead(1 << 30)
    places = [chance.randrange(1000) * MIB + row * 60_000 for _ in range(200) for row in range(4)]
    assert all(pattern.record(Span(place, place + 16384)) == [] for place in places)


def test_the_more_places_were_missing_the_more_is_fetched_around_the_next() -> None:
    size, chance = 64 * MIB + 5, random.Random(3)
    spread, widths = Spread(size), []
    for _ in range(20):
        start = chance.randrange(size)
        read = Span(start, min(start + 16384, size))
        near, around = spread.record_miss(read)
        assert near.covers(read)
        assert len(near) <= NEAR_BYTES
        widths.append(around[-1].stop - around[0].start if around else 0)
        assert all(one.stop == other.start for one, other in pairwise(around))
        assert not around or around[0].start <= start < around[-1].stop <= size
    assert widths[0] == 0, "one program that looks at one place"
    assert widths[1:3] == [2 * MIB] * 2
    assert max(widths) == 4 * MIB
