"""The checks of the code as a whole: lint, format, types, layers, what pure tests import, and that CI skips nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import check

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COLUMNS": "120", **environ}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", check.CODE.values(), ids=check.CODE)
def test_the_code_is_clean(command: tuple[str | Path, ...]):
    done = run(*command)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


PURE = [
    *(
        path
        for name in ("concurrency", "formats", "iiif", "volume")
        for path in (ROOT / "tests" / name).glob("test_*.py")
    ),
    ROOT / "tests" / "test_geometry.py",
    ROOT / "tests" / "derive" / "test_plan.py",
]
HEAVY = {"boto3", "moto", "pydantic_settings"}
LOADED = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
import tests.conftest
for path in sys.argv[1:]:
    spec = spec_from_file_location("pure", path)
    sys.modules["pure"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
print(*sys.modules)
"""


def test_pure_tests_import_no_store_and_no_settings():
    done = run(sys.executable, "-c", LOADED, *PURE)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize(
    ("body", "ci", "code"),
    [
        pytest.param("pytest.skip('no encoder')", "true", 1, id="a skip fails in CI"),
        pytest.param("pytest.skip('no encoder')", "", 0, id="a skip passes elsewhere"),
        pytest.param("assert True", "true", 0, id="without a skip CI passes"),
    ],
)
def test_ci_skips_nothing(tmp_path: Path, body: str, ci: str, code: int, processes: str):
    (tmp_path / "test_sample.py").write_text(f"import pytest\n\ndef test_sample():\n    {body}\n")
    done = run(
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-n",
        processes,
        "--rootdir",
        tmp_path,
        tmp_path,
        CI=ci,
        PYTEST_ADDOPTS="",
    )
    assert done.returncode == code, done.stdout
    assert ("which counts as failed" in done.stdout) == (code == 1)
