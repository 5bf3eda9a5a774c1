"""From keys to identifiers and back."""

from __future__ import annotations

import pytest

from special.iiif import IdentifierForm
from special.images import KeyTemplates


@pytest.mark.parametrize(
    ("keys", "segments", "key", "expected"),
    [
        pytest.param(("{id}",), 1, "leaf.tif", "leaf.tif", id="the key itself"),
        pytest.param(("{id}.jp2",), 1, "leaf.jp2", "leaf", id="an ending"),
        pytest.param(("{id}.jp2",), 1, "leaf.tif", None, id="another ending"),
        pytest.param(("{id}.jp2",), 1, ".jp2", None, id="nothing but an ending"),
        pytest.param(("masters/{id}",), 1, "masters/leaf", "leaf", id="a beginning"),
        pytest.param(("{id}", "{id}.jp2"), 1, "leaf.jp2", "leaf", id="the template that says most"),
        pytest.param(("{id}/original",), 3, "1/2/foo/original", "1/2/foo", id="DLCS, under its identifier"),
        pytest.param(("{id}",), 3, "1/2/foo", "1/2/foo", id="DLCS"),
        pytest.param(("{id}",), 3, "1/2/foo/info.json", None, id="DLCS: beside a master"),
        pytest.param(("{id}",), 3, "1/2/foo/open/100.jpg", None, id="DLCS: a rendition"),
        pytest.param(("{id}",), 1, "folder/leaf.tif", "folder/leaf.tif", id="a slash inside one segment"),
        pytest.param(("{id}/{id}.jp2",), 1, "leaf/leaf.jp2", "leaf", id="twice the identifier"),
        pytest.param(("{id}/{id}.jp2",), 1, "leaf/bud.jp2", None, id="two identifiers"),
        pytest.param(("{id}",), 1, "100%.jpg", "100%.jpg", id="a per cent sign"),
        pytest.param(("{id}",), 1, "a\nb.jpg", None, id="control characters have no address"),
        pytest.param(("{id}",), 1, "a/../b", None, id="dots have no address"),
        pytest.param(("{id}",), 1, "a//b", None, id="empty segments have no address here"),
        pytest.param(("{id}",), 1, "readme.txt", None, id="text"),
        pytest.param(("{id}",), 1, "leaf.tif.md5", None, id="a checksum"),
        pytest.param(("{id}",), 1, ".DS_Store", None, id="hidden"),
        pytest.param(("{id}",), 1, "leaf.ptif", "leaf.ptif", id="an ending that is not registered"),
        pytest.param(("{id}",), 1, "MS 12. folio 3", "MS 12. folio 3", id="a dot in a name"),
    ],
)
def test_identifier_of_a_key(keys: tuple[str, ...], segments: int, key: str, expected: str | None) -> None:
    assert KeyTemplates(keys, segments).identifier_of(key) == expected


@pytest.mark.parametrize(
    ("form", "key", "expected"),
    [
        (IdentifierForm.NORMAL, "cafe\u0301.jpg", "cafe\u0301.jpg"),
        (IdentifierForm.NORMAL_NFC, "cafe\u0301.jpg", None),
        (IdentifierForm.NORMAL_NFC, "caf\u00e9.jpg", "caf\u00e9.jpg"),
        (IdentifierForm.ODD, "a//b", "a//b"),
        (IdentifierForm.ODD, "/a/./b", "/a/./b"),
        (IdentifierForm.ODD, "a/../b", None),
    ],
)
def test_keys_of_spellings_that_are_not_served_have_no_address(
    form: IdentifierForm, key: str, expected: str | None
) -> None:
    assert KeyTemplates(form=form).identifier_of(key) == expected


def test_keys_of_an_identifier_in_the_order_in_which_they_are_tried() -> None:
    templates = KeyTemplates(("{id}", "{id}/{id}.jp2"))
    assert templates.keys_of("1/leaf") == ("1/leaf", "1/leaf/1/leaf.jp2")
    assert str(templates) == "{id}, {id}/{id}.jp2"
