"""Packages from npm, fetched once, outside the repository: viewers as their users have them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

NPM = shutil.which("npm")


def package(name: str, version: str) -> Path:
    """The folder of an unpacked package, without what it depends on."""
    kept = Path(tempfile.gettempdir()) / f"special-npm-{os.getuid()}"
    folder = kept / f"{name.replace('/', '-')}-{version}"
    kept.mkdir(exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes start at the same time
        if not folder.exists():
            _fetch(f"{name}@{version}", folder)
    return folder / "package"


def _fetch(specifier: str, folder: Path) -> None:
    unpacked = folder.with_suffix(".new")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    assert NPM is not None
    command = [NPM, "pack", specifier, "--silent"]
    packed = subprocess.run(command, cwd=unpacked, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(unpacked / packed) as archive:
        archive.extractall(unpacked, filter="data")
    (unpacked / packed).unlink()
    unpacked.rename(folder)
