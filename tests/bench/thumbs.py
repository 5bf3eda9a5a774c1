"""Thumbnails in folders, as `derive` or the DLCS leaves them in a bucket."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.floor import DATA

IMAGES = 64


def lay_out(root: Path) -> list[str]:
    """A bucket `thumbs` of images with one stored size, and an empty one `masters`; the images' names.

    The files are 16 KB of no picture: nobody may look inside.
    """
    (root / "masters").mkdir(parents=True)
    names = [f"image{number}" for number in range(IMAGES)]
    for name in names:
        folder = root / "thumbs" / name / "open"
        folder.mkdir(parents=True)
        (folder / "200.jpg").write_bytes(DATA)
        (folder.parent / "s.json").write_text(json.dumps({"o": [[200, 150]], "a": []}))
    return names
