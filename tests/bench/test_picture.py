"""The picture of the benches shows the table's numbers, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.bench import Result
from tests.bench.picture import Bar, bars, svg

NAME = "{http://www.w3.org/2000/svg}"
RESULTS = [
    Result("a thumbnail <of> S3", "9,000/s · 0.10 ms", "Starlette: 4,500/s · 0.20 ms", 2.0, "≥ 1 ×", True),
    Result("GETs of a session", "12", "", None, "≤ 20", True),
    Result("the first tile", "50 ms", "iipsrv on s3fs: 200 ms", 4.0, "≥ 2 ×", True),
    Result("a slow one", "10/s · 1.00 ms", "iipsrv: 20/s · 0.50 ms", 0.5, "≥ 1 ×", False),
    Result("many", "10/s · 1.00 ms", "iipsrv: 0/s · 0.50 ms", 1234.5, "≥ 1 ×", True),
]
TABLE = "\n".join(
    [
        "| | Job | special | beside | ratio | bar | reached |",
        "|---|---|--:|--:|--:|--:|---|",
        *(f"| B{number} | {result} |" for number, result in enumerate(RESULTS, 1)),
        "| B6 | skipped: needs wrk (apt-get install wrk) | | | | | |",
        "| B7 | failed | | | | | |",
    ]
)


def test_lines_with_a_ratio_are_read() -> None:
    assert list(bars(TABLE)) == [
        Bar("B1", "a thumbnail <of> S3", "9,000/s · 0.10 ms", "Starlette", 2.0),
        Bar("B3", "the first tile", "50 ms", "iipsrv on s3fs", 4.0),
        Bar("B4", "a slow one", "10/s · 1.00 ms", "iipsrv", 0.5),
        Bar("B5", "many", "10/s · 1.00 ms", "iipsrv", 1234.5),
    ]


def test_bars_are_as_long_as_the_logarithm_of_their_ratio() -> None:
    picture = ElementTree.fromstring(svg(list(bars(TABLE))))  # noqa: S314 - made here
    drawn = [it for it in picture.iter(f"{NAME}rect") if it.get("class") == "bar"]
    left, wide = ([float(it.attrib[name]) for it in drawn] for name in ("x", "width"))
    line = float(next(picture.iter(f"{NAME}line")).attrib["x1"])
    assert wide[1] == pytest.approx(2 * wide[0], abs=0.2)
    assert wide[2] == pytest.approx(wide[0], abs=0.2)
    assert (left[0], left[1]) == (line, line)
    assert left[2] + wide[2] == pytest.approx(line, abs=0.2)
    said = [it.text for it in picture.iter(f"{NAME}text")]
    assert {"B1  a thumbnail <of> S3", "2 ×", "4 ×", "0.5 ×", "1234.5 ×", "50 ms, beside iipsrv on s3fs"} <= set(said)
    across = float(picture.attrib["viewBox"].split()[2])
    assert all(x >= 0 and x + w <= across for x, w in zip(left, wide, strict=True))


@pytest.mark.service
def test_the_command_draws_a_file(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text(TABLE, "utf-8")
    command = [sys.executable, "-m", "tests.bench", "picture"]
    drawn = subprocess.run([*command, table], check=True, capture_output=True, text=True)
    assert drawn.stdout == svg(list(bars(TABLE))) + "\n"

    table.write_text("nothing", "utf-8")
    refused = subprocess.run([*command, table], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "has no line with a ratio" in refused.stderr
