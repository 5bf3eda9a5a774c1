import math
from dataclasses import replace
from typing import Any

import pytest

from special.auth.access import Grant
from special.formats.layout import Tiling
from special.geometry import Size
from special.iiif import Limits, Version
from special.images.asset import Asset, Rendition
from special.serving.info import info, info_thumbs
from special.storage.blob import Blob

SIZE = Size(4000, 3000)
ASSET = Asset(
    "x",
    SIZE,
    Blob("s3://masters/", "x", '"1"', 1),
    levels=(SIZE, Size(2000, 1500), Size(1000, 750)),
    tiling=Tiling(Size(256, 256), (1, 2, 4)),
    renditions=(Rendition(Size(400, 300), "auth", "a"), Rendition(Size(200, 150), "open", "b")),
)
LIMITS = Limits(max_area=100_000_000)


def made(
    version: Version, *, asset: Asset = ASSET, limits: Limits = LIMITS, grant: Grant | None = None
) -> dict[str, Any]:
    return info(asset, "https://example.org/iiif/x", version=version, limits=limits, grant=grant or Grant())


def test_version_3() -> None:
    document = made(3)
    assert list(document)[:7] == ["@context", "id", "type", "protocol", "width", "height", "sizes"]
    assert document["@context"] == "http://iiif.io/api/image/3/context.json"
    assert document["id"] == "https://example.org/iiif/x"
    assert document["type"] == "ImageService3"
    assert document["profile"] == "level2"
    assert document["maxArea"] == 100_000_000
    assert document["extraFormats"] == ["webp", "gif", "tif", "avif"]
    assert "sizeUpscaling" not in document["extraFeatures"]


def test_version_2() -> None:
    document = made(2)
    assert document["@id"] == "https://example.org/iiif/x"
    assert "type" not in document
    level, described = document["profile"]
    assert level == "http://iiif.io/api/image/2/level2.json"
    assert described["maxArea"] == 100_000_000
    assert "sizeByDistortedWh" in described["supports"]


def test_sizes_are_renditions_and_levels_ascending() -> None:
    assert [it["width"] for it in made(3)["sizes"]] == [200, 250, 400, 500, 1000, 2000, 4000]


def test_a_masters_level_that_is_rounded_down_is_that_of_the_tiles() -> None:
    asset = Asset("x", Size(5001, 3001), ASSET.blob, levels=(Size(5001, 3001), Size(2500, 1500), Size(1250, 750)))
    assert [it["width"] for it in made(3, asset=asset)["sizes"]] == [313, 626, 1251, 2501, 5001]


STORED = [Size(1024, 768), Size(400, 300), Size(200, 150), Size(100, 75), Size(50, 38), Size(3000, 2250)]


@pytest.mark.parametrize("max_side", [None, 700, 1500, 2600, 4999])
@pytest.mark.parametrize("stored", range(7))
@pytest.mark.parametrize("factors", [(), (1, 2), (1, 4, 16), (1, 3, 9), (1, 2, 4, 8, 16)], ids=str)
@pytest.mark.parametrize("shape", [Size(5000, 3750), Size(1024, 768), Size(300, 200), Size(20001, 15001)], ids=str)
def test_other_sizes_are_never_as_many_as_the_levels(
    shape: Size, factors: tuple[int, ...], stored: int, max_side: int | None
) -> None:
    renditions = tuple(Rendition(it, "open", str(it)) for it in STORED[:stored] if shape.covers(it))
    tiling = Tiling(Size(256, 256), factors) if factors else None
    asset = Asset("x", shape, ASSET.blob, levels=(shape,), tiling=tiling, renditions=renditions)
    document = made(3, asset=asset, limits=Limits(max_width=max_side))
    listed = [(it["width"], it["height"]) for it in document.get("sizes", [])]
    (grid,) = document["tiles"]
    # What OpenSeadragon 4.1 to 5.0.1 does: `sizeLength === maxLevel || sizeLength === maxLevel + 1`.
    top = round(math.log2(max(grid["scaleFactors"])))
    levels = [(math.ceil(shape.width / 2**n), math.ceil(shape.height / 2**n)) for n in range(top, -1, -1)]
    if len(listed) in (top, top + 1, len(grid["scaleFactors"]) - 1, len(grid["scaleFactors"])):
        assert listed in (levels, levels[:-1])
    if max_side is None:
        assert {*listed} >= {*levels, *((it.size.width, it.size.height) for it in renditions)}


def test_tiles_reach_down_to_one_tile() -> None:
    assert made(3)["tiles"] == [{"width": 256, "scaleFactors": [1, 2, 4, 8, 16]}]
    bare = Asset("x", SIZE, ASSET.blob)
    assert made(3, asset=bare)["tiles"] == [{"width": 512, "scaleFactors": [1, 2, 4, 8]}]
    tiny = Asset("x", Size(5, 5), ASSET.blob)
    assert made(3, asset=tiny)["tiles"] == [{"width": 512, "scaleFactors": [1]}]
    oblong = Asset("x", SIZE, ASSET.blob, tiling=Tiling(Size(4096, 128), (1,)))
    assert made(3, asset=oblong)["tiles"] == [{"width": 4096, "height": 128, "scaleFactors": [1, 2, 4, 8, 16, 32]}]


def test_limits_hide_what_they_forbid() -> None:
    document = made(3, limits=Limits(max_width=1000, upscaling=True))
    assert [it["width"] for it in document["sizes"]] == [200, 250, 400]  # with 500 as many as levels but one
    assert document["maxWidth"] == 1000
    assert "sizeUpscaling" in document["extraFeatures"]
    assert "sizeUpscaling" not in made(3, limits=Limits(upscaling=True))["extraFeatures"]
    assert made(3, limits=Limits(max_height=300))["maxWidth"] == 400


def test_the_restricted_see_what_they_may_have() -> None:
    document = made(3, grant=Grant(200))
    assert [it["width"] for it in document["sizes"]] == [200]
    assert document["maxWidth"] == document["maxHeight"] == 200
    assert "tiles" not in document


@pytest.mark.parametrize(("version", "key"), [(2, "@id"), (3, "id")])
def test_thumbs_are_level_0(version: Version, key: str) -> None:
    document = info_thumbs(ASSET, "https://example.org/thumbs/x", version=version, grant=Grant())
    assert document[key] == "https://example.org/thumbs/x"
    assert (document["width"], document["height"]) == (400, 300)
    assert document["sizes"] == [{"width": 200, "height": 150}, {"width": 400, "height": 300}]
    assert "tiles" not in document
    supported = document["extraFeatures"] if version == 3 else document["profile"][1]["supports"]
    assert {"sizeByW", "sizeByWh"}.isdisjoint(supported)  # with them OpenSeadragon asks for tiles
    open_only = info_thumbs(ASSET, "https://example.org/thumbs/x", version=version, grant=Grant(200))
    assert (open_only["width"], open_only["height"]) == (200, 150)


def test_thumbs_name_what_is_stored_beside_jpg() -> None:
    both = replace(ASSET, renditions=(Rendition(Size(200, 150), "open", "b", "webp"),))
    thumbs = {
        version: info_thumbs(both, "https://example.org/thumbs/x", version=version, grant=Grant()) for version in (2, 3)
    }
    assert thumbs[3]["extraFormats"] == ["webp"]
    assert thumbs[2]["profile"][1]["formats"] == ["jpg", "webp"]
    assert "extraFormats" not in info_thumbs(ASSET, "https://example.org/thumbs/x", version=3, grant=Grant())
