"""Masters that are broken on purpose: mutations of the fixtures, and what others have found to crash decoders.

The latter are fetched when a test wants them, from the source distribution of pillow, whose tests
keep every file that a fuzzer ever broke it with; they are kept in a cache and never in the repository.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.live import MASTERS

PILLOW = "11.3.0"
KINDS = (".tif", ".tiff", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".webp", ".gif")
FOUND_BAD = ("crash-", "oom-", "timeout-", "bad", "broken", "bomb", "invalid", "truncated", "overrun", "ossfuzz")
FIXTURES = Path(__file__).parents[2] / "fixtures"


def mutations(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many spoilt fixtures, by names that say how; the same for the same seed."""
    chance = random.Random(seed)
    originals = sorted([*MASTERS.iterdir(), *(FIXTURES / "jp2").iterdir(), *(FIXTURES / "codestreams").iterdir()])
    hurts = (_flipped, _cut, _zeroed, _shuffled, _enlarged)
    for n in range(count):
        path, hurt = chance.choice(originals), hurts[n % len(hurts)]
        yield f"{n}-{hurt.__name__[1:]}-{path.name}", hurt(bytearray(path.read_bytes()), chance)


def _flipped(data: bytearray, chance: random.Random) -> bytes:
    """Bits of the headers and of the rest."""
    for end in (512, 4096, len(data)):
        for _ in range(4):
            data[chance.randrange(min(end, len(data)))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _cut(data: bytearray, chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(1, len(data))])


def _zeroed(data: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return bytes(data[:start]) + bytes(min(5000, len(data) - start)) + bytes(data[start + 5000 :])


def _shuffled(data: bytearray, chance: random.Random) -> bytes:
    """Two parts in each other's place."""
    one, two, three = sorted(chance.randrange(len(data)) for _ in range(3))
    return bytes(data[:one] + data[two:three] + data[one:two] + data[three:])


def _enlarged(data: bytearray, chance: random.Random) -> bytes:
    """Numbers of the header that are as large as can be: sides, counts, lengths, offsets."""
    for _ in range(2):
        place = chance.randrange(8, min(400, len(data) - 4))
        data[place : place + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x01\x00\x00"))
    return bytes(data)


def pillow(cache: Path) -> list[Path]:
    """Files of pillow's tests that it cannot, or once could not, read, of kinds that special serves."""
    folder = cache / f"pillow-{PILLOW}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        wanted = [f"pillow=={PILLOW}", "--no-binary", ":all:", "--no-deps", "--quiet", "--dest", str(cache)]
        subprocess.run([sys.executable, "-m", "pip", "download", *wanted], check=True, stdin=subprocess.DEVNULL)
        with tarfile.open(cache / f"pillow-{PILLOW}.tar.gz") as packed:
            half = cache / f"pillow-{PILLOW}.half"
            half.mkdir(exist_ok=True)
            for member in packed.getmembers():
                path = Path(member.name)
                if "Tests/images" in member.name and path.suffix in KINDS and any(it in path.name for it in FOUND_BAD):
                    file = packed.extractfile(member)
                    assert file is not None, "a file"
                    (half / path.name).write_bytes(file.read())
        half.rename(folder)
    return sorted(folder.iterdir())
