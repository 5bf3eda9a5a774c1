"""Stored renditions of one image: where they lie, and what is known of them without a look at the master.

    {id}/open/{long side}.jpg            may be had by everybody
    {id}/auth/{long side}.jpg            restricted; some sites write `authed`
    {id}/s.json                          which sizes there are; some sites write `sizes.json`
    {id}/full/{w},{h}/0/default.jpg      where older sites keep a size that the sizes file names
    {id}/special.json                    our own side-car

All but the side-car are the DLCS's; a bucket that knows nothing of us is served as it is. The side-car
spares a server the master's headers, and tells `derive` what still stands. What is written here is
read here, so that the two never part.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from special.asset import Access, Rendition, Rule
from special.errors import Malformed, Missing
from special.geometry import Size
from special.remember import Remembered
from special.spans import Blob, NotModified, Opened, Source, Span, Unless, body

T = TypeVar("T")

SIZES_NAMES = ("s.json", "sizes.json")
"""The sizes file; the first is written, both are read."""
SIDECAR_NAME = "special.json"
SIDECAR_VERSION = 1
"""Of the side-car's form; another version is refused by name."""

_FOLDERS: dict[Access, tuple[str, ...]] = {"open": ("open",), "auth": ("auth", "authed")}
_FILE = re.compile(r"(\d+)\.jpg", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a sizes file says: the sizes that are stored, by who may have them."""

    open: tuple[Size, ...] = ()
    """Largest first."""
    auth: tuple[Size, ...] = ()
    """Largest first."""

    @classmethod
    def of(cls, renditions: Iterable[Rendition]) -> Sizes:
        """The sizes of renditions."""
        listed = tuple(renditions)
        return cls(
            _descending(it.size for it in listed if it.access == "open"),
            _descending(it.size for it in listed if it.access == "auth"),
        )

    @property
    def max_unauthorised(self) -> int | None:
        """The rule that the file implies: nothing larger than its largest open size, once anything is restricted."""
        if not self.auth:
            return None
        return max((size.long_side for size in self.open), default=0)

    def renditions(self, identifier: str) -> tuple[Rendition, ...]:
        """Where each of the sizes lies; largest first."""
        return tuple(
            Rendition(size, access, rendition_key(identifier, size, access))
            for size in _descending((*self.open, *self.auth))
            for access in (self._access(size),)
        )

    def _access(self, size: Size) -> Access:
        # A size in both lists is about to be restricted, or should be.
        return "auth" if size in self.auth else "open"

    def dump(self) -> bytes:
        """The sizes file, as the DLCS writes it."""
        return _json(self.plain())

    def plain(self) -> dict[str, list[list[int]]]:
        """The same as lists."""
        return {"o": [[it.width, it.height] for it in self.open], "a": [[it.width, it.height] for it in self.auth]}

    @classmethod
    def load(cls, document: object) -> Sizes:
        """Read the parsed file; `a` or `o` may be missing. Raises `ValueError` where it is no sizes file."""
        if not isinstance(document, dict):
            raise ValueError('it is not an object such as {"o":[[400,300]],"a":[]}')
        return cls(_sizes(document.get("o")), _sizes(document.get("a")))


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What `derive` remembers of one image beside its renditions."""

    key: str
    """The master's key in its source."""
    etag: str
    """The version of the master that the renditions were made from."""
    size_bytes: int
    media: str | None
    modified: datetime | None
    shape: Size
    """The master's size in pixels, upright."""
    layout: bytes | None
    """What `formats.load` reads; None where it would be too large to be worth its reading."""
    sizes: Sizes
    """What the sizes file says once this side-car holds."""
    max_unauthorised: int | None
    """Longest side that anybody may have; None: everything is open."""
    encoding: str
    """How the renditions were encoded, such as `jpg 85`."""
    settled: bool
    """False while files may lie about that must go."""

    def blob(self, root: str) -> Blob:
        """The master's pinned version, in the source of that root."""
        return Blob(root, self.key, self.etag, self.size_bytes, self.media, self.modified)

    def dump(self) -> bytes:
        """The stored form."""
        return _json(
            {
                "version": SIDECAR_VERSION,
                "master": {
                    "key": self.key,
                    "etag": self.etag,
                    "bytes": self.size_bytes,
                    "media": self.media,
                    "modified": self.modified.isoformat() if self.modified else None,
                    "width": self.shape.width,
                    "height": self.shape.height,
                    "layout": b64encode(self.layout).decode() if self.layout is not None else None,
                },
                "sizes": self.sizes.plain(),
                "max_unauthorised": self.max_unauthorised,
                "encoding": self.encoding,
                "settled": self.settled,
            }
        )

    @classmethod
    def load(cls, document: Any) -> Sidecar:
        """Read the parsed form. Raises `ValueError`, `KeyError` or `TypeError` where it is none."""
        if document["version"] != SIDECAR_VERSION:
            raise ValueError(f"its version is {document['version']!r}, this special reads {SIDECAR_VERSION}")
        master = document["master"]
        limit = document["max_unauthorised"]
        return cls(
            key=str(master["key"]),
            etag=str(master["etag"]),
            size_bytes=int(master["bytes"]),
            media=master["media"],
            modified=datetime.fromisoformat(master["modified"]) if master["modified"] else None,
            shape=Size(master["width"], master["height"]),
            layout=b64decode(master["layout"], validate=True) if master["layout"] is not None else None,
            sizes=Sizes.load(document["sizes"]),
            max_unauthorised=int(limit) if limit is not None else None,
            encoding=str(document["encoding"]),
            settled=bool(document["settled"]),
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of one image."""

    renditions: tuple[Rendition, ...]
    """Those that the sizes file names, largest first."""
    rule: Rule
    """Who may see how much, as far as the store knows."""
    sidecar: Sidecar | None
    """Ours; None in a bucket that only others have written to."""
    version: str
    """Changes whenever any of the above does: the entity tags of the files it was read from."""


@dataclass(frozen=True, slots=True)
class _Read:
    """The two files as they were last read: what is asked after when they are no longer believed."""

    sizes: tuple[Blob, Sizes] | None
    sidecar: tuple[Blob, Sidecar] | None
    kept: Kept


class Store:
    """The renditions of many images, in one source."""

    def __init__(self, source: Source, *, ttl_s: float = 60.0, missing_ttl_s: float = 2.0) -> None:
        self.source = source
        self._known: Remembered[_Read] = Remembered(self._look_up, ttl_s=ttl_s, missing_ttl_s=missing_ttl_s)

    async def find(self, identifier: str) -> Kept | None:
        """What is stored of an image; None if nothing is.

        Costs nothing while it is believed, then two conditional GETs at once. Raises `SourceError`, and
        `Malformed` where a file is there and cannot be read: whom it restricts is then unknown.
        """
        try:
            return (await self._known.get(identifier)).kept
        except Missing:
            return None

    async def fresh(self, identifier: str) -> Kept | None:
        """The same as it is now, whatever is remembered: two or three GETs."""
        try:
            return (await self._look_up(identifier, None)).kept
        except Missing:
            return None

    async def open_rendition(
        self, identifier: str, rendition: Rendition, *, span: Span | None = None, unless: Unless | None = None
    ) -> Opened:
        """Start reading a rendition: one GET, more only where it lies at an older site's key.

        Raises what `Source.open` raises. One that is named and not there is `Missing`, and the image
        is looked up anew when it is next asked for.
        """
        return await self._first(identifier, rendition, partial(self.source.open, span=span, unless=unless))

    async def stat_rendition(self, identifier: str, rendition: Rendition) -> Blob:
        """The version of a rendition that is stored: one HEAD, else as `open_rendition`."""
        return await self._first(identifier, rendition, self.source.stat)

    async def _first(self, identifier: str, rendition: Rendition, ask: Callable[[str], Awaitable[T]]) -> T:
        for key in (rendition.key, *_older_keys(identifier, rendition)):
            try:
                return await ask(key)
            except Missing:
                continue
        self.forget(identifier)
        raise Missing(f"{self.source.root}{rendition.key} is named by its sizes file and is not there")

    async def publish(self, identifier: str, sidecar: Sidecar) -> None:
        """Let the sizes that a side-car names be known: two writes, the second of which is the commit.

        Every file that it names must be in its place, and none may be taken away before. Between the two
        writes readers hold to the stricter of the old rule and the new.
        """
        await self.note(identifier, sidecar)
        await self.source.write(f"{identifier}/{SIZES_NAMES[0]}", sidecar.sizes.dump(), media="application/json")
        self.forget(identifier)

    async def note(self, identifier: str, sidecar: Sidecar) -> None:
        """Write the side-car alone, where the sizes file stays as it is."""
        await self.source.write(f"{identifier}/{SIDECAR_NAME}", sidecar.dump(), media="application/json")
        self.forget(identifier)

    async def lying(self, identifier: str, access: Access) -> list[tuple[str, int]]:
        """Keys and long sides of the rendition files that lie in an image's folders, named or not; one or two lists."""
        found: list[tuple[str, int]] = []
        for folder in _FOLDERS[access]:
            prefix = f"{identifier}/{folder}/"
            async for blob in self.source.list(prefix):
                match = _FILE.fullmatch(blob.key[len(prefix) :])
                if match:
                    found.append((blob.key, int(match[1])))
        return found

    async def remove(self, identifier: str) -> int:
        """Take away all that is stored of an image, except legacy files; returns how many renditions that were.

        The sizes file goes first and the side-car last, so that its rule holds as long as there is a file.
        """
        for name in SIZES_NAMES:
            await self.source.delete(f"{identifier}/{name}")
        files = [key for access in _FOLDERS for key, _ in await self.lying(identifier, access)]
        for key in files:
            await self.source.delete(key)
        await self.source.delete(f"{identifier}/{SIDECAR_NAME}")
        self.forget(identifier)
        return len(files)

    def forget(self, identifier: str) -> None:
        """Look up anew at the next `find`."""
        self._known.forget(identifier)

    async def close(self) -> None:
        """Cancel the look-ups that are under way and close the source."""
        await self._known.close()
        await self.source.close()

    async def _look_up(self, identifier: str, previous: _Read | None) -> _Read:
        sizes, sidecar = await asyncio.gather(
            self._read_sizes(identifier, previous.sizes if previous else None),
            self._read_sidecar(identifier, previous.sidecar if previous else None),
        )
        if sizes is None and sidecar is None:
            raise Missing(f"{self.source.root}{identifier}/ has no sizes file and no side-car")
        return _Read(sizes, sidecar, _kept(identifier, sizes, sidecar))

    async def _read_sizes(self, identifier: str, previous: tuple[Blob, Sizes] | None) -> tuple[Blob, Sizes] | None:
        for name in SIZES_NAMES:
            key = f"{identifier}/{name}"
            unless = Unless(previous[0].etag) if previous and previous[0].key == key else None
            try:
                blob, document = await self._read_json(key, unless)
            except Missing:
                continue
            except NotModified:
                return previous
            try:
                return blob, Sizes.load(document)
            except ValueError as fault:
                raise _unreadable(blob, fault) from None
        return None

    async def _read_sidecar(
        self, identifier: str, previous: tuple[Blob, Sidecar] | None
    ) -> tuple[Blob, Sidecar] | None:
        try:
            blob, document = await self._read_json(
                f"{identifier}/{SIDECAR_NAME}", Unless(previous[0].etag) if previous else None
            )
        except Missing:
            return None
        except NotModified:
            return previous
        try:
            return blob, Sidecar.load(document)
        except (ValueError, KeyError, TypeError) as fault:
            raise _unreadable(blob, fault) from None

    async def _read_json(self, key: str, unless: Unless | None) -> tuple[Blob, object]:
        opened = await self.source.open(key, unless=unless)
        try:
            return opened.blob, json.loads(await body(opened))
        except ValueError as fault:
            raise _unreadable(opened.blob, fault) from None


def rendition_key(identifier: str, size: Size, access: Access) -> str:
    """Where a rendition is written."""
    return f"{identifier}/{access}/{size.long_side}.jpg"


def _older_keys(identifier: str, rendition: Rendition) -> tuple[str, ...]:
    """Where else a rendition may lie that the sizes file names."""
    legacy = f"{identifier}/full/{rendition.size}/0/default.jpg"
    return (f"{identifier}/authed/{rendition.size.long_side}.jpg", legacy) if rendition.access == "auth" else (legacy,)


def _kept(identifier: str, sizes: tuple[Blob, Sizes] | None, sidecar: tuple[Blob, Sidecar] | None) -> Kept:
    listed = sizes[1] if sizes else Sizes()
    limit = listed.max_unauthorised
    if sidecar:
        ours = sidecar[1]
        # Where the two differ somebody else wrote the sizes file, or a run of ours is between its two writes.
        limit = ours.max_unauthorised if ours.sizes == listed else _stricter(limit, ours.max_unauthorised)
    return Kept(
        listed.renditions(identifier),
        Rule(limit),
        sidecar[1] if sidecar else None,
        "".join(found[0].etag for found in (sizes, sidecar) if found),
    )


def _stricter(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _sizes(listed: object) -> tuple[Size, ...]:
    pairs = [] if listed is None else listed
    if not isinstance(pairs, list):
        raise ValueError(f"{pairs!r} should be a list of [width, height]")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(side) is int and side > 0 for side in pair)):
            raise ValueError(f"{pair!r} should be [width, height] in pixels")
    return _descending(Size(*pair) for pair in pairs)


def _descending(sizes: Iterable[Size]) -> tuple[Size, ...]:
    return tuple(sorted(set(sizes), key=lambda size: (size.long_side, size.area, size.width), reverse=True))


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _unreadable(blob: Blob, fault: Exception) -> Malformed:
    return Malformed(f"{blob.url} cannot be read: {fault}; `special derive --force` writes it anew")
