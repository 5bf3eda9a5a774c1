"""Where identifiers come from, and which master is meant."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from special.derive.inputs import InputImage, listed, locate, matching, named, read, stored
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


@pytest.mark.parametrize(
    ("name", "data", "sign"),
    [
        pytest.param(
            "latin1.txt", "café\n".encode("latin-1"), "(byte 0xe9): convert it, as with `iconv -f latin1", id="latin-1"
        ),
        pytest.param(
            "utf16.txt", "a.png\n".encode("utf-16"), "(byte 0xff): convert it, as with `iconv -f utf-16", id="utf-16"
        ),
        pytest.param("utf16le.txt", "a.png\n".encode("utf-16-le"), "it has zero bytes", id="utf-16 without mark"),
        pytest.param("x.parquet", b"PAR1\x15\x04\xff", "is a Parquet file", id="parquet"),
        pytest.param("x.csv", b"PAR1\x15\x04", "is a Parquet file", id="parquet by another name"),
        pytest.param("no.txt.gz", b"not gzip at all", "is no gzip file", id="no gzip"),
        pytest.param("cut.txt.gz", gzip.compress(b"a.png\n" * 1000)[:-12], "is cut off", id="cut gzip"),
        pytest.param("nul.csv", b'"b","a.png\0"\n', "it has zero bytes", id="zero byte"),
        pytest.param("other.csv", b'"other","masters/a.png"\n', "first row is of other/masters/a.png", id="bucket"),
        pytest.param("else.csv", b'"b","elsewhere/a.png"\n', "nothing of s3://b/masters/", id="prefix"),
    ],
)
async def test_a_list_that_cannot_be_meant_is_one_sentence(tmp_path: Path, name: str, data: bytes, sign: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match=re.escape(sign)) as raised:
        await collected(read(str(tmp_path / name), root="s3://b/masters/", templates=KeyTemplates()))
    assert "\n" not in str(raised.value)


async def test_a_byte_order_mark_is_no_part_of_an_identifier(tmp_path: Path) -> None:
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png")
    found = read(str(tmp_path / "bom.txt"), root="s3://b/", templates=KeyTemplates())
    assert await collected(found) == ["a.png", "b.png"]


async def test_rows_of_other_buckets_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'Bucket,Key\n"b","a.png"\n"c","d.png"\n')
    found = read(str(tmp_path / "x.csv"), root="s3://b/", templates=KeyTemplates())
    assert await collected(found) == ["a.png"]


async def test_keys_without_an_identifier_are_told_of() -> None:
    keys = ("m/a.tif", "m/b//c.tif", "m//d.tif", "m/e/", "m/f//x.xml", "m/.DS_Store", "other.tif")
    source = MemorySource(dict.fromkeys(keys, b"1"))
    told: dict[str, str] = {}
    assert await collected(listed(source, KeyTemplates(("m/{id}",)), leave_out=told.__setitem__)) == ["a.tif"]
    assert told == {
        "m/b//c.tif": "spelling",
        "m//d.tif": "spelling",
        "m/f//x.xml": "no image",
        "m/.DS_Store": "no image",
        "other.tif": "no template",
    }


async def test_patterns_choose_images() -> None:
    names = ["maps/1", "maps/2.bak", "portraits/1"]
    assert await collected(matching(named(names), ["maps/*"], ["*.bak"])) == ["maps/1"]
    assert await collected(matching(named(names), [], ["maps/*"])) == ["portraits/1"]


async def test_what_is_stored_is_found_by_its_side_cars() -> None:
    source = MemorySource({"a/b.tif/special.json": b"{}", "a/b.tif/s.json": b"{}", "c/s.json": b"{}"})
    assert await collected(stored(source)) == ["a/b.tif"]
