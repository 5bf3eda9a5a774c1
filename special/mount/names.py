"""Keys of a store as paths of a file system. Pure.

A key is the path of its file. A store may have the object `1/2/foo` and others below `1/2/foo/`, where a file system
has one name for either a file or a folder: the object keeps its name, and the folder gets the suffix `@prefix`. With
that suffix a folder is found in any case. Keys that no path can spell have no file: those with a segment that is empty,
`.` or `..`, that ends with the suffix, or that is longer than 255 bytes.
"""

from __future__ import annotations

from special.mount.protocol import NAME_BYTES

FOLDER_SUFFIX = "@prefix"
"""Ends the name of a folder whose own name an object has."""


def folder_prefix(prefix: str, name: str) -> str:
    """The keys' prefix that a name of a folder stands for, in the folder of `prefix`."""
    return f"{prefix}{name.removesuffix(FOLDER_SUFFIX)}/"


def is_nameable(segment: str) -> bool:
    """Whether a segment of a key can be the name of a file or of a folder."""
    return (
        segment not in ("", ".", "..")
        and "\0" not in segment
        and not segment.endswith(FOLDER_SUFFIX)
        and len(segment.encode(errors="surrogateescape")) <= NAME_BYTES
    )


class FolderNames:
    """The names of one folder's content, as it is listed in the order of its keys, a folder with its slash."""

    def __init__(self) -> None:
        self._objects: list[str] = []

    def of_object(self, segment: str) -> str:
        """The name of an object's file."""
        self._keep_prefixes_of(segment)
        self._objects.append(segment)
        return segment

    def of_folder(self, segment: str) -> str:
        """The name of a folder: with the suffix where an object has its name.

        `foo-1` and `foo.tif` sort between `foo` and `foo/`. All of those start with `foo`: to remember objects whose
        names start what comes next is enough, however long the list is.
        """
        self._keep_prefixes_of(segment)
        return segment + FOLDER_SUFFIX if segment in self._objects[-1:] else segment

    def _keep_prefixes_of(self, segment: str) -> None:
        while self._objects and not segment.startswith(self._objects[-1]):
            self._objects.pop()
