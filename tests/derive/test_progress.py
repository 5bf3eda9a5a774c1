"""What the terminal shows of a run, and what a pipe gets."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console

from special.derive.outcome import Outcome
from special.derive.progress import LINE_EVERY_S, JsonLines, Lines, Report, Tally, bar

MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
GOOD = Outcome("leaf", "made", "4 renditions from the master", written=4, gets=3, bytes=1000, decode_ms=12.34)
BAD = Outcome("[red]bud", "failed", "it ends too soon")


def tally(*outcomes: Outcome, expected: int | None = None) -> Tally:
    total = Tally(expected=expected)
    for outcome in outcomes:
        total.add(outcome)
    return total


def test_summary_counts_and_divides() -> None:
    total = tally(GOOD, GOOD, BAD, Outcome("root", "stood"))

    assert total.images == 4
    assert total.bad == 1
    assert re.fullmatch(
        r"4 images: 2 made, 1 stood, 1 failed; 8 renditions written\. [\d.]+ s, [\d,.]+ images/s; "
        r"for each image [\d.]+ ms of CPU, 1\.5 GETs, 500 bytes\.",
        total.summary(),
    )
    assert tally().summary().startswith("0 images: none; 0 renditions written.")


def test_bar_shows_rate_and_failures_and_vanishes() -> None:
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=True, width=200)
    with bar(console) as shown:
        shown.update(GOOD, tally(GOOD))
        shown.update(BAD, tally(GOOD, BAD, expected=2))
        shown.progress.refresh()

    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen.getvalue())
    assert "failed: [red]bud: it ends too soon" in text
    assert "2/2" in text
    assert "1 bad" in text
    assert re.search(r"\d/s", text)


def test_lines_name_failures_at_once_and_count_now_and_then() -> None:
    seen, now = io.StringIO(), [0.0]
    lines = Lines(Console(file=seen, width=200), clock=lambda: now[0])
    lines.update(GOOD, tally(GOOD))
    lines.update(BAD, tally(GOOD, BAD))
    assert re.fullmatch(rf"{MOMENT} failed: \[red\]bud: it ends too soon\n", seen.getvalue())

    now[0] = LINE_EVERY_S
    lines.update(GOOD, tally(GOOD, BAD, GOOD))
    lines.update(GOOD, tally(GOOD, BAD, GOOD, GOOD))
    now[0] += LINE_EVERY_S
    lines.update(GOOD, tally(GOOD, BAD, GOOD, GOOD, expected=5000))
    _, second, third = seen.getvalue().splitlines()
    assert re.fullmatch(MOMENT + r" 2 made, 1 failed \([\d,.]+/s\)", second)
    assert re.fullmatch(MOMENT + r" 4 of 5,000: 3 made, 1 failed \([\d,.]+/s\)", third)


def test_json_is_one_object_a_line() -> None:
    seen = io.StringIO()
    lines = JsonLines(seen)
    for outcome in (GOOD, Outcome("ü", "stood")):
        lines.update(outcome, tally())

    first, second = seen.getvalue().splitlines()
    assert json.loads(first) == {
        "identifier": "leaf",
        "result": "made",
        "detail": "4 renditions from the master",
        "written": 4,
        "gets": 3,
        "bytes": 1000,
        "decode_ms": 12.3,
    }
    assert '"ü"' in second


def test_notices_count_what_was_opened_closed_and_left_alone_and_name_a_few() -> None:
    total = tally(
        *(Outcome(f"o{number}", "made", access="opened") for number in range(7)),
        Outcome("c", "made", access="closed"),
        Outcome("h", "stood", access="held"),
        Outcome("f", "foreign"),
        Outcome("p", "due", access="opened"),
        GOOD,
        BAD,
    )

    assert total.notices(["would close"]) == [
        "1 images would be opened: p",
        "0 images would be closed",
        "7 images opened: o0, o1, o2, o3, o4, …",
        "1 images closed: c",
        "1 images more restricted than the policy says, as before (--open-restricted opens them): h",
        "1 images with a sizes file of others, left alone (--adopt takes them over): f",
    ]
    assert total.bad == 1
    assert tally(GOOD).notices() == []


def test_json_tells_of_restrictions_where_they_change() -> None:
    assert Outcome("o", "made", access="opened").plain()["access"] == "opened"


def test_quiet_lines_are_of_failures_alone() -> None:
    seen, now = io.StringIO(), [0.0]
    lines = Lines(Console(file=seen, width=200), clock=lambda: now[0], quiet=True)
    for now[0] in (0, LINE_EVERY_S):
        lines.update(GOOD, tally(GOOD))
    assert seen.getvalue() == ""
    lines.update(BAD, tally(BAD))
    assert len(seen.getvalue().splitlines()) == 1


def test_a_report_has_a_row_for_each_image() -> None:
    file = io.StringIO(newline="")
    report = Report(file)
    report.add(GOOD)
    report.add(Outcome('a,"b"', "failed", "line\nend"))
    first, second = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert datetime.fromisoformat(first.pop("time")) <= datetime.now(UTC)
    assert first == {
        "identifier": "leaf",
        "outcome": "made",
        "reason": "4 renditions from the master",
        "renditions": "4",
        "gets": "3",
        "bytes": "1000",
        "decode_ms": "12.3",
    }
    assert (second["identifier"], second["reason"]) == ('a,"b"', "line\nend")


def test_masters_that_end_early_are_told_of() -> None:
    cut = replace(GOOD, identifier="cut", incomplete="the JPEG has no end (EOI)")
    total = tally(GOOD, cut, replace(cut, access="held"))
    assert total.notices() == [
        "1 images more restricted than the policy says, as before (--open-restricted opens them): cut",
        "2 images whose masters end early, shown as far as they go (--strict refuses them): cut, cut",
    ]
    assert (total.bad, total.plain()["incomplete"]) == (0, 2)
    assert "incomplete" not in GOOD.plain()
    assert cut.plain()["incomplete"] == "the JPEG has no end (EOI)"
    file = io.StringIO(newline="")
    Report(file).add(cut)
    assert "4 renditions from the master; the JPEG has no end (EOI)" in file.getvalue()


def test_a_plan_is_added_up() -> None:
    few = tally(Outcome("a", "due", due_reads=5 * 10**8, due_puts=1), Outcome("b", "due", due_reads=10**8, due_puts=1))
    assert few.estimate(2) == [
        "What is due takes at most 600.0 MB of reads and 2 PUTs, and about 1 min with 2 decoders at 10 MB/s each."
    ]
    total = tally(*(Outcome(str(n), "due", due_reads=36_000_000_000, due_puts=6) for n in range(4)))
    assert total.estimate(2) == [
        "What is due takes at most 144.0 GB of reads and 24 PUTs, and about 2.0 hours with 2 decoders at 10 MB/s each."
    ]


def test_the_totals_name_keys_without_an_identifier() -> None:
    total = tally(GOOD, Outcome("README", "skipped", "no image"))
    for key in ("a//b", "/c"):
        total.leave_out(key, "spelling")
    for number in range(6):
        total.leave_out(f"{number}.txt", "no image")
    total.leave_out("a.tif", "no template")
    assert total.notices() == [
        "2 keys have no identifier unless odd_keys is set: 'a//b', '/c'",
        "6 files passed over, which are no images by their names: '0.txt', '1.txt', '2.txt', '3.txt', '4.txt', …",
        "1 keys passed over, which fit no template of keys: 'a.tif'",
    ]
    assert total.bad == 0
    plain = total.plain()
    assert (plain["images"], plain["results"]) == (2, {"made": 1, "skipped": 1})
    assert [plain[name] for name in ("left_out", "no_image", "no_template")] == [2, 6, 1]
