"""Inodes: one for each version, until the kernel has forgotten it as often as it was told."""

from __future__ import annotations

from dataclasses import replace

from special.mount.nodes import Nodes
from special.storage import Blob

BLOB = Blob("s3://a/", "b/c", '"1"', 9)


def test_each_version_is_an_inode_of_its_own() -> None:
    nodes = Nodes(user=1, group=2)
    root = nodes.get(1)
    assert root is not None
    folder = nodes.found(root, b"b", "b/")
    old, new = nodes.found(folder, b"c", BLOB), nodes.found(folder, b"c", replace(BLOB, etag='"2"'))
    assert len({root.number, folder.number, old.number, new.number}) == 4
    assert nodes.found(folder, b"c", BLOB) is old
    assert nodes.attributes(old.place).ino != nodes.attributes(new.place).ino
    assert nodes.attributes(old.place) == Nodes(user=1, group=2).attributes(BLOB), "the same after a restart"


def test_what_the_kernel_has_forgotten_is_gone() -> None:
    nodes = Nodes(user=1, group=2)
    root = nodes.get(1)
    assert root is not None
    node = nodes.found(root, b"c", BLOB)
    assert nodes.found(root, b"c", BLOB) is node
    nodes.forget([(node.number, 1)])
    assert nodes.get(node.number) is node
    nodes.forget([(node.number, 1), (77, 1), (1, 5)])
    assert nodes.get(node.number) is None
    assert nodes.get(1) is root
    assert nodes.found(root, b"c", BLOB).number != node.number, "a number is never used again"
    assert len(nodes) == 2
