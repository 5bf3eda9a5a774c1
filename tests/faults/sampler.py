"""What a directory takes on disk, looked at every 10 ms by a process of its own: `python -m tests.faults.sampler DIR`.

In a thread of the test it would wait for its clients and its proxy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.volume.made import taken_bytes

EVERY_S = 0.01


@contextmanager
def sampled(directory: Path) -> Iterator[list[int]]:
    """Every sample, in the list that is given, once the block has been left."""
    samples: list[int] = []
    command = [sys.executable, "-m", "tests.faults.sampler", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield samples
        finally:
            output, _ = process.communicate()
            samples += json.loads(output)


def main(directory: Path) -> None:
    """Sample until the end of the input, then say what was found."""
    stop, samples = threading.Event(), [taken_bytes(directory)]
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    while not stop.wait(EVERY_S):
        samples.append(taken_bytes(directory))
    print(json.dumps(samples))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
