"""The renditions of many images in one source: found, read, published, removed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from special.concurrency import StoreSilence, TTLCache
from special.errors import Changed, Missing, Unreadable
from special.geometry import Size
from special.iiif import MEDIA, IdentifierForm
from special.images import OPEN, Access, Rendition, Rule, stricter
from special.renditions import pyramid_file
from special.renditions.addition import Addition
from special.renditions.sidecar import FOREIGN, SIDECAR_NAME, Sidecar
from special.renditions.sizes_file import SIZES_NAMES, SizesFile
from special.storage import Absent, Blob, NotModified, Opened, Source, Span, Unless, body

T = TypeVar("T")

SMALL_PIXELS = 512 * 512
"""Renditions up to this size are asked for most, and many fit into memory."""

_FOLDERS: dict[Access, tuple[str, ...]] = {"open": ("open",), "auth": ("auth", "authed")}
_FILE = re.compile(r"(\d+)\.(?:jpg|webp)", re.ASCII)
_LEGACY_FILE = re.compile(r"([1-9]\d{0,5}),([1-9]\d{0,5})/0/default\.jpg", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredRenditions:
    """What is stored of one image."""

    renditions: tuple[Rendition, ...]
    """Those that the sizes file names, largest first."""
    rule: Rule
    """What is restricted, as far as the store says."""
    sidecar: Sidecar | None
    """Ours; None in a bucket that only other tools have written to, and where it names other sizes than the file."""
    version: str
    """Changes whenever any of the above does: the entity tags of the files it was read from."""
    foreign: bool = False
    """Whether others wrote the sizes file and its files."""


@dataclass(frozen=True, slots=True)
class CachedRendition:
    """A small rendition in memory."""

    blob: Blob
    data: bytes


@dataclass(frozen=True, slots=True)
class _Read:
    """The two files as they were last read: their versions are compared when they are no longer believed."""

    sizes: tuple[Blob, SizesFile] | None
    sidecar: tuple[Blob, Sidecar] | None
    stored: StoredRenditions


class RenditionStore:
    """The renditions of many images, in one source.

    In a `silence` of the store, what is known of an open image is believed for longer: one that its files here
    do not restrict, and for which `is_open(identifier)` is true.
    """

    def __init__(
        self,
        source: Source,
        *,
        ttl_s: float = 60.0,
        missing_ttl_s: float = 2.0,
        cache_bytes: int = 0,
        silence: StoreSilence | None = None,
        is_open: Callable[[str], bool] = lambda identifier: True,
    ) -> None:
        self.source = source
        self._known: TTLCache[str, _Read] = TTLCache(
            self._look_up,
            ttl_s=ttl_s,
            missing_ttl_s=missing_ttl_s,
            silence=silence,
            stale_if=lambda name, read: (read is None or read.stored.rule == OPEN) and is_open(name),
        )
        self._small: TTLCache[tuple[str, Rendition], CachedRendition] = TTLCache(
            self._fetch,
            ttl_s=ttl_s,
            missing_ttl_s=missing_ttl_s,
            capacity=cache_bytes,
            weigh=lambda it: len(it.data),
            silence=silence,
            stale_if=lambda name, _: name[1].access == "open" and is_open(name[0]),
        )
        self._cache_bytes = cache_bytes

    async def find(self, identifier: str) -> StoredRenditions | None:
        """What is stored of an image; None if nothing is.

        Costs nothing while it is believed, then two conditional GETs at once. Raises `SourceError`, and
        `Unreadable` where a file is there and cannot be read: what it restricts is then unknown.
        """
        try:
            return (await self._known.get(identifier)).stored
        except Missing:
            return None

    def is_current(self, identifier: str, stored: StoredRenditions | None) -> bool:
        """Whether `find` would give this again without having to look."""
        read = self._known.peek(identifier)
        return read.stored is stored if read is not None else stored is None and self._known.is_missing(identifier)

    async def reload(self, identifier: str) -> StoredRenditions | None:
        """The same as it is now, whatever is remembered: two or three GETs."""
        try:
            return (await self._look_up(identifier, None)).stored
        except Missing:
            return None

    def peek_rendition(self, identifier: str, rendition: Rendition) -> CachedRendition | None:
        """A small rendition, if it is in memory and believed: nothing is waited for."""
        return self._small.peek((identifier, rendition))

    async def open_rendition(
        self, identifier: str, rendition: Rendition, *, span: Span | None = None, unless: Unless | None = None
    ) -> Opened:
        """Start reading a rendition: one GET, more only where it has an older site's key.

        A small one comes from memory while it is believed; then one conditional GET serves all requests for it.
        Raises what `Source.open` raises. One that is named and not there is `Missing`, and the image
        is looked up again when it is next asked for.
        """
        name = (identifier, rendition)
        if span is None and self._is_cached(rendition) and (unless is None or name in self._small):
            cached = await self._small.get(name)
            if unless is not None and unless.hold(cached.blob.etag, cached.blob.modified):
                raise NotModified(cached.blob.etag)
            return Opened(cached.blob, Span.whole(cached.blob) if cached.data else None, cached.data)
        return await self._first(identifier, rendition, partial(self.source.open, span=span, unless=unless))

    async def stat_rendition(self, identifier: str, rendition: Rendition) -> Blob:
        """The version of a rendition that is stored: one HEAD, else as `open_rendition`."""
        return await self._first(identifier, rendition, self.source.stat)

    def _is_cached(self, rendition: Rendition) -> bool:
        return self._cache_bytes > 0 and rendition.size.area <= SMALL_PIXELS

    async def _fetch(self, name: tuple[str, Rendition], previous: CachedRendition | None) -> CachedRendition:
        unless = Unless(previous.blob.etag) if previous else None
        try:
            opened = await self._first(*name, partial(self.source.open, unless=unless))
        except NotModified:
            assert previous is not None, "only a conditional read can find nothing new"
            return previous
        return CachedRendition(opened.blob, await body(opened))

    async def _first(self, identifier: str, rendition: Rendition, ask: Callable[[str], Awaitable[T]]) -> T:
        for key in (rendition.key, *_older_keys(identifier, rendition)):
            try:
                return await ask(key)
            except Missing:
                continue
        self.forget(identifier)
        raise Missing(f"{self.source.root}{rendition.key} is named by its sizes file and is not there")

    async def publish(self, identifier: str, sidecar: Sidecar) -> None:
        """Publish the sizes that a side-car names: two writes, the second of which is the commit.

        Every file that it names must be in its place, and none may be removed before. Between the two
        writes readers obey the stricter of the old rule and the new.
        """
        await self.write_sidecar(identifier, sidecar)
        await self.write_sizes_file(identifier, sidecar.sizes)

    async def add(self, addition: Addition) -> bool:
        """Store one rendition more; False where it cannot be added, or another process has just written.

        The file, the side-car, then the sizes file, each only if it is as it was when it was read: another
        writer wins. Costs two or three GETs, and three writes.
        """
        identifier = addition.identifier
        try:
            read = await self._look_up(identifier, None)
        except Missing:
            read = None
        if read:
            addition = replace(addition, limit=stricter(addition.limit, read.stored.rule.max_unauthorised))
        rendition = addition.rendition
        ours = addition.beside(read.stored.sidecar if read else None)
        if ours is None or (read and read.stored.sidecar is None):
            return False
        sizes_key, sidecar_key, media = (
            f"{identifier}/{SIZES_NAMES[0]}",
            f"{identifier}/{SIDECAR_NAME}",
            "application/json",
        )
        try:
            await self.source.write(rendition.key, addition.data, media=MEDIA[rendition.format], pin=Absent())
        except Changed:
            return False
        try:
            pin = read.sidecar[0] if read and read.sidecar else Absent()
            sidecar = await self.source.write(sidecar_key, ours.dump(), media=media, pin=pin)
            pin = read.sizes[0] if read and read.sizes else Absent()
            sizes = await self.source.write(sizes_key, ours.sizes.dump(), media=media, pin=pin)
        except Changed:
            await self._clear(rendition, addition)
            return False
        found = (sizes, ours.sizes), (sidecar, ours)
        self._known.put(identifier, _Read(*found, _joined(identifier, *found)))
        return True

    async def _clear(self, rendition: Rendition, addition: Addition) -> None:
        """Remove a file that must not be open by now. Any other does no harm until it is pruned."""
        self.forget(addition.identifier)
        stored = await self.reload(addition.identifier)
        limit = stored.rule.max_unauthorised if stored else None
        if rendition.access == "open" and limit is not None and rendition.size.long_side > limit:
            await self.source.delete(rendition.key)

    async def write_sizes_file(self, identifier: str, sizes: SizesFile) -> None:
        """Write the sizes file alone, for renditions of which no version of a master is known."""
        await self.source.write(f"{identifier}/{SIZES_NAMES[0]}", sizes.dump(), media="application/json")
        self.forget(identifier)

    async def write_sidecar(self, identifier: str, sidecar: Sidecar) -> None:
        """Write the side-car alone, where the sizes file stays as it is."""
        await self.source.write(f"{identifier}/{SIDECAR_NAME}", sidecar.dump(), media="application/json")
        self.forget(identifier)

    async def list_files(self, identifier: str, access: Access) -> list[tuple[str, int]]:
        """Keys and long sides of the rendition files in an image's folders, named or not; one or two lists."""
        found: list[tuple[str, int]] = []
        for folder in _FOLDERS[access]:
            prefix = f"{identifier}/{folder}/"
            async for blob in self.source.list(prefix):
                match = _FILE.fullmatch(blob.key[len(prefix) :])
                if match:
                    found.append((blob.key, int(match[1])))
        return found

    async def list_pyramids(self, identifier: str) -> list[str]:
        """Keys of an image's published pyramids, of whatever version; two lists."""
        found: list[str] = []
        for prefix in pyramid_file.prefixes(identifier):
            found += [it.key async for it in self.source.list(prefix) if pyramid_file.is_pyramid(identifier, it.key)]
        return found

    async def list_pages(self, image: str, form: IdentifierForm) -> list[str]:
        """Identifiers of those pages of an image, behind the first, of which anything is stored; one list."""
        found: dict[str, None] = {}
        prefix = f"{image};"
        async for blob in self.source.list(prefix):
            page = prefix + blob.key[len(prefix) :].partition("/")[0]
            if form.split(page)[0] == image:
                found[page] = None
        return list(found)

    async def legacy(self, identifier: str) -> list[tuple[str, Size]]:
        """Keys and sizes of the files that an older site left, largest first; one list."""
        prefix = f"{identifier}/full/"
        found: list[tuple[str, Size]] = []
        async for blob in self.source.list(prefix):
            match = _LEGACY_FILE.fullmatch(blob.key[len(prefix) :])
            if match:
                found.append((blob.key, Size(int(match[1]), int(match[2]))))
        return sorted(found, key=lambda it: (it[1].long_side, it[1].area), reverse=True)

    async def remove(self, identifier: str, *, leaving: Sidecar | None = None) -> int:
        """Remove all that is stored of an image, except legacy files; returns the number of renditions.

        The sizes file goes first and the side-car last, so that its rule holds as long as there is a file.
        `leaving` takes its place.
        """
        for name in SIZES_NAMES:
            await self.source.delete(f"{identifier}/{name}")
        files = [key for access in _FOLDERS for key, _ in await self.list_files(identifier, access)]
        for key in [*files, *await self.list_pyramids(identifier)]:
            await self.source.delete(key)
        if leaving is not None:
            await self.write_sidecar(identifier, leaving)
        else:
            await self.source.delete(f"{identifier}/{SIDECAR_NAME}")
        self.forget(identifier)
        return len(files)

    def purge(self, identifier: str) -> None:
        """Forget all that is in memory of an image, pictures included."""
        self.forget(identifier)
        self._small.forget_all(lambda name: name[0] == identifier)

    def forget(self, identifier: str) -> None:
        self._known.forget(identifier)

    async def close(self) -> None:
        """Cancel the look-ups that are under way and close the source."""
        await self._known.close()
        await self._small.close()
        await self.source.close()

    async def _look_up(self, identifier: str, previous: _Read | None) -> _Read:
        sizes, sidecar = await asyncio.gather(
            self._read_sizes(identifier, previous.sizes if previous else None),
            self._read_sidecar(identifier, previous.sidecar if previous else None),
        )
        if sizes is None and sidecar is None:
            raise Missing(f"{self.source.root}{identifier}/ has no sizes file and no side-car")
        return _Read(sizes, sidecar, _joined(identifier, sizes, sidecar))

    async def _read_sizes(
        self, identifier: str, previous: tuple[Blob, SizesFile] | None
    ) -> tuple[Blob, SizesFile] | None:
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
                return blob, SizesFile.load(document)
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


def _older_keys(identifier: str, rendition: Rendition) -> tuple[str, ...]:
    """The other keys that a rendition may have which the sizes file names."""
    if rendition.format != "jpg":
        return ()
    legacy = f"{identifier}/full/{rendition.size}/0/default.jpg"
    return (f"{identifier}/authed/{rendition.size.long_side}.jpg", legacy) if rendition.access == "auth" else (legacy,)


def _joined(
    identifier: str, sizes: tuple[Blob, SizesFile] | None, sidecar: tuple[Blob, Sidecar] | None
) -> StoredRenditions:
    sizes_file, ours = sizes[1] if sizes else SizesFile(), sidecar[1] if sidecar else None
    limit = sizes_file.max_unauthorised
    agreed = sizes is None or (ours is not None and ours.sizes == sizes_file)
    if ours and (agreed or ours.encoding != FOREIGN):
        # Where they differ another tool wrote the sizes file, or a run of ours is between its two writes.
        limit = ours.max_unauthorised if agreed else stricter(limit, ours.max_unauthorised)
    return StoredRenditions(
        sizes_file.renditions(identifier),
        Rule(limit),
        ours if agreed else None,
        "".join(found[0].etag for found in (sizes, sidecar) if found),
        foreign=_is_foreign(ours, sizes_file, agreed=agreed),
    )


def _is_foreign(sidecar: Sidecar | None, listed: SizesFile, *, agreed: bool) -> bool:
    """Whether others wrote the sizes file; one of theirs may have a side-car of ours, which `derive --index` wrote."""
    if sidecar is not None and sidecar.encoding == FOREIGN:
        return True
    return not agreed and not (sidecar is not None and _is_unfinished(sidecar, listed))


def _is_unfinished(sidecar: Sidecar, listed: SizesFile) -> bool:
    """Whether a side-car names other sizes than the sizes file because our process ended between its two writes.

    `derive` marks such a side-car as not settled; a server that adds one rendition does not, but changes nothing else.
    """
    before, after = (set(listed.renditions("")), set(sidecar.sizes.renditions("")))
    return not sidecar.settled or (before < after and len(after - before) == 1)


def _unreadable(blob: Blob, fault: Exception) -> Unreadable:
    return Unreadable(f"{blob.url} cannot be read: {fault}; `special derive --force` writes it again")
