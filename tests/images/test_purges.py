"""The file by which servers learn which images to forget."""

from pathlib import Path

from special.images import PurgeList
from special.images.purges import MAX_BYTES


def test_names_of_any_form_come_back_once(tmp_path: Path) -> None:
    path, names = tmp_path / "home" / "purges", ["maps/1", "50%25", "a\nb", "ünï", "%0A"]
    before, writer = PurgeList(path), PurgeList(path)
    assert before.news() == []
    writer.add(names[:2])
    assert before.news() == names[:2]
    later = PurgeList(path)
    writer.add(names[2:])
    assert before.news() == later.news() == names[2:]
    assert before.news() == []


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    reader, writer = PurgeList(tmp_path / "purges"), PurgeList(tmp_path / "purges")
    name = "x" * 1000
    for _ in range(2 + MAX_BYTES // 100_000):
        writer.add([name] * 100)
        assert reader.news() == [name] * 100
    assert (tmp_path / "purges").stat().st_size <= MAX_BYTES + 110_000
