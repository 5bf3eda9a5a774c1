"""`special mount` in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import POLL_S, READY_WITHIN_S

FUSE = Path("/dev/fuse")
STOPS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class LiveMount:
    """A source that is mounted."""

    directory: Path
    volume: Path
    log: Path
    """What it wrote to standard error."""
    process: subprocess.Popen[bytes]


@contextmanager
def special_mount(
    source: str | Path,
    *options: str,
    home: Path,
    volume: Path | None = None,
    command: tuple[str, ...] = ("-m", "special", "mount"),
    settings: Mapping[str, str] | None = None,
) -> Iterator[LiveMount]:
    """Mount a source on `home/mount`; it can be read when it is yielded. Unmounts in any case."""
    directory, volume, log = home / "mount", volume or home / "volume", home / "mount.log"
    directory.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPECIAL_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command, str(source), str(directory), "--volume", str(volume), *options],
            env={**inherited, "SPECIAL_HOME": str(home), **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_mounted(directory, process, log)
        yield LiveMount(directory, volume, log, process)
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(directory)], stderr=subprocess.DEVNULL, check=False)


def _wait_until_mounted(directory: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            os.statvfs(directory)  # an error where a process was killed
            if os.path.ismount(directory):
                return
        except OSError:
            pass
        time.sleep(POLL_S)
    raise RuntimeError(f"special mount did not mount:\n{log.read_text(errors='replace')[-4000:]}")
