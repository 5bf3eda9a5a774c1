"""The route of manifests: `/iiif/manifest/{id}` and `/iiif/manifest/{folder}/`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from special import iiif
from special.errors import BadRequest, NotFound
from special.iiif import FolderManifest, ImageManifest, Limits, Version
from special.serving import Engine, info, manifests
from special.web.auth import Auth
from special.web.request import HttpRequest

MAX_MADE = 2
"""Documents that are made at a time: each takes up to 0.1 s of CPU."""


class ManifestRoute:
    """Finds and makes the documents of one server."""

    def __init__(self, engine: Engine, *, auth: Auth | None, gallery: bool | None, id_segments: int) -> None:
        """`gallery` as the settings have it: what may not be listed there has no manifests of folders either."""
        self._manifests = manifests.Manifests(engine.catalog, engine.gallery, engine.description)
        self._limits: Limits = engine.limits
        self._auth = auth
        self._turn = engine.gallery.turn
        self._lists_folders = engine.gallery.is_offered(gallery)
        self._id_segments = id_segments
        self._made = asyncio.Semaphore(MAX_MADE)

    async def contents(
        self, call: HttpRequest, asked: ImageManifest | FolderManifest, identify: manifests.Identify
    ) -> manifests.Contents:
        """What the document is made of. Raises `NotFound`, `Unauthorised`, `Forbidden`, `SourceError`, `Busy`."""
        if isinstance(asked, ImageManifest):
            return await self._manifests.of_image(asked.identifier, identify)
        if not self._lists_folders:
            raise NotFound("This source is not listed, so its folders have no manifests.")
        await self._turn(call.client)
        match _part(call):
            case {"images": after}:
                return await self._manifests.images_of_folder(asked.folder, identify, after=after)
            case {"after": after}:
                return await self._manifests.parts_of_folder(asked.folder, after=after)
            case _:
                return await self._manifests.of_folder(asked.folder, identify)

    async def document(self, call: HttpRequest, contents: manifests.Contents, version: Version) -> dict[str, Any]:
        """The document that was asked for, in a version of the Presentation API."""
        root = f"{call.base}/{call.prefix}"
        below = _Below(root, self._id_segments)
        made = manifests.Addresses(
            f"{root}/{call.quoted_path}{_query(_part(call))}", below.image, below.manifest, below.part
        )

        def services_of(uri: str) -> info.Services:
            return self._auth.flow.services(call.base, uri) if self._auth else ()

        async with self._made:
            return await asyncio.to_thread(
                manifests.document, contents, made, version=version, limits=self._limits, services_of=services_of
            )


def _part(call: HttpRequest) -> dict[str, str]:
    """Which part of a folder is asked for; empty for all of it."""
    if not call.path.endswith("/"):
        return {}
    try:
        given = parse_qs(call.query, keep_blank_values=True, max_num_fields=8, errors="strict")
    except ValueError:
        raise BadRequest("The address has a query that is none of ours.") from None
    return next(({name: given[name][0]} for name in ("images", "after") if name in given), {})


def _query(parameters: Mapping[str, str]) -> str:
    return f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""


@dataclass(frozen=True, slots=True)
class _Below:
    """Addresses below the prefix `/iiif`."""

    root: str
    id_segments: int

    def image(self, identifier: str, version: Version) -> str:
        # '3/…' could be the first segment of a longer identifier; 'v3/…' is understood always.
        segment = f"{version}" if self.id_segments == 1 else f"v{version}"
        return f"{self.root}/{segment}/{self._quoted(identifier)}"

    def manifest(self, identifier: str) -> str:
        return f"{self.root}/manifest/{self._quoted(identifier)}"

    def part(self, part: manifests.Part) -> str:
        return f"{self.root}/manifest/{quote(part.folder)}{_query(part.query)}"

    def _quoted(self, identifier: str) -> str:
        return iiif.quote_identifier(identifier, id_segments=self.id_segments)
