from pathlib import Path

from special.images import Takedowns
from special.images.takedowns import MAX_NAMES


def test_names_of_any_form_come_back(tmp_path: Path) -> None:
    takedowns = Takedowns(tmp_path / "home")
    assert (takedowns.names(), takedowns.stamp()) == ([], None)
    names = ["maps/1", "50%25", "a\nb", "ünï", "%0A"]
    takedowns.add(names[:2])
    before = takedowns.stamp()
    takedowns.add(names[2:])
    assert takedowns.names() == names
    assert takedowns.stamp() != before


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    takedowns = Takedowns(tmp_path)
    takedowns.add(map(str, range(MAX_NAMES)))
    takedowns.add(["last"])
    names = takedowns.names()
    assert (len(names), names[0], names[-1]) == (MAX_NAMES, "1", "last")
