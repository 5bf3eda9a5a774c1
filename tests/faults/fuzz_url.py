"""A coverage-guided fuzzer on what reads addresses: parse, resolve, canonicalise.

    pip install atheris
    python -m tests.faults.fuzz_url [CORPUS_DIR] [-max_total_time=60] [other options of libFuzzer]

Every address must give a request or a `RequestError`. A request must come out as a job inside the image and the
limits, or be refused; the canonical form of a job must be an address that gives the same job.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from special import iiif
from special.errors import RequestError
from special.geometry import Box, Size
from special.iiif import ImageRequest, Limits, Version

IMAGE = Size(3000, 2001)
LIMITS = Limits(max_width=5000, max_area=10_000_000, upscaling=True)
VERSIONS: tuple[Version, ...] = (2, 3)
SEEDS = [
    "a%2Fb/full/max/0/default.jpg",
    "2/a/0,0,9,9/full/!90/gray.png",
    "v3/a/pct:1.5,2,3,4/^!9,9/22.5/bitonal.webp",
    "a/square/pct:50/360/color.tif",
    "3/%C3%A9/info.json",
    "a/",
]


def exercise(data: bytes) -> None:
    """Read one address, as both kinds of site and in both versions."""
    path = data.decode("latin-1")
    for segments in (1, 3):
        try:
            request = iiif.parse(path, id_segments=segments)
        except RequestError:
            continue
        quoted = iiif.quote_identifier(request.identifier, id_segments=segments)
        assert iiif.parse_identifier(quoted) == request.identifier
        if isinstance(request, ImageRequest):
            for version in VERSIONS:
                _resolved(request, version)


def _resolved(request: ImageRequest, version: Version) -> None:
    try:
        job = iiif.resolve(request, IMAGE, version=version, limits=LIMITS)
    except RequestError:
        return
    assert job.box.within(IMAGE) == job.box
    assert LIMITS.allow(job.size)
    assert 0 <= job.angle < 360
    assert Box.whole(job.output).size == job.output
    canonical = iiif.canonical(job, IMAGE, version=version, limits=LIMITS, has_color=True)
    again = iiif.parse(f"a/{canonical}")
    assert isinstance(again, ImageRequest)
    once_more = iiif.resolve(again, IMAGE, version=version, limits=LIMITS)
    assert once_more.box == job.box
    assert once_more.size == job.size
    assert iiif.canonical(once_more, IMAGE, version=version, limits=LIMITS, has_color=True) == canonical


def main() -> None:
    """Run libFuzzer on `exercise`."""
    try:
        import atheris
    except ImportError:
        sys.exit("the fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    has_corpus = any(not argument.startswith("-") for argument in sys.argv[1:])
    corpus = [] if has_corpus else [_seeded()]
    atheris.Setup([*sys.argv, *corpus], exercise)
    atheris.Fuzz()


def _seeded() -> str:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-url-"))
    for number, seed in enumerate(SEEDS):
        (folder / f"{number}").write_text(seed)
    return str(folder)


if __name__ == "__main__":
    main()
