import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from special.errors import Malformed
from special.formats.parser import Parser, drive, solve
from special.storage.blob import Blob, Span, Unless
from special.storage.ranges import coalesce, read_spans, runs_of
from tests.support.memory import MemorySource

spans = st.lists(st.builds(Span.at, st.integers(0, 10_000), st.integers(1, 500)), min_size=1, max_size=40)


def covered(runs: list[Span]) -> set[int]:
    return {offset for run in runs for offset in range(run.start, run.stop)}


@pytest.mark.parametrize(
    ("wanted", "gap", "waste", "runs"),
    [
        pytest.param([Span(0, 5), Span(5, 9)], 0, None, [Span(0, 9)], id="touching"),
        pytest.param([Span(0, 9), Span(2, 4)], 0, None, [Span(0, 9)], id="inside another"),
        pytest.param([Span(0, 5), Span(8, 9)], 2, None, [Span(0, 5), Span(8, 9)], id="gap too wide"),
        pytest.param([Span(0, 5), Span(8, 9)], 3, None, [Span(0, 9)], id="gap just narrow enough"),
        pytest.param([Span(8, 9), Span(0, 5)], 3, None, [Span(0, 9)], id="any order"),
        pytest.param(
            [Span(0, 1), Span(4, 5), Span(6, 7)], 9, 2, [Span(0, 1), Span(4, 7)], id="narrowest first, within the waste"
        ),
        pytest.param([], 9, None, [], id="nothing"),
    ],
)
def test_coalesce(wanted: list[Span], gap: int, waste: int | None, runs: list[Span]) -> None:
    assert coalesce(wanted, max_gap_bytes=gap, max_waste_bytes=waste) == runs


@given(spans, st.integers(0, 3000), st.none() | st.integers(0, 3000))
def test_coalesced_runs_cover_all_and_waste_no_more_than_allowed(
    wanted: list[Span], gap: int, waste: int | None
) -> None:
    runs = coalesce(wanted, max_gap_bytes=gap, max_waste_bytes=waste)
    needed, read = covered(wanted), covered(runs)
    assert needed <= read
    assert sum(len(run) for run in runs) == len(read), "no byte is read twice"
    assert waste is None or len(read - needed) <= waste
    assert all(after.start - before.stop > 0 for before, after in itertools.pairwise(runs))
    if waste is None:
        assert all(after.start - before.stop > gap for before, after in itertools.pairwise(runs))


@given(spans, st.integers(0, 100_000))
async def test_read_spans_gives_each_span_its_bytes(wanted: list[Span], gap: int) -> None:
    data = bytes(offset * 7 % 251 for offset in range(11_000))
    source = MemorySource({"x": data})
    parts = await read_spans(source, source.blob("x"), wanted, max_gap_bytes=gap)
    assert parts == [data[span.start : span.stop] for span in wanted]
    assert source.calls == [("read", "x", tuple(runs_of(wanted, max_gap_bytes=gap)))]


def chained(hops: list[Span]) -> Parser[bytes]:
    """Asks for one span after another; each depends on the one before."""
    last = b""
    for span in hops:
        (last,) = yield [span]
    return last


async def test_drive_reads_the_start_first_and_then_chunks() -> None:
    source = MemorySource({"x": bytes(range(256)) * 1000})
    blob = source.blob("x")
    hops = [Span(0, 8), Span(100, 200), Span(90_000, 90_010), Span(90_500, 90_600)]
    await drive(chained(hops), source, blob, first_bytes=65536, chunk_bytes=16384)
    # Four hops, two reads: headers cluster.
    assert source.calls == [("read", "x", (Span(0, 65536),)), ("read", "x", (Span(90_000, 106_384),))]


async def test_drive_uses_what_the_caller_has() -> None:
    data = bytes(range(256))
    source = MemorySource({"x": data})
    assert await drive(chained([Span(3, 5)]), source, source.blob("x"), seen=[(Span(0, 10), data[:10])]) == data[3:5]
    assert source.calls == []


async def test_what_was_seen_is_not_read_again() -> None:
    data = bytes(range(256))
    source = MemorySource({"x": data})
    seen = [(Span(0, 50), data[:50]), (Span(40, 80), data[40:80]), (Span(100, 110), data[100:110])]
    wanted = [Span(10, 20), Span(30, 90), Span(95, 105), Span(200, 201)]
    parts = await read_spans(source, source.blob("x"), wanted, max_gap_bytes=0, seen=seen)
    assert parts == [data[span.start : span.stop] for span in wanted]
    assert source.calls == [("read", "x", (Span(80, 90), Span(95, 100), Span(200, 201)))]


async def test_all_seen_is_nothing_read() -> None:
    source = MemorySource({"x": b"abc"})
    assert await read_spans(source, source.blob("x"), [Span(1, 3)], max_gap_bytes=0, seen=[(Span(0, 3), b"abc")]) == [
        b"bc"
    ]
    assert source.calls == []


async def test_a_span_past_the_end_is_the_files_lie() -> None:
    source = MemorySource({"x": b"short"})
    with pytest.raises(Malformed, match="ends at byte 5, before byte 100"):
        await drive(chained([Span(0, 100)]), source, source.blob("x"))
    with pytest.raises(Malformed, match="ends at byte 5, before byte 100"):
        solve(chained([Span(0, 100)]), b"short")


def test_solve_is_drive_in_memory() -> None:
    assert solve(chained([Span(0, 2), Span(1, 3)]), b"abc") == b"bc"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        pytest.param('"a"', True, id="same"),
        pytest.param('W/"a"', True, id="weak"),
        pytest.param('"b", "a"', True, id="one of several"),
        pytest.param("*", True, id="any"),
        pytest.param('"b"', False, id="other"),
        pytest.param("a", False, id="no tag"),
    ],
)
def test_if_none_match(condition: str, holds: bool) -> None:
    assert Unless(condition).hold('"a"') is holds


def test_spans_are_checked_at_birth() -> None:
    with pytest.raises(ValueError, match="5–5"):
        Span(5, 5)
    assert len(Span.at(3, 4)) == 4
    assert Span.whole(Blob("s3://b/", "k", '"e"', 10)) == Span(0, 10)
