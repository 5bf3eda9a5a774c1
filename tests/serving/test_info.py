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
    assert document["extraFormats"] == ["webp", "gif", "tif"]
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
    assert [it["width"] for it in made(3)["sizes"]] == [200, 400, 1000, 2000, 4000]


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
    assert [it["width"] for it in document["sizes"]] == [200, 400, 1000]
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
