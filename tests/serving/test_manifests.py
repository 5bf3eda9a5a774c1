"""What manifests and collections are made of, without a server."""

from __future__ import annotations

from typing import Any, cast

import pytest

from special.auth import Grant
from special.geometry import Size
from special.iiif import Limits, Version
from special.images import Asset, Description, KeyTemplates, Rendition
from special.serving import Catalog
from special.serving.gallery import Gallery
from special.serving.manifests import MAX_CANVASES, Addresses, Contents, ListedImage, Manifests, document
from special.storage import Blob
from tests.support.memory import MemorySource

ADDRESSES = Addresses(
    "https://x.example/doc",
    image=lambda identifier, version: f"https://x.example/{version}/{identifier}",
    manifest=lambda identifier: f"https://x.example/manifest/{identifier}",
    part=lambda part: f"https://x.example/part/{part.folder}{dict(part.query)}",
)


def asset(*stored: int, label: str | None = None) -> Asset:
    renditions = tuple(Rendition(Size(side, side // 2), "open", f"{side}") for side in sorted(stored, reverse=True))
    blob = Blob("s3://m/", "a/b.jpg", '"1"', 1)
    return Asset("a/b.jpg", Size(4000, 2000), blob, renditions=renditions, label=label)


def canvas(image: ListedImage, version: Version, **limits: Any) -> dict[str, Any]:
    made = document(Contents("A", (image,)), ADDRESSES, version=version, limits=Limits(**limits))
    (found,) = made["items"] if version == 3 else made["sequences"][0]["canvases"]
    return cast("dict[str, Any]", found)


PROVIDER = {"id": "https://museum.example/", "type": "Agent", "label": {"en": ["The museum"]}}
SAID = Description("http://rightsstatements.org/vocab/NoC-NC/1.0/", "The museum", (PROVIDER,))
NOTHING = Description()


def test_what_a_catalogue_says_is_in_version_3() -> None:
    found = canvas(ListedImage(asset(label="A map"), Grant(), SAID), 3)
    assert found["label"] == {"none": ["A map"]}
    assert found["rights"] == SAID.rights
    assert found["requiredStatement"] == {"label": {"en": ["Attribution"]}, "value": {"none": ["The museum"]}}
    assert found["provider"] == [PROVIDER]


def test_what_a_catalogue_says_is_in_version_2() -> None:
    found = canvas(ListedImage(asset(label="A map"), Grant(), SAID), 2)
    assert (found["label"], found["license"], found["attribution"]) == ("A map", SAID.rights, "The museum")


def test_rights_that_are_no_address_are_left_out() -> None:
    assert "rights" not in canvas(ListedImage(asset(), Grant(), Description(rights="ask us")), 3)


@pytest.mark.parametrize(
    ("stored", "max_side", "size"),
    [
        pytest.param((100, 400, 1000), None, "400,200", id="the smallest that is large enough"),
        pytest.param((100,), None, "200,100", id="none is large enough"),
        pytest.param((), None, "200,100", id="nothing is stored"),
        pytest.param((400,), 150, "150,75", id="only less may be seen"),
    ],
)
def test_thumbnails_are_stored_sizes_where_there_are_some(
    stored: tuple[int, ...], max_side: int | None, size: str
) -> None:
    found = canvas(ListedImage(asset(*stored), Grant(max_side), NOTHING), 3)
    assert found["thumbnail"][0]["id"] == f"https://x.example/3/a/b.jpg/full/{size}/0/default.jpg"


def test_the_picture_is_as_large_as_the_server_makes_it() -> None:
    found = canvas(ListedImage(asset(), Grant(), NOTHING), 3, max_width=1000)
    body = found["items"][0]["items"][0]["body"]
    assert (body["width"], body["height"], found["width"], found["height"]) == (1000, 500, 4000, 2000)


async def test_a_long_folder_continues_in_further_collections() -> None:
    keys = [f"x/{n:05}.jpg" for n in range(2345)]
    bucket = MemorySource(dict.fromkeys(keys, b""))
    manifests = Manifests(cast("Catalog", None), Gallery(bucket, KeyTemplates()))
    after, covered, collections = "", 0, 0
    while True:
        contents = await manifests.parts_of_folder("x/", after=after)
        assert contents.parts is not None
        collections += 1
        *_, last = contents.parts
        for part in contents.parts:
            if part.kind == "Manifest":
                assert part.query["images"] == (keys[covered - 1] if covered else "")
                covered = min(covered + MAX_CANVASES, len(keys))
        if last.kind == "Manifest":
            break
        after = last.query["after"]
        assert after == keys[covered - 1]
    assert (collections, covered) == (3, len(keys))
