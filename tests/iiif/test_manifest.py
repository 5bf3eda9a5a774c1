from __future__ import annotations

import pytest

from special.errors import BadRequest, NotFound
from special.iiif import FolderManifest, IdentifierForm, ImageManifest, parse_manifest


@pytest.mark.parametrize(
    ("path", "segments", "expected"),
    [
        pytest.param("manifest/a.jpg", 1, ImageManifest("a.jpg"), id="an image"),
        pytest.param("manifest/a%2Fb%20c.jpg", 1, ImageManifest("a/b c.jpg"), id="an image with a slash"),
        pytest.param("manifest/1/2/foo", 3, ImageManifest("1/2/foo"), id="an image of three segments"),
        pytest.param("manifest/", 1, FolderManifest(""), id="all"),
        pytest.param("manifest/a/b/", 1, FolderManifest("a/b/"), id="a folder"),
        pytest.param("manifest/a%2Fb%20c/", 1, FolderManifest("a/b c/"), id="a folder, quoted"),
        pytest.param("manifest/1/2/", 3, FolderManifest("1/2/"), id="a folder of a DLCS"),
        pytest.param("manifest", 1, None, id="the image of that name"),
        pytest.param("manifest/info.json", 1, None, id="its info.json"),
        pytest.param("manifest/full/max/0/default.jpg", 1, None, id="its pixels"),
        pytest.param("manifest/1/2/info.json", 3, None, id="info.json of three segments"),
        pytest.param("manifest/1/2/full/max/0/default.jpg", 3, None, id="pixels of three segments"),
        pytest.param("3/manifest/info.json", 1, None, id="with a version"),
        pytest.param("manifests/a.jpg", 1, None, id="another name"),
    ],
)
def test_what_an_address_asks_for(path: str, segments: int, expected: object) -> None:
    assert parse_manifest(path, id_segments=segments) == expected


@pytest.mark.parametrize("path", ["manifest/../", "manifest/a%2F..%2F/", "manifest//", "manifest/a//b/", "manifest/.."])
def test_no_spelling_leads_elsewhere(path: str) -> None:
    with pytest.raises(NotFound):
        parse_manifest(path)


def test_bad_text_is_refused() -> None:
    for path in ("manifest/a%00/", "manifest/%ff", "manifest/a%5Cb/"):
        with pytest.raises(BadRequest):
            parse_manifest(path)


def test_odd_keys_have_folders_without_a_name() -> None:
    assert parse_manifest("manifest/a//", form=IdentifierForm.ODD) == FolderManifest("a//")
