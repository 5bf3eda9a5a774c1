"""B10: `derive` makes four sizes of 48-megapixel masters, beside the bare codec calls for the same.

And beside `vipsthumbnail`, which a site would call in a script: once for each size of each master.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.bench.bench import Bench, Result, Trial, found, timed
from tests.bench.big import big

MASTERS = {"photo.tif": 320, "photo.jpg": 40, "photo.jp2": 48}
"""So many that starting the command and its decoders, about half a second, is less than 5 % of the whole."""
FEW, MANY = 1, 320
"""Masters of the runs whose memory is compared."""
REDUCTION = 2
"""What opj_decompress discards to have 1500 pixels for the largest size."""
SIDES = (1024, 400, 200, 100)


def run(bench: Bench) -> Iterator[Result]:
    """One process against one; then two against one; then the memory of many masters against that of one."""
    folders = count()
    for name, number in MASTERS.items():
        if name.endswith(".jp2"):
            found("opj_decompress", "apt-get install libopenjp2-tools")
        source = _copies(bench, name, number)

        def derive(jobs: int, source: Path = source) -> float:
            return timed(lambda: _derive(source, bench.folder / f"thumbs-{next(folders)}", jobs))

        def bare(source: Path = source) -> float:
            out = bench.folder / f"bare-{next(folders)}"
            out.mkdir()
            command = [sys.executable, "-m", "tests.bench.b10_derive", str(source), str(out)]
            return timed(lambda: subprocess.run(command, check=True))

        def script(source: Path = source) -> float:
            out = bench.folder / f"script-{next(folders)}"
            out.mkdir()
            return timed(lambda: _vipsthumbnail(source, out))

        one, two = Trial("1 job", lambda make=derive: make(1)), Trial("2 jobs", lambda make=derive: make(2))
        yield bench.sooner(f"derive {number} × {name}", 0.95, one, Trial("bare codecs", bare))
        yield bench.sooner(f"derive {number} × {name}", 1.0, one, Trial("vipsthumbnail", script))
        if (os.cpu_count() or 1) > 1:
            yield bench.sooner(f"derive {number} × {name}, 2 jobs", 1.8, two, one)
    few, many = (
        _derive(_copies(bench, "photo.tif", number), bench.folder / f"memory-{number}", 1) for number in (FEW, MANY)
    )
    said = f"{few >> 10} MiB of memory for {FEW} master, {many >> 10} MiB for {MANY}"
    yield Result("derive: peak memory", said, "", None, "flat: ≤ 1.1 ×", many <= 1.1 * few)


def _copies(bench: Bench, name: str, number: int) -> Path:
    """A folder of equal masters."""
    folder = bench.folder / f"{number}-{name}"
    if not folder.exists():
        folder.mkdir()
        for copy in range(number):
            os.link(_here(bench, name), folder / f"{copy}-{name}")
    return folder


def _here(bench: Bench, name: str) -> Path:
    """The master on the scratch folder's own file system."""
    path = bench.folder / name
    if not path.exists():
        shutil.copy(big(name, bench.cache) / name, path)
    return path


def _derive(source: Path, thumbs: Path, jobs: int) -> int:
    """Run it; the largest process' peak memory in KiB."""
    command = [sys.executable, "-m", "special", "derive", str(source), "--thumbs", str(thumbs), "--jobs", str(jobs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"special derive ended with {process.returncode}")
    return usage.ru_maxrss


def _bare(source: Path, out: Path) -> None:
    """Each size from the next larger one, the largest from the master; no store, no side-car, no process."""
    import pyvips

    for master in sorted(source.iterdir()):
        path = master
        if master.suffix == ".jp2":
            path = out / f"{master.stem}.tif"
            command = ["opj_decompress", "-i", str(master), "-o", str(path), "-r", str(REDUCTION)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        picture = pyvips.Image.thumbnail(str(path), 1024, size="down").copy_memory()
        for side in SIDES:
            picture = picture.thumbnail_image(side, size="down").copy_memory()
            picture.jpegsave(out / f"{master.stem}-{side}.jpg", Q=85)


def _vipsthumbnail(source: Path, out: Path) -> None:
    tool = found("vipsthumbnail", "apt-get install libvips-tools")
    for master in sorted(source.iterdir()):
        for side in SIDES:
            to = out / f"{master.stem}-{side}.jpg[Q=85]"
            subprocess.run([tool, str(master), "--size", f"{side}x{side}>", "-o", str(to)], check=True)


if __name__ == "__main__":
    _bare(Path(sys.argv[1]), Path(sys.argv[2]))
