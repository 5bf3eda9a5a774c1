"""From keys to identifiers and back."""

from __future__ import annotations

import pytest

from special.errors import ConfigurationError
from special.iiif import IdentifierForm
from special.images import KeyTemplates, claims_image


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


@pytest.mark.parametrize(
    "extension", ["jp2", "JPX", "jph", "j2k", "tif", "ptif", "jpg", "png", "webp", "gif", "avif", "bmp"]
)
def test_a_name_with_the_extension_of_a_master_claims_to_be_an_image(extension: str) -> None:
    assert claims_image(f"box/leaf.{extension}")
    assert not claims_image(f"box/leaf.{extension}.bak")
    assert not claims_image(f"box.{extension}/leaf")


def test_what_a_template_names_is_no_side_file() -> None:
    assert KeyTemplates(("{id}",)).left_out("box/atlas.pdf") == "no image"
    named = KeyTemplates(("{id}", "{sha1[0:2]}/{id}.pdf", "{id}.pdf"))
    assert named.identifier_of("box/atlas.pdf") == "box/atlas"
    assert named.left_out("box/atlas.xml") == "no image"


def test_a_page_has_the_keys_of_its_image() -> None:
    templates = KeyTemplates(("{id}", "{lower}.tif"), slash_substitute="__")
    assert templates.keys_of("Box__Leaf;3") == templates.keys_of("Box__Leaf") == ("Box/Leaf", "box/leaf.tif")
    assert templates.keys_of("Box__..;3") == ()
    assert templates.keys_of("Leaf;3;1") == ("Leaf;3", "leaf;3.tif")


@pytest.mark.parametrize(("pages", "expected"), [(True, "leaf;3;1"), (False, "leaf;3")])
def test_a_key_that_looks_like_a_page_has_an_address(pages: bool, expected: str) -> None:
    templates = KeyTemplates(form=IdentifierForm(pages=pages))
    assert templates.identifier_of("leaf;3") == expected
    assert templates.keys_of(expected) == ("leaf;3",)
    assert templates.left_out("leaf;3") is None


def test_keys_of_an_identifier_in_the_order_in_which_they_are_tried() -> None:
    templates = KeyTemplates(("{id}", "{id}/{id}.jp2"))
    assert templates.keys_of("1/leaf") == ("1/leaf", "1/leaf/1/leaf.jp2")
    assert str(templates) == "{id}, {id}/{id}.jp2"


@pytest.mark.parametrize(
    ("template", "identifier", "key"),
    [
        pytest.param("{id[0:2]}/{id}.tif", "leaf", "le/leaf.tif", id="characters"),
        pytest.param("{id[-2:]}/{id}.tif", "leaf", "af/leaf.tif", id="characters from the end"),
        pytest.param("{parts[1]}/{parts[0]}-{parts[2]}", "1/2/foo.jp2", "2/1-foo.jp2", id="segments"),
        pytest.param("{parts[-1]}/{id}", "1/foo", "foo/1/foo", id="a segment from the end"),
        # As `printf leaf | sha1sum` and the like tell.
        pytest.param("{sha1[0:2]}/{sha1[2:4]}/{id}", "leaf", "98/79/leaf", id="SHA-1"),
        pytest.param("{md5[0:3]}/{id}", "leaf", "bab/leaf", id="MD5"),
        pytest.param("{sha256[:4]}/{id}", "leaf", "9f91/leaf", id="SHA-256"),
        # The examples of the pairtree specification, version 0.1.
        pytest.param("{pairtree}/m.tif", "ark:/13030/xt12t3", "ar/k+/=1/30/30/=x/t1/2t/3/m.tif", id="pairtree"),
        pytest.param("{pairtree}/m.tif", "what-the-*@?#!^!?", "wh/at/-t/he/-^/2a/@^/3f/#!/^5/e!/^3/f/m.tif", id="odd"),
        pytest.param("{pairtree}.tif", "h\u00fctte", "h^/c3/^b/ct/te.tif", id="pairtree of UTF-8"),
        pytest.param("{lower}/{id}.tif", "Leaf", "leaf/Leaf.tif", id="small letters"),
        pytest.param("s3://other/{id[0:1]}/{id}", "leaf", "s3://other/l/leaf", id="of another source"),
    ],
)
def test_fields(template: str, identifier: str, key: str) -> None:
    templates = KeyTemplates((template,))
    assert templates.keys_of(identifier) == (key,)
    assert templates.identifier_of(key) == identifier


@pytest.mark.parametrize(
    ("template", "identifier"),
    [
        pytest.param("{parts[2]}/{id}", "1/foo", id="too few segments"),
        pytest.param("{id[0:2]}/{id}", "..foo", id="a slice that leads away"),
        pytest.param("{id[5:7]}/{id}", "leaf", id="an empty slice"),
        pytest.param("{id[0:1]}/{id}", ".foo", id="a dot"),
    ],
)
def test_identifiers_without_a_key(template: str, identifier: str) -> None:
    assert KeyTemplates((template,)).keys_of(identifier) == ()


def test_a_template_that_does_not_tell_the_identifier_goes_one_way_only() -> None:
    templates = KeyTemplates(("{sha1}.tif", "{lower}.jp2"))
    (digest, lower) = templates.keys_of("Leaf")
    assert lower == "leaf.jp2"
    assert templates.identifier_of(digest) is None
    assert templates.identifier_of(lower) is None


def test_a_substitute_for_slashes_is_the_only_spelling() -> None:
    templates = KeyTemplates(("m/{id}.tif",), slash_substitute="__")
    assert templates.keys_of("a__b") == ("m/a/b.tif",)
    assert templates.identifier_of("m/a/b.tif") == "a__b"
    assert templates.keys_of("a/b") == ()
    assert templates.keys_of("a__..__b") == ()
    assert templates.keys_of("a____b") == ()
    assert templates.identifier_of("m/a__b.tif") is None


@pytest.mark.parametrize(
    "template", ["leaf", "{id", "{name}", "{id[0]}", "{id[]}", "{id[-]}", "{parts}", "{parts[0:1]}", "{id}}", "{ id}"]
)
def test_templates_that_cannot_be_read(template: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KeyTemplates((template,))
    assert f"'{template}'" in str(caught.value)
