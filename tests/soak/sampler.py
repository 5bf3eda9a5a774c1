"""What a volume takes on disk, looked at every 10 ms by a process of its own: `python -m tests.soak.sampler DIR`.

On a file system of its own (`alone_on_disk`) that is what the file system itself says: exact at one instant, files
counted that are open and have no name any more, and cheap enough for 10 ms. Where mounting is not allowed a
walk over the directory has to do, which takes longer the busier the machine is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic

from tests.volume.made import taken_bytes

EVERY_S = 0.01


@dataclass
class Samples:
    """What was seen."""

    taken: list[int] = field(default_factory=list)
    """Bytes."""
    pauses_s: list[float] = field(default_factory=list)
    """From one sample to the next."""

    def __str__(self) -> str:
        every_ms, longest_ms = 1000 * median(self.pauses_s), 1000 * max(self.pauses_s)
        return (
            f"at most {max(self.taken):,} bytes in {len(self.taken):,} samples, "
            f"one every {every_ms:.1f} ms (longest pause {longest_ms:.0f} ms)"
        )


@contextmanager
def alone_on_disk(directory: Path, size_bytes: int) -> Iterator[None]:
    """A new directory, on a file system in memory where this user may mount one."""
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(directory)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def sampled(directory: Path) -> Iterator[Samples]:
    """Every sample, in what is given, once the block has been left."""
    samples = Samples()
    command = [sys.executable, "-m", "tests.soak.sampler", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield samples
        finally:
            output, _ = process.communicate()
            samples.taken, samples.pauses_s = json.loads(output)


def used_bytes(directory: Path) -> int:
    """What is taken of a file system."""
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def main(directory: Path) -> None:
    """Sample until the end of the input, then say what was found. Ticks that were missed are not made up for."""
    look = used_bytes if directory.is_mount() else taken_bytes
    stop, start_s = threading.Event(), monotonic()
    taken, at_s = [look(directory)], [start_s]
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    while not stop.wait(EVERY_S - (monotonic() - start_s) % EVERY_S):
        taken.append(look(directory))
        at_s.append(monotonic())
    print(json.dumps([taken, [after - before for before, after in pairwise(at_s)]]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
