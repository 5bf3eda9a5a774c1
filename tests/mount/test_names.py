"""Every nameable key has one path that leads to it, whatever other keys there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from special.mount.names import FolderNames, folder_prefix, is_nameable

segments = st.text("ab-./0é@", min_size=1, max_size=3).filter(lambda text: "/" not in text)
keys = st.lists(segments, min_size=1, max_size=3).map("/".join)


def children(stored: set[str], prefix: str) -> list[str]:
    """What a store lists below a prefix, in order."""
    below = {key.removeprefix(prefix) for key in stored if key.startswith(prefix)}
    return sorted({key.partition("/")[0] + "/" * ("/" in key) for key in below})


def paths(stored: set[str], prefix: str = "", path: str = "") -> dict[str, str]:
    """All paths of files, by walking the folders, and the keys that they lead to."""
    names, found = FolderNames(), {}
    for child in children(stored, prefix):
        segment = child.removesuffix("/")
        if not is_nameable(segment):
            continue
        if child == segment:
            found[path + names.of_object(segment)] = prefix + segment
        else:
            name = names.of_folder(segment)
            below = paths(stored, folder_prefix(prefix, name), f"{path}{name}/")
            assert not below.keys() & found.keys()
            found |= below
    return found


@given(st.sets(keys, max_size=12))
def test_walking_finds_each_object_once(stored: set[str]) -> None:
    nameable = {key for key in stored if all(map(is_nameable, key.split("/")))}
    found = paths(stored)
    assert sorted(found.values()) == sorted(nameable)
    for path, key in found.items():
        plain = path.replace("@prefix/", "/")
        assert plain == key
        if not any(key.startswith(f"{other}/") for other in stored):
            assert path == key, "only where an object has the folder's name it gets the suffix"


def test_an_object_keeps_its_name() -> None:
    assert paths({"1/2/foo", "1/2/foo/bar", "1/2/foo-x", "1/2/foo.tif"}) == {
        "1/2/foo": "1/2/foo",
        "1/2/foo-x": "1/2/foo-x",
        "1/2/foo.tif": "1/2/foo.tif",
        "1/2/foo@prefix/bar": "1/2/foo/bar",
    }


def test_what_no_path_can_spell_has_no_name() -> None:
    for segment in ("", ".", "..", "a@prefix", "a\0b", "x" * 256, "é" * 128):
        assert not is_nameable(segment)
    for segment in ("a", "...", "x" * 255, "é" * 127, "a@prefix b"):
        assert is_nameable(segment)
