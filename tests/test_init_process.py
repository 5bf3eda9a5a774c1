"""Process 1 of a container: orphans are reaped, signals passed on, exit codes kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
WITHIN_S = 60


def _is_possible() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(not _is_possible(), reason="needs the right to make a PID namespace"),
]


def run(script: str) -> subprocess.CompletedProcess[str]:
    """A script that begins as process 1."""
    begin = "import os, signal, subprocess, sys, time\nfrom special.init_process import run_below_init\n"
    command = [*UNSHARE, sys.executable, "-c", begin + script]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("sys.exit(0)", 0, id="done"),
        pytest.param("sys.exit(3)", 3, id="failed"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, id="killed"),
    ],
)
def test_it_ends_as_its_child_does(end: str, code: int) -> None:
    assert run(f"run_below_init()\nassert os.getpid() != 1\n{end}").returncode == code


def test_orphans_are_reaped_and_exit_codes_are_left_to_who_waits_for_them() -> None:
    ended = run(
        """run_below_init()
own = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(7)"])
for _ in range(20):
    subprocess.run("sleep 0.01 &", shell=True)
def orphans():
    return [pid for pid in os.listdir("/proc") if pid.isdecimal() and int(pid) > 2 and pid != str(own.pid)]
deadline = time.monotonic() + 30
while orphans() and time.monotonic() < deadline:
    time.sleep(0.01)
print(own.wait(), len(orphans()))
"""
    )
    assert ended.stdout.split() == ["7", "0"], ended.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1"])
def test_signals_are_passed_on(name: str) -> None:
    ended = run(
        f"""run_below_init()
signal.signal(signal.{name}, lambda *_: (print("got it"), sys.exit(5)))
os.kill(1, signal.{name})
time.sleep(30)
"""
    )
    assert (ended.returncode, ended.stdout) == (5, "got it\n"), ended.stderr


def test_the_server_runs_below_it_and_stops_at_sigterm(tmp_path: Path) -> None:
    (tmp_path / "masters").mkdir()
    command = [*UNSHARE, sys.executable, "-m", "special", "serve", str(tmp_path / "masters"), "--port", "0"]
    environ = {"SPECIAL_HOME": str(tmp_path / "home"), "SPECIAL_WORKERS": "1", "SPECIAL_DECODERS": "1"}
    with subprocess.Popen(command, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True) as unshare:
        assert unshare.stderr is not None
        while "Ctrl-C stops it" not in unshare.stderr.readline():
            assert unshare.poll() is None
        (init,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        (server,) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        assert "special" in Path(f"/proc/{server}/cmdline").read_text()
        os.kill(int(init), signal.SIGTERM)
        assert unshare.wait(WITHIN_S) == 0
