"""Where identifiers come from, and which master is meant."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from special.derive.inputs import InputImage, listed, locate, named, read
from special.errors import ConfigurationError, Missing
from special.images import KeyTemplates
from tests.support.memory import MemorySource


async def collected(chosen: AsyncIterator[InputImage]) -> list[str]:
    return [image.identifier async for image in chosen]


async def test_master_is_the_first_key_that_exists() -> None:
    source = MemorySource({"leaf.jp2": b"x"})

    blob = await locate(source, KeyTemplates(("{id}", "{id}.jp2", "{id}.tif")), "leaf")

    assert blob == source.blob("leaf.jp2")
    assert source.verbs("stat") == ["leaf", "leaf.jp2"]
    with pytest.raises(Missing, match=r"'bud' by the keys \{id\}"):
        await locate(source, KeyTemplates(), "bud")


async def test_listing_tells_versions_where_one_template_leaves_no_doubt() -> None:
    source = MemorySource({"a.tif": b"1", "b.txt": b"2", "c.tif": b"3"})

    assert [it async for it in listed(source, KeyTemplates())] == [
        InputImage("a.tif", source.blob("a.tif")),
        InputImage("c.tif", source.blob("c.tif")),
    ]
    assert [it async for it in listed(source, KeyTemplates(("{id}", "{id}.tif")))] == [InputImage("a"), InputImage("c")]


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

    assert await collected(read(str(path), root="s3://b/masters/", templates=KeyTemplates())) == expected


async def test_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere cannot be read: No such file"):
        await collected(read(str(tmp_path / "nowhere"), root="s3://b/", templates=KeyTemplates()))

    broken = tmp_path / "broken.csv"
    broken.write_text("just-a-bucket\n")
    with pytest.raises(ConfigurationError, match="columns Bucket and Key"):
        await collected(read(str(broken), root="s3://b/", templates=KeyTemplates()))
