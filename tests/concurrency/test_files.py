from pathlib import Path

import pytest

from special.concurrency import replace_file


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with path.open("rb") as reading:
        replace_file(path, b"new")
        assert reading.read() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "file", b"new")
    assert [it.name for it in tmp_path.iterdir()] == ["file"]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    precious, temporary = tmp_path / "precious", tmp_path / "temporary"
    precious.write_bytes(b"precious")
    temporary.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "file", b"new", temporary=temporary)
    replace_file(tmp_path / "file", b"new", temporary=temporary)  # the link is gone
    assert precious.read_bytes() == b"precious"
