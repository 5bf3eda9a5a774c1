"""Big masters, made once and kept in the cache folder: 48 megapixels of photograph and grain.

    photo.tif    tiled pyramid, 256² JPEG tiles
    photo.jp2    untiled, in the DLCS recipe: 8 levels, precincts, resolution order, PLT, tile-parts by resolution
    photo.jpg    flat, baseline

`python -m tests.bench.big photo.tif FOLDER` makes one; `big()` does so in a process of its own, so that
libvips never runs where servers are started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.bench.bench import found
from tests.support.live import MASTERS

WIDTH, HEIGHT = 6000, 8000
JPEG_QUALITY = 85
GRAIN = 32.0
"""Standard deviation of the noise, in steps of 8 bits: what makes a scan's file as large as a scan's."""
_PRECINCTS = "[256,256],[256,256],[256,256],[128,128],[128,128],[64,64],[64,64],[64,64]"
RECIPE = f"-n 8 -b 64,64 -p RPCL -SOP -PLT -TP R -I -r 8 -c {_PRECINCTS}"


def big(name: str, cache: Path) -> Path:
    """A folder `bucket` in the cache that holds this master; made if it is not there. Raises `Absent`."""
    bucket = cache / "bucket"
    if not (bucket / name).exists():
        if name.endswith(".jp2"):
            found("opj_compress", "apt-get install libopenjp2-tools")
        bucket.mkdir(parents=True, exist_ok=True)
        print(f"making {name}, once …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "tests.bench.big", name, str(bucket)], check=True)
    return bucket


def pixels_of(path: Path) -> Image.Image:
    """A big master's own pixels, by Pillow."""
    with Image.open(path) as image:
        return image.convert("RGB")


def _make(name: str, bucket: Path) -> None:
    import pyvips

    with tempfile.TemporaryDirectory(dir=bucket.parent) as scratch:
        draft = Path(scratch) / name
        photo = pyvips.Image.thumbnail(
            str(MASTERS / "mountains.jpg"), WIDTH, height=HEIGHT, size="force", export_profile="srgb"
        )
        grain = pyvips.Image.gaussnoise(WIDTH, HEIGHT, sigma=GRAIN, mean=0, seed=1)
        picture = (photo + grain).cast("uchar").copy(interpretation="srgb")
        match draft.suffix:
            case ".tif":
                grid = {"tile": True, "tile_width": 256, "tile_height": 256, "pyramid": True}
                picture.tiffsave(draft, **grid, compression="jpeg", Q=JPEG_QUALITY, keep="none")
            case ".jpg":
                picture.jpegsave(draft, Q=JPEG_QUALITY, keep="none")
            case ".jp2":
                plain = Path(scratch) / "plain.tif"
                picture.tiffsave(plain, keep="none")
                command = ["opj_compress", "-i", str(plain), "-o", str(draft), "-threads", str(os.cpu_count())]
                subprocess.run([*command, *RECIPE.split()], check=True, stdout=subprocess.DEVNULL)
        draft.rename(bucket / name)


if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]))
