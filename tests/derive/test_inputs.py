"""From keys to identifiers and back, and where identifiers come from."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from special.derive.inputs import InputImage, Naming, listed, named, read
from special.errors import ConfigurationError, Missing
from tests.support.memory import MemorySource


async def collected(chosen: AsyncIterator[InputImage]) -> list[str]:
    return [image.identifier async for image in chosen]


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
        pytest.param(("{id}",), 1, "leaf.ptif", "leaf.ptif", id="an ending that nobody registered"),
        pytest.param(("{id}",), 1, "MS 12. folio 3", "MS 12. folio 3", id="a dot in a name"),
    ],
)
def test_identifier_of_a_key(keys: tuple[str, ...], segments: int, key: str, expected: str | None) -> None:
    assert Naming(keys, segments).identifier(key) == expected


async def test_master_is_the_first_key_that_exists() -> None:
    source = MemorySource({"leaf.jp2": b"x"})

    blob = await Naming(("{id}", "{id}.jp2", "{id}.tif")).locate(source, "leaf")

    assert blob == source.blob("leaf.jp2")
    assert source.verbs("stat") == ["leaf", "leaf.jp2"]
    with pytest.raises(Missing, match=r"'bud' by the keys \{id\}"):
        await Naming().locate(source, "bud")


async def test_listing_tells_versions_where_one_template_leaves_no_doubt() -> None:
    source = MemorySource({"a.tif": b"1", "b.txt": b"2", "c.tif": b"3"})

    assert [it async for it in listed(source, Naming())] == [
        InputImage("a.tif", source.blob("a.tif")),
        InputImage("c.tif", source.blob("c.tif")),
    ]
    assert [it async for it in listed(source, Naming(("{id}", "{id}.tif")))] == [InputImage("a"), InputImage("c")]


async def test_names_stream() -> None:
    assert await collected(named(["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("ids.txt", "a\nb c\r\n\n1/2/ü", ["a", "b c", "1/2/ü"], id="identifiers"),
        pytest.param("ids", "".join(f"{n}\n" for n in range(2500)), [str(n) for n in range(2500)], id="many"),
        pytest.param(
            "inventory.csv",
            '"b","masters/a+b%2B.tif","12"\n"b","elsewhere/c.tif","3"\n"b","masters/notes.txt","3"\n',
            ["a b+.tif"],
            id="S3 inventory",
        ),
    ],
)
async def test_file_of_identifiers(tmp_path: Path, name: str, text: str, expected: list[str], suffix: str) -> None:
    path = tmp_path / (name + suffix)
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())

    assert await collected(read(str(path), root="s3://b/masters/", naming=Naming())) == expected


async def test_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere cannot be read: No such file"):
        await collected(read(str(tmp_path / "nowhere"), root="s3://b/", naming=Naming()))

    broken = tmp_path / "broken.csv"
    broken.write_text("just-a-bucket\n")
    with pytest.raises(ConfigurationError, match="columns Bucket and Key"):
        await collected(read(str(broken), root="s3://b/", naming=Naming()))
