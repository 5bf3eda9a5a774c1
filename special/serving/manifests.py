"""Manifests of images and folders, and collections of them, by the IIIF Presentation API 3.0 and 2.1.

They are made on request: an image's of what info.json says, a folder's of the images right below it, in the
order of their names. A folder with folders in it, or with more images than a viewer likes, is a collection, which
continues in another where it is long: each of these documents costs one page of a listing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from special import geometry
from special.auth import Grant, Identity, access
from special.errors import (
    Archived,
    Forbidden,
    MasterError,
    Missing,
    NotFound,
    Outside,
    SpecialError,
    Unauthorised,
)
from special.geometry import Size
from special.iiif import Limits, Version
from special.images import Asset, Description
from special.serving import info
from special.serving.catalog import Catalog
from special.serving.gallery import Gallery
from special.serving.info import Services

CONTEXT: dict[Version, str] = {
    2: "http://iiif.io/api/presentation/2/context.json",
    3: "http://iiif.io/api/presentation/3/context.json",
}
MAX_CANVASES = 100
"""Maximum number of images in one manifest."""
MAX_PARTS = 1000
"""Maximum number of a folder's entries that one collection covers; a further one has those after them."""
THUMBNAIL_SIDE = 200
"""Least long side of a thumbnail in pixels, where the image is as large."""
LOOK_UPS = 16
"""Images whose headers are looked up at a time."""
_UNTITLED = "Images"


Identify = Callable[[str], Awaitable[Identity]]
"""Who asks, as far as the image of an identifier goes."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image that a caller may see at least in part."""

    asset: Asset
    grant: Grant
    said: Description

    @property
    def identifier(self) -> str:
        return self.asset.identifier

    @property
    def private(self) -> bool:
        """Whether another caller may see more or less of it."""
        return self.asset.restricted or self.grant.is_personal


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest or a collection that a collection names."""

    kind: Literal["Manifest", "Collection"]
    label: str
    folder: str
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a manifest or a collection is made of: images, or parts."""

    label: str
    images: tuple[ListedImage, ...] = ()
    parts: tuple[Part, ...] | None = None
    """None: it is a manifest."""
    private: bool = False
    """Whether another caller may get another document."""


class Manifests:
    """Finds what manifests are made of. `general` is said of every image of which its catalogue says nothing else."""

    def __init__(self, catalog: Catalog, gallery: Gallery, general: Description = Description()) -> None:  # noqa: B008 - immutable
        self._catalog = catalog
        self._gallery = gallery
        self._general = general
        self._look_ups = asyncio.Semaphore(LOOK_UPS)

    async def of_image(self, identifier: str, identify: Identify) -> Contents:
        """One image. Raises `Unauthorised` and `Forbidden` where nothing of it may be seen; see `Catalog.find`."""
        found = self._listed(await self._catalog.find(identifier), await identify(identifier))
        if found.grant.max_side == 0:
            raise (Forbidden if found.grant.known else Unauthorised)("This image is restricted.")
        return Contents(found.asset.label or identifier, (found,), private=found.private)

    async def of_folder(self, folder: str, identify: Identify) -> Contents:
        """The images of a folder where they are few and all that is in it, else its parts. Raises `NotFound`."""
        page = await self._gallery.page(folder=folder, count=MAX_CANVASES)
        if not page.images and not page.folders:
            raise NotFound("There are no images in this folder.")
        if page.folders or page.next is not None:
            return await self.parts_of_folder(folder, after="")
        return await self._manifest(folder, page.images, identify)

    async def images_of_folder(self, folder: str, identify: Identify, *, after: str) -> Contents:
        """Images right below a folder after one of its entries, as many as one manifest has."""
        images: list[str] = []
        following: str | None = after
        while following is not None and len(images) < MAX_CANVASES:
            page = await self._gallery.page(folder=folder, after=following, count=MAX_CANVASES - len(images))
            images += page.images
            following = page.next
        return await self._manifest(folder, images, identify)

    async def parts_of_folder(self, folder: str, *, after: str) -> Contents:
        """What is in a folder after one of its entries: its images by manifests, its folders, and what follows."""
        page = await self._gallery.page(folder=folder, after=after, count=MAX_PARTS)
        parts = []
        for start in range(0, len(page.keys), MAX_CANVASES):
            keys = page.keys[start : start + MAX_CANVASES]
            label = " – ".join(dict.fromkeys(key.removeprefix(folder) for key in (keys[0], keys[-1])))
            parts.append(Part("Manifest", label, folder, {"images": page.keys[start - 1] if start else after}))
        parts += [Part("Collection", it.removeprefix(folder).rstrip("/"), it, {"after": ""}) for it in page.folders]
        if page.next is not None:
            parts.append(Part("Collection", "More", folder, {"after": page.next}))
        return Contents(_name(folder), parts=tuple(parts))

    async def _manifest(self, folder: str, identifiers: Iterable[str], identify: Identify) -> Contents:
        """Those of the images that the caller may see at least in part; where no master can be read, none is listed."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._look_up(it, identify)) for it in sorted(identifiers, key=_natural)]
        found = [task.result() for task in tasks]
        for it in found:
            if isinstance(it, SpecialError) and not isinstance(
                it, NotFound | Missing | Outside | Archived | MasterError
            ):
                raise it
        images = [it for it in found if isinstance(it, ListedImage)]
        shown = tuple(it for it in images if it.grant.max_side != 0)
        return Contents(_name(folder), shown, private=any(it.private for it in images))

    async def _look_up(self, identifier: str, identify: Identify) -> ListedImage | SpecialError:
        async with self._look_ups:
            try:
                return self._listed(await self._catalog.find(identifier), await identify(identifier))
            except SpecialError as error:
                return error

    def _listed(self, asset: Asset, identity: Identity) -> ListedImage:
        return ListedImage(
            asset, access.grant(asset, identity), (asset.description or Description()).over(self._general)
        )


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where things are, as the public sees them."""

    document: str
    """The document itself."""
    image: Callable[[str, Version], str]
    """Base URI of an image's service of a version of the Image API."""
    manifest: Callable[[str], str]
    """An image's manifest."""
    part: Callable[[Part], str]


def document(
    contents: Contents,
    addresses: Addresses,
    *,
    version: Version,
    limits: Limits,
    services_of: Callable[[str], Services] = lambda _: (),
) -> dict[str, Any]:
    """The manifest or the collection. Takes some 15 µs of CPU for each image.

    `services_of` gives the services of a login for an image's base URI.
    """
    if version == 2:
        return _document_2(contents, addresses, limits)
    return _document_3(contents, addresses, limits, services_of)


def _document_3(
    contents: Contents, addresses: Addresses, limits: Limits, services_of: Callable[[str], Services]
) -> dict[str, Any]:
    head = {"@context": CONTEXT[3], "id": addresses.document}
    label = {"label": {"none": [contents.label]}}
    if contents.parts is not None:
        items = [{"id": addresses.part(it), "type": it.kind, "label": {"none": [it.label]}} for it in contents.parts]
        return head | {"type": "Collection"} | label | {"items": items}
    canvases = [_canvas_3(it, addresses, limits, services_of) for it in contents.images]
    return head | {"type": "Manifest"} | label | {"items": canvases}


def _canvas_3(
    image: ListedImage, addresses: Addresses, limits: Limits, services_of: Callable[[str], Services]
) -> dict[str, Any]:
    uri, base = addresses.image(image.identifier, 3), addresses.manifest(image.identifier)
    small = _thumbnail(image, limits)
    service: dict[str, Any] = {
        "id": uri,
        "type": "ImageService3",
        "profile": f"level{info.level(image.grant)}",
        **_sides(image.asset.size),
    }
    if image.asset.restricted:
        service["service"] = list(services_of(uri))
    painting = {
        "id": f"{base}/annotation",
        "type": "Annotation",
        "motivation": "painting",
        "body": _picture_3(f"{uri}/full/max/0/default.jpg", _largest(image, limits)) | {"service": [service]},
        "target": f"{base}/canvas",
    }
    canvas = {
        "id": f"{base}/canvas",
        "type": "Canvas",
        "label": {"none": [_label(image)]},
        **_sides(image.asset.size),
        "thumbnail": [_picture_3(f"{uri}/full/{small}/0/default.jpg", small)],
        "items": [{"id": f"{base}/page", "type": "AnnotationPage", "items": [painting]}],
    }
    if image.said.rights and re.match("https?://", image.said.rights):
        canvas["rights"] = image.said.rights
    if image.said.attribution:
        statement = {"none": [image.said.attribution]}
        canvas["requiredStatement"] = {"label": {"en": ["Attribution"]}, "value": statement}
    if image.said.provider:
        canvas["provider"] = list(image.said.provider)
    return canvas


def _picture_3(address: str, size: Size) -> dict[str, Any]:
    return {"id": address, "type": "Image", "format": "image/jpeg", **_sides(size)}


def _document_2(contents: Contents, addresses: Addresses, limits: Limits) -> dict[str, Any]:
    head = {"@context": CONTEXT[2], "@id": addresses.document, "label": contents.label}
    if contents.parts is not None:
        listed = {
            kind: [
                {"@id": addresses.part(it), "@type": f"sc:{it.kind}", "label": it.label}
                for it in contents.parts
                if it.kind == kind
            ]
            for kind in ("Manifest", "Collection")
        }
        named = {"manifests": listed["Manifest"], "collections": listed["Collection"]}
        return head | {"@type": "sc:Collection"} | {name: of for name, of in named.items() if of}
    canvases = [_canvas_2(it, addresses, limits) for it in contents.images]
    sequence = {"@type": "sc:Sequence", "canvases": canvases}
    return head | {"@type": "sc:Manifest", "sequences": [sequence]}


def _canvas_2(image: ListedImage, addresses: Addresses, limits: Limits) -> dict[str, Any]:
    uri, base = addresses.image(image.identifier, 2), addresses.manifest(image.identifier)
    small = _thumbnail(image, limits)
    service = {
        "@context": info.CONTEXT[2],
        "@id": uri,
        "profile": info.profile(2, info.level(image.grant)),
        **_sides(image.asset.size),
    }
    picture = {
        "@id": f"{uri}/full/max/0/default.jpg",
        "@type": "dctypes:Image",
        "format": "image/jpeg",
        **_sides(_largest(image, limits)),
        "service": service,
    }
    canvas = {
        "@id": f"{base}/canvas",
        "@type": "sc:Canvas",
        "label": _label(image),
        **_sides(image.asset.size),
        "thumbnail": {"@id": f"{uri}/full/{small.width},/0/default.jpg", "@type": "dctypes:Image", **_sides(small)},
        "images": [
            {
                "@id": f"{base}/annotation",
                "@type": "oa:Annotation",
                "motivation": "sc:painting",
                "on": f"{base}/canvas",
                "resource": picture,
            }
        ],
    }
    said = {"license": image.said.rights, "attribution": image.said.attribution}
    return canvas | {name: value for name, value in said.items() if value}


def _largest(image: ListedImage, limits: Limits) -> Size:
    """What `max` gives this caller."""
    return info.granted(limits, image.grant).reduce(image.asset.size)


def _thumbnail(image: ListedImage, limits: Limits) -> Size:
    """The smallest stored size that is large enough, else one that is made."""
    stored = [it for it in info.listed_thumbs(image.asset, image.grant) if it.long_side >= THUMBNAIL_SIDE]
    largest = _largest(image, limits)
    side = min(THUMBNAIL_SIDE, largest.long_side)
    return next((it for it in stored if largest.covers(it)), geometry.to_fit(image.asset.size, Size(side, side)))


def _sides(size: Size) -> dict[str, int]:
    return {"width": size.width, "height": size.height}


def _label(image: ListedImage) -> str:
    return image.asset.label or image.identifier.rpartition("/")[2]


def _name(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2] or _UNTITLED


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts `page 2` before `page 10`."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"([0-9]+)", name) if part]
