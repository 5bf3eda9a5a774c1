"""The checks that hold the house together, run where everybody runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COLUMNS": "120", **environ}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((sys.executable, "-m", "ruff", "check", "."), id="lint"),
        pytest.param((sys.executable, "-m", "ruff", "format", "--check", "."), id="format"),
        pytest.param((sys.executable, "-m", "mypy"), id="types"),
        pytest.param((SCRIPTS / "lint-imports",), id="layers"),
    ],
)
def test_the_code_is_clean(command: tuple[str | Path, ...]):
    done = run(*command)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("body", "ci", "code"),
    [
        pytest.param("pytest.skip('no encoder')", "true", 1, id="a skip fails in CI"),
        pytest.param("pytest.skip('no encoder')", "", 0, id="a skip passes elsewhere"),
        pytest.param("assert True", "true", 0, id="without a skip CI passes"),
    ],
)
def test_ci_skips_nothing(tmp_path: Path, body: str, ci: str, code: int):
    (tmp_path / "test_sample.py").write_text(f"import pytest\n\ndef test_sample():\n    {body}\n")
    done = run(
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "--rootdir",
        tmp_path,
        tmp_path,
        CI=ci,
        PYTEST_ADDOPTS="",
    )
    assert done.returncode == code, done.stdout
    assert ("which counts as failed" in done.stdout) == (code == 1)
