"""Refuses places that overlap: what is stored of restricted images must not be served as masters.

A rendition below the source is a master by its key: `thumbs/1/2/foo/auth/1024.jpg` has no sizes file that restricts it,
and `derive` would make renditions of it in turn.
"""

from __future__ import annotations

import os
from pathlib import Path

from special.errors import ConfigurationError
from special.storage.opening import folder_path


def check_apart(source: str, *, thumbs: str, home: Path, volume: Path) -> None:
    """Raise `ConfigurationError` where renditions or state are below the masters, or masters below the renditions.

    Asks the file system about folders, links included, and no store about buckets.
    """
    if _is_within(str(home), source):
        raise ConfigurationError(
            f"the state folder {home} is inside {source}, so its files would be served as masters: "
            "set SPECIAL_HOME to a folder outside"
        )
    if _is_within(thumbs, source):
        raise ConfigurationError(
            f"renditions at {thumbs} would be listed as masters of {source}, restricted ones too: "
            "choose a place outside it with --thumbs"
        )
    if _is_within(source, thumbs):
        raise ConfigurationError(
            f"masters of {source} are inside {thumbs}, so that a rendition may get the key of a master: "
            "choose another place with --thumbs"
        )
    if _is_within(str(volume), source):
        raise ConfigurationError(
            f"the volume {volume} is inside {source}, so its files would be served as masters: "
            "choose a folder outside with --volume"
        )


def _is_within(inner: str, outer: str) -> bool:
    """Whether a place is another, or below it."""
    folders = folder_path(inner), folder_path(outer)
    match folders:
        case Path() as low, Path() as high:
            low, high = low.resolve(), high.resolve()
            return any(it == high or _is_same(it, high) for it in (low, *low.parents))
        case None, None:
            low_parts, high_parts = _parts(inner), _parts(outer)
            return low_parts[: len(high_parts)] == high_parts
    return False


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one folder: by a bind mount, or in another case where the file system folds cases."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _parts(url: str) -> list[str]:
    """Scheme, bucket (or host) and the segments of the prefix. A prefix always ends with a slash."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    return ["https" if scheme == "http" else scheme, *rest.removesuffix("/").split("/")]
