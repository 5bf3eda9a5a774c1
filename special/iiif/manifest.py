"""Addresses of manifests: `manifest/{id}` for an image, `manifest/{folder}/` for all of a folder. Syntax alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from special.iiif.identifier import IdentifierForm, parse_identifier

_ROOM = "manifest/"


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """The manifest of one image."""

    identifier: str


@dataclass(frozen=True, slots=True)
class FolderManifest:
    """The manifest of a folder's images, or a collection of several."""

    folder: str
    """Prefix of keys, with its slash; empty for all of the source."""


def parse_manifest(
    path: str, *, id_segments: int = 1, form: IdentifierForm = IdentifierForm.NORMAL
) -> ImageManifest | FolderManifest | None:
    """What a path below the prefix asks for, still percent-encoded; None if it is the Image API's.

    An image named `manifest` keeps its addresses, but for its base URI with a slash. Raises `BadRequest`, `NotFound`.
    """
    if not path.startswith(_ROOM):
        return None
    rest = path.removeprefix(_ROOM)
    if not rest:
        return FolderManifest("")
    if rest.endswith("/"):
        return FolderManifest(f"{parse_identifier(rest[:-1], replace(form, pages=False))}/")
    segments = rest.split("/")
    if len(segments) != id_segments or segments[-1] == "info.json":
        return None
    return ImageManifest(parse_identifier(rest, form))
