"""A file system that folds case, as on a Mac or a memory card: no second spelling of a name reaches its file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from special.errors import Missing
from special.storage import open_source
from special.storage.source import body

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3, of Debian's fuse3, is not installed"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="/dev/fuse is not here"),
]


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """A folder with `Private/leaf.jpg`, on a file system that folds case."""
    files, mounted = tmp_path / "files", tmp_path / "mounted"
    (files / "Private").mkdir(parents=True)
    (files / "Private" / "leaf.jpg").write_bytes(b"leaf")
    mounted.mkdir()
    view = subprocess.Popen([sys.executable, "-m", "tests.support.folding_files", files, mounted])
    try:
        while not mounted.is_mount():
            assert view.poll() is None
            time.sleep(0.01)
        yield mounted
    finally:
        view.terminate()
        view.wait()


async def test_a_file_is_found_by_its_exact_name_alone(folding: Path) -> None:
    assert (folding / "pRIVATE" / "LEAF.JPG").read_bytes() == b"leaf", "the file system itself folds"
    source = open_source(str(folding))
    assert await body(await source.open("Private/leaf.jpg")) == b"leaf"
    for key in ("private/leaf.jpg", "Private/Leaf.jpg", "PRIVATE/LEAF.JPG", "Private/leaf.jpeg", "Private/leaf.jpg/x"):
        with pytest.raises(Missing):
            await source.open(key)
        with pytest.raises(Missing):
            await source.stat(key)
    await source.close()


async def test_one_that_does_not_fold_has_each_spelling_as_a_file(tmp_path: Path) -> None:
    source = open_source(str(tmp_path))
    for key in ("a/leaf.jpg", "A/leaf.jpg", "a/LEAF.jpg"):
        await source.write(key, key.encode())
    for key in ("a/leaf.jpg", "A/leaf.jpg", "a/LEAF.jpg"):
        assert await body(await source.open(key)) == key.encode()
    await source.close()
