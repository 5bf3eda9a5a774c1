"""Mutated masters against other readers: `python -m tests.sweep.differential SECONDS SEED FOLDER`.

A master whose headers or data were changed must come out as two independent readers show it, or be refused by name.
Where those two agree with each other and not with us, the input is written to FOLDER and a line printed. Where they
disagree, or one of them refuses, nothing can be said.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile
from PIL import Image, ImageCms, ImageOps

from special.codecs import Encoding, render
from special.errors import SpecialError
from special.formats import parse, solve
from special.geometry import Box
from special.iiif import Job
from tests.sweep import jp2_inputs, other_inputs, pictures, tiff_inputs
from tests.sweep.pictures import Real

MEMORY_BYTES = 4 << 30
MAX_PIXELS = 4_000_000
AGREEING_LEVELS, DIFFERING_LEVELS = 1.5, 4.0
"""Mean differences at which two readers agree, and at which they show something else."""
SIZES = ((96, 70), (61, 110))
INTERESTING = (0, 1, 2, 3, 4, 7, 8, 16, 0x7F, 0x80, 0xFE, 0xFF)
Reader = Callable[[bytes], Real]


def ours(data: bytes) -> Real:
    """As it is served. Raises `SpecialError`."""
    layout = solve(parse(len(data)), data)
    box = Box.whole(layout.size)
    while True:
        more = layout.prepare(box, box.size)
        if more is not None:
            layout = solve(more, data)
        extract = layout.extract(box, box.size)
        try:
            piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
            break
        except SpecialError as lie:
            whole = layout.distrusted(str(lie))
            if whole is None:
                raise
            layout = whole
    job = Job(box, box.size, mirror=False, angle=0, quality="default", format="png")
    answer = Image.open(io.BytesIO(render(piece, job, Encoding(), MAX_PIXELS).data))
    return by_mode(answer)


def by_mode(image: Image.Image) -> Real:
    """What pillow has opened, on white. Raises `ValueError` for modes that say too little."""
    if image.mode in ("I;16", "I;16B"):
        return np.repeat(np.asarray(image).astype(np.float64)[..., None] / 257, 3, axis=2)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise ValueError(image.mode)
    has_opacity = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    return pictures.on_white(np.asarray(image.convert("RGBA" if has_opacity else "RGB")))


def pillows(data: bytes) -> Real:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return by_mode(ImageOps.exif_transpose(image))


def tifffiles(data: bytes) -> Real:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        if 262 not in page.tags:
            raise ValueError("no photometric interpretation: readers guess differently")
        samples = page.asarray()
        if page.planarconfig == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)
        samples = samples[..., None] if samples.ndim == 2 else samples
        bits, kind = page.bitspersample, samples.dtype.kind
        if kind != "u" or not isinstance(bits, int):
            raise ValueError(f"{kind}{bits}")
        colours = {0: 1, 1: 1, 2: 3, 3: 1}[int(page.photometric)]
        if int(page.photometric) == 3:
            eight = page.colormap[:, samples[..., 0]].astype(np.float64) / 257
            shown = np.moveaxis(eight, 0, -1)
        else:
            shown = samples[..., :colours].astype(np.float64) * (255 / ((1 << bits) - 1))
            shown = 255 - shown if int(page.photometric) == 0 else shown
        at = next((at for at, extra in enumerate(page.extrasamples) if int(extra) in (1, 2)), None)
        if at is not None:
            opacity = samples[..., [colours + at]].astype(np.float64) * (255 / ((1 << bits) - 1))
            shown = np.concatenate((shown, opacity), axis=2)
        turned = file.pages[0].tags.get(274)
        if turned and turned.dtype != 3:
            raise ValueError("an orientation that is no SHORT: libtiff takes it, others do not")
        upright = pictures.upright(shown, turned.value if turned and turned.value in range(1, 9) else 1)
        return pictures.on_white(upright)


def is_plainly_defined(jp2: bytes) -> bool:
    """Whether a file has grey, RGB or sYCC, and no more than opacity that its definition calls so (T.800 I.5.3.6)."""
    at = jp2.find(b"ihdr")
    components = jp2[at + 13] if at >= 0 else 0
    space = jp2.find(b"colr")
    if space >= 0 and jp2[space + 4] == 1 and int.from_bytes(jp2[space + 7 : space + 11]) not in (16, 17, 18):
        return False  # OpenJPEG knows no others
    defined = jp2.find(b"cdef")
    if defined < 0:
        return components in (1, 3)
    kinds = [int.from_bytes(jp2[at : at + 2]) for at in range(defined + 8, defined + 6 + 6 * components, 6)]
    return sorted(kinds) in ([0] * components, [0] * (components - 1) + [1])


def opj_decompress(data: bytes) -> Real:
    if data[4:8] == b"jP  " and not is_plainly_defined(data):
        raise ValueError("channels that OpenJPEG does not know, or of which nothing is said")
    with tempfile.TemporaryDirectory() as folder:
        suffix = "jp2" if data[4:8] == b"jP  " else "j2k"
        source, result = Path(folder, f"a.{suffix}"), Path(folder, "a.png")
        source.write_bytes(data)
        subprocess.run(
            ["opj_decompress", "-quiet", "-i", source, "-o", result], check=True, capture_output=True, timeout=30
        )
        with Image.open(result) as image:
            return by_mode(image)


def libvips(data: bytes) -> Real:
    image = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot().colourspace("srgb")
    samples = image.numpy().astype(np.float64)
    return pictures.on_white(samples / 257 if image.format == "ushort" else samples)


READERS: dict[str, tuple[Reader, Reader]] = {
    "tif": (pillows, tifffiles),
    "jp2": (pillows, opj_decompress),
    "jpg": (pillows, libvips),
    "png": (pillows, libvips),
}
"""Two that are independent of this program, by kind of file."""


def seeds(rng: np.random.Generator) -> list[tuple[str, bytes]]:
    """Small masters of all kinds that the other readers know, without profiles."""
    found: list[tuple[str, bytes]] = []
    nothing = {"adobe": b"", "grey": b"", "junk": b"junk", "inks": b""}
    for draw, kind in ((tiff_inputs.draw, "tif"), (jp2_inputs.draw, "jp2"), (other_inputs.draw, "")):
        number = int(rng.integers(1_000_000))
        wanted = len(found) + (24 if kind == "tif" else 8)
        while len(found) < wanted:
            number += 1
            try:
                it = draw(number, nothing, b"", SIZES)
            except (OSError, ImageCms.PyCMSError):  # a profile that there is none of
                continue
            suffix = it.name.rsplit(".", 1)[1]
            try:
                if suffix not in ("webp", "gif") and verdict(suffix, it.data) == "same":
                    found.append((suffix, it.data))
            except Exception:  # noqa: S112  not for these readers
                continue
    return found


def mutated(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The file with something changed, and what."""
    out = bytearray(data)
    told = []
    for _ in range(int(rng.integers(1, 4))):
        # headers are at either end
        reach = min(len(out), int(rng.choice([64, 512, 2048, len(out)])))
        at = int(rng.integers(reach))
        at = len(out) - 1 - at if rng.random() < 0.4 else at
        match int(rng.integers(5)):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                out[at] = int(rng.choice(INTERESTING))
            case 2:
                out[at : at + 2] = int(rng.choice(INTERESTING)).to_bytes(2, "little" if rng.random() < 0.5 else "big")
            case 3:
                out[at] = (out[at] + int(rng.choice([-1, 1]))) % 256
            case 4 if rng.random() < 0.3:
                del out[max(at, len(out) // 2) :]
        told.append(str(at))
    return bytes(out), ",".join(told)


def verdict(kind: str, data: bytes) -> str:
    """`same`, `refused`, `unknown`, or what differs."""
    try:
        shown = ours(data)
    except SpecialError:
        return "refused"
    references = []
    for read in READERS[kind]:
        try:
            references.append(read(data))
        except Exception:  # whatever another reader raises
            return "unknown"
    first, *others = references
    for other in others:
        if other.shape != first.shape or np.abs(other - first).mean() > AGREEING_LEVELS:
            return "unknown"
    if shown.shape != first.shape:
        return f"WRONG {shown.shape} instead of {first.shape}"
    difference = float(np.abs(shown - first).mean())
    return f"WRONG by {difference:.1f} levels in the mean" if difference > DIFFERING_LEVELS else "same"


def main(seconds: float, seed: int, folder: Path) -> Counter[str]:
    """Mutate and compare for so long; the counts of all verdicts."""
    faulthandler.enable()
    logging.disable()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    rng = np.random.default_rng(seed)
    masters = seeds(rng)
    counts: Counter[str] = Counter()
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        kind, master = masters[rng.integers(len(masters))]
        data, places = mutated(master, rng)
        (folder / f"last-{seed}").write_bytes(data)  # if it ends this process, here it is
        try:
            found = verdict(kind, data)
        except (MemoryError, OSError) as error:
            found = f"FAILED {type(error).__name__}"
        except Exception as error:
            found = f"FAILED {type(error).__name__}: {error}"
        counts[found.split(" ")[0]] += 1
        if found.startswith(("WRONG", "FAILED")):
            name = f"{seed}-{sum(counts.values())}.{kind}"
            (folder / name).write_bytes(data)
            print(f"{name} changed at {places}: {found}", flush=True)
    print(dict(counts), flush=True)
    return counts


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
