"""What libvips may load, and what its errors become."""

from __future__ import annotations

import itertools

import pytest
import pyvips
from PIL import Image

from special.codecs import vips
from special.codecs.vips import VipsFormat
from special.errors import MasterError
from tests.support.pieces import encoded, smooth

FILES: dict[VipsFormat, bytes] = {
    "jpeg": encoded(smooth(80, 60), "jpeg"),
    "png": encoded(smooth(80, 60), "png"),
    "webp": encoded(smooth(80, 60), "webp"),
    "gif": encoded(smooth(80, 60, 1), "gif"),
    "tiff": encoded(smooth(80, 60), "tiff", compression="tiff_lzw"),
    "avif": encoded(smooth(80, 60), "avif"),
}


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> None:
    vips.prepare()


def test_six_loaders_are_open_and_no_other() -> None:
    assert {name.removesuffix("_source").removesuffix("_buffer") for name in vips.open_loaders()} == {
        "gifload",
        "heifload",
        "jpegload",
        "pngload",
        "tiffload",
        "webpload",
    }


@pytest.mark.parametrize("loader", ["svgload_buffer", "csvload_source", "vipsload_source"])
def test_other_loaders_refuse(loader: str) -> None:
    data = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    feed = data if loader.endswith("buffer") else pyvips.Source.new_from_memory(data)
    with pytest.raises(pyvips.Error, match="blocked"):
        pyvips.Operation.call(loader, feed)


@pytest.mark.parametrize("kind", FILES)
def test_files_open_lazily(kind: VipsFormat) -> None:
    image = vips.load(FILES[kind], kind)
    assert (image.width, image.height) == (80, 60)


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(FILES, 2)))
def test_a_file_that_is_something_else_is_refused(kind: VipsFormat, other: VipsFormat) -> None:
    with pytest.raises(MasterError, match=f"libvips on a {kind} file: "):
        vips.load(FILES[other], kind)


@pytest.mark.parametrize("kind", FILES)
def test_a_torn_file_is_refused_when_it_is_read(kind: VipsFormat) -> None:
    data = FILES[kind]
    with pytest.raises(MasterError), vips.reading(kind):
        vips.load(data[: len(data) // 2], kind).copy_memory()


def test_an_error_that_quotes_the_file_is_no_error_of_the_next_one() -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = encoded(smooth(80, 60), "avif", exif=exif)
    assert turned.count(b"irot") == 1
    for _ in range(2):
        with pytest.raises(MasterError, match=r"libvips on a avif file: .*'iro\ufffd'"), vips.reading("avif"):
            vips.load(turned.replace(b"irot", b"iro\xf1"), "avif").avg()
        image = vips.load(FILES["avif"], "avif")
        assert image.copy_memory().get_typeof("no such field") == 0
        with pytest.raises(pyvips.Error) as caught:
            image.get("no such field")
        assert "iro" not in str(caught.value)
