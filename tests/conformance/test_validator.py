"""The IIIF consortium's own image validator against a running server.

What it gets wrong is listed by name. A listed test that passes fails here: the list stays true.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fixtures.validator import IDENTIFIER, validator_image
from tests.conftest import Serve

pytestmark = pytest.mark.service

SCRIPT = Path(sys.executable).with_name("iiif-validate.py")
OUTCOME = re.compile(r"^\[\d+\] test (\w+) (PASS|FAIL)$", re.MULTILINE)

CRASHES = "the test calls urllib.urlopen, which Python 3 does not have"
NOT_OFFERED = f"special does not offer this format, and {CRASHES}"
WRONG_TESTS = {
    ("2.0", 2): {},
    ("3.0", 2): {
        "size_noup": "asks 400 for '!2000,3000', which must be clamped to the region (Image API 3.0, section 4.2)",
    },
    ("2.0", 3): {
        "format_webp": CRASHES,
        "format_jp2": NOT_OFFERED,
        "format_pdf": NOT_OFFERED,
    },
    ("3.0", 3): {
        "size_noup": "as at level 2",
        "size_up": "asks '^max' for 1000 pixels and '^pct:200' for 2000 of one image: no limit allows both",
        "format_webp": CRASHES,
        "format_jp2": NOT_OFFERED,
        "format_pdf": NOT_OFFERED,
    },
}
HOW_MANY = {("2.0", 2): 30, ("3.0", 2): 33, ("2.0", 3): 42, ("3.0", 3): 45}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image that the validator expects."""
    folder = tmp_path_factory.mktemp("masters")
    (folder / IDENTIFIER).write_bytes(validator_image())
    return folder


@pytest.mark.parametrize(
    ("level", "settings"),
    [
        pytest.param(2, {}, id="level 2 as installed"),
        pytest.param(3, {"SPECIAL_UPSCALING": "true"}, id="level 3 with enlarging on"),
    ],
)
@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_the_official_validator_agrees(
    serve: Serve, squares: Path, tmp_path: Path, version: str, level: int, settings: dict[str, str]
):
    server = serve(squares, settings=settings)
    # Its tests of JP2 and PDF import a binding of libmagic and crash before they use it: any module will do.
    (tmp_path / "magic.py").touch()
    where = ["-s", urlsplit(server.url).netloc, "-p", f"iiif/{version[0]}", "-i", IDENTIFIER]
    done = subprocess.run(
        [sys.executable, SCRIPT, *where, f"--version={version}", f"--level={level}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = dict(OUTCOME.findall(done.stderr))
    assert len(outcomes) == HOW_MANY[version, level], done.stderr
    failed = {name for name, outcome in outcomes.items() if outcome == "FAIL"}
    assert failed == set(WRONG_TESTS[version, level]), done.stderr
