"""A folder: what cannot be named, and what writing leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from special.errors import Changed, Missing, SourceError
from special.storage import open_source
from special.storage.blob import Span
from special.storage.source import body


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a secret beside it."""
    (tmp_path / "secret").write_bytes(b"not yours")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").write_bytes(b"0123456789")
    (tmp_path / "root/sub").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("../secret", id="parent"),
        pytest.param("sub/../../secret", id="parent-of-sub"),
        pytest.param("sub/../a", id="parent-inside"),
        pytest.param("./a", id="dot"),
        pytest.param("/a", id="leading-slash"),
        pytest.param("a/", id="trailing-slash"),
        pytest.param("sub//a", id="double-slash"),
        pytest.param("..", id="dots"),
        pytest.param("sub", id="folder"),
        pytest.param("link", id="link-out"),
        pytest.param("links/secret", id="link-to-folder-out"),
        pytest.param("loop", id="link-to-itself"),
        pytest.param("gone", id="link-to-nothing"),
        pytest.param("pipe", id="pipe"),
    ],
)
async def test_nothing_else_can_be_read(root: Path, key: str) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "links").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    (root / "gone").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe")
    source = open_source(str(root))
    with pytest.raises(Missing):
        await source.stat(key)
    with pytest.raises(Missing):
        await source.open(key)
    assert [blob.key async for blob in source.list()] == ["a"]


@pytest.mark.parametrize("key", ["../secret", "links/new", "/new", "a//b", "x/../../new"])
async def test_nothing_else_can_be_written_or_deleted(root: Path, key: str) -> None:
    (root / "links").symlink_to(root.parent)
    source = open_source(str(root))
    with pytest.raises(Missing):
        await source.write(key, b"mine")
    await source.delete(key)
    assert (root.parent / "secret").read_bytes() == b"not yours"
    assert sorted(path.name for path in root.parent.iterdir()) == ["root", "secret"]


async def test_links_inside_are_followed_once(root: Path) -> None:
    (root / "sub/b").write_bytes(b"b")
    (root / "also").symlink_to(root / "a")
    (root / "sub/up").symlink_to(root)
    (root / "twin").symlink_to(root / "sub")
    source = open_source(str(root))
    assert await body(await source.open("also")) == b"0123456789"
    assert [blob.key async for blob in source.list()] == ["a", "also", "sub/b", "twin/b"]


async def test_a_root_that_is_a_link_is_its_target(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    source = open_source(str(root.parent / "alias"))
    assert source.root == root.as_uri() + "/"
    assert (await source.stat("a")).size == 10


async def test_a_file_being_written_is_not_listed_and_a_failed_one_is_removed(root: Path) -> None:
    source = open_source(str(root))
    (root / ".special-writing-0123").write_bytes(b"half")
    blob = await source.stat("a")
    await source.write("a", b"new")
    with pytest.raises(Changed):
        await source.write("a", b"newer", pin=blob)
    assert [found.key async for found in source.list()] == ["a"]
    assert sorted(os.listdir(root)) == [".special-writing-0123", "a", "sub"]


async def test_a_key_below_a_file_needs_a_bucket(root: Path) -> None:
    source = open_source(str(root))
    for key in ("a/s.json", "sub"):
        with pytest.raises(SourceError, match="keep such keys in a bucket"):
            await source.write(key, b"{}")
    assert (root / "a").read_bytes() == b"0123456789"


async def test_versions_written_in_one_tick_differ(root: Path) -> None:
    source = open_source(str(root))
    tags = {(await source.write("a", b"same size")).etag for _ in range(200)}
    assert len(tags) == 200


async def test_a_file_that_grows_in_place_is_another_version(root: Path) -> None:
    source = open_source(str(root))
    blob = await source.stat("a")
    with (root / "a").open("ab") as file:
        file.write(b"!")
    with pytest.raises(Changed):
        await source.read(blob, [Span(0, 1)])


async def test_a_long_body_that_changes_on_the_way_breaks_off(root: Path) -> None:
    (root / "long").write_bytes(bytes(1_000_000))
    opened = await open_source(str(root)).open("long")
    assert not isinstance(opened.body, bytes)
    assert not any(await anext(opened.body))
    (root / "long").write_bytes(b"\xff" * 1_000_000)
    with pytest.raises(Changed):
        await body(opened)


async def test_names_that_are_no_text_are_not_listed(root: Path) -> None:
    (root / os.fsdecode(b"latin-\xe9")).write_bytes(b"x")
    assert [blob.key async for blob in open_source(str(root)).list()] == ["a"]


async def test_an_overwrite_in_place_that_keeps_size_and_mtime_is_another_version(root: Path) -> None:
    source = open_source(str(root))
    before = await source.stat("a")
    stamp = (root / "a").stat()
    while (root / "a").stat().st_ctime_ns == stamp.st_ctime_ns:  # the clock of the file system ticks every few ms
        with (root / "a").open("r+b") as file:
            file.write(b"abcdefghij")
        os.utime(root / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = await source.stat("a")
    assert (after.size, after.modified) == (before.size, before.modified)
    assert after.version != before.version
    with pytest.raises(Changed):
        await source.read(before, [Span(0, 4)])
    assert await source.read(after, [Span(0, 4)]) == [b"abcd"]


async def test_the_version_that_a_write_gives_is_the_stored_one(root: Path) -> None:
    source = open_source(str(root))
    written = await source.write("a", b"new")
    assert await source.stat("a") == written
    again = await source.write("a", b"newer", pin=written)
    assert await source.stat("a") == again


async def test_links_that_lead_away_are_told_of_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "links").symlink_to(root.parent)
    (root / "link").symlink_to(root.parent / "secret")
    source = open_source(str(root))
    for _ in range(2):
        assert [blob.key async for blob in source.list()] == ["a"]
        with pytest.raises(Missing):
            await source.stat("link")
    assert caplog.text.count("by a symbolic link") == 1
