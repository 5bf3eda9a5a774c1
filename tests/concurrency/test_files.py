"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from special.concurrency.files import replace_file, temporary_file


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        replace_file(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_one_that_cannot_be_replaced_stays_and_nothing_is_left_over(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", b"new")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_leftover_of_the_same_name_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.new").write_bytes(b"a longer one of a killed process")
    replace_file(tmp_path / "a", b"new", temporary=tmp_path / "a.new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_in_the_temporary_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"theirs")
    (tmp_path / "a.new").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "a", b"new", temporary=tmp_path / "a.new")
    assert (tmp_path / "victim").read_bytes() == b"theirs"


def test_a_temporary_file_has_its_mode_from_the_start(tmp_path: Path) -> None:
    with temporary_file(tmp_path / "a", mode=0o600) as (_, name):
        assert name.parent == tmp_path
        assert name.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == []
