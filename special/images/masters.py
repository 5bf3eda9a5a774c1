"""From identifier to master: its key, its pinned version, its layout.

The first look-up costs one GET of the object's head, which tells version, size and format at once; more only where the
headers are elsewhere in the object. Those of many a TIFF are at its end: where the last master with such a name had use
for its tail, that is asked for beside the head. After that a master is believed for a while, then asked for with
If-None-Match. What one server found out is kept in the volume as well: another process, or this one after a restart,
then asks only whether that version is still the current one. A side-car that `derive` wrote saves even that.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from special import formats
from special.concurrency import LRUCache, StoreSilence, TTLCache
from special.errors import Changed, Malformed, MasterError, Missing, SourceError
from special.formats import PDF_DPI, Layout, PageIndex, drive
from special.geometry import Box, Size
from special.images.key_templates import KeyTemplates
from special.images.tail_reads import TAIL_BYTES, TailReads
from special.storage import Blob, Chunk, NotModified, Reader, Source, Span, Suffix, Unless, body
from special.volume import MetadataStore, StoredMetadata

log = logging.getLogger(__name__)

HEAD_BYTES = 65536
"""How much of an object is read to learn what it is: most headers and all small indexes fit."""
CHUNK_BYTES = 2048
"""The least that a later read takes: parsers know how much they want."""
MAX_HEADS = 64
"""Masters whose first bytes are kept for the request that looked them up: it mostly asks for pixels next."""
MAX_INCOMPLETE = 1000
"""Masters of which it is remembered that their files end early."""
MAX_PAGE_INDEXES = 64
"""Masters of which it is remembered where their pages are, as far as they were looked for."""
MAX_GROWN_LAYOUTS = 256
"""Masters whose large indexes are kept in memory, the last ones that grew; some hundred KB each at the most."""


@dataclass(frozen=True, slots=True)
class Master:
    """One version of one master."""

    blob: Blob
    layout: Layout


@dataclass(frozen=True, slots=True)
class _Refused:
    """A version of a master that cannot be shown."""

    blob: Blob
    error: MasterError


class Locator(Protocol):
    """Says where masters are, in place of key templates. Its keys are URLs."""

    async def places(self, identifier: str) -> Sequence[str]:
        """The URLs that an image's master may have; the first that exists is it."""
        ...

    async def page_of(self, identifier: str) -> int:
        """Which page of its master an image is."""
        ...

    def root_of(self, key: str) -> str:
        """The root of the source that has a URL; of a mere key, that of the default source."""
        ...


class Masters:
    """Finds masters by key templates, or by a `locator`; remembers them, in `metadata` beyond this process.

    In a `silence` of the store, masters for which `is_open(identifier)` is true are believed for longer.
    """

    def __init__(
        self,
        source: Source,
        *,
        templates: KeyTemplates = KeyTemplates(),  # noqa: B008 - immutable
        ttl_s: float = 60.0,
        silence: StoreSilence | None = None,
        is_open: Callable[[str], bool] = lambda identifier: True,
        max_gap_bytes: int = 65536,
        pdf_dpi: int = PDF_DPI,
        metadata: MetadataStore | None = None,
        locator: Locator | None = None,
    ) -> None:
        """A `source` that a `locator` goes with has URLs as its keys."""
        self.source = source
        self._locator = locator
        self._metadata = metadata
        self.templates = templates
        self._max_gap_bytes = max_gap_bytes
        self._pdf_dpi = pdf_dpi
        self._known: TTLCache[str, Master | _Refused] = TTLCache(
            self._look_up, ttl_s=ttl_s, silence=silence, stale_if=lambda identifier, _: is_open(identifier)
        )
        self._heads: LRUCache[Blob, list[Chunk]] = LRUCache(MAX_HEADS)
        self._grown: LRUCache[Blob, Layout] = LRUCache(MAX_GROWN_LAYOUTS)
        self._incomplete: LRUCache[Blob, str] = LRUCache(MAX_INCOMPLETE)
        self._tail_reads = TailReads()
        self._pages: LRUCache[Blob, PageIndex] = LRUCache(MAX_PAGE_INDEXES)
        self._growing: WeakValueDictionary[Blob, asyncio.Lock] = WeakValueDictionary()

    async def find(self, identifier: str) -> Master:
        """The master of an identifier. Raises `Missing`, `MasterError` or another `SourceError`.

        Costs nothing while it is believed, one conditional GET of the head after that. So does a master that cannot
        be shown: parsing it again, which may take a second, would give the same error.
        """
        found = await self._known.get(identifier)
        if isinstance(found, _Refused):
            raise copy.copy(found.error)
        return found

    def root_of(self, key: str) -> str:
        """The root of the source that a side-car's key is below."""
        return self._locator.root_of(key) if self._locator is not None else self.source.root

    def peek(self, identifier: str) -> Master | None:
        """The master of an identifier, if it is believed: nothing is waited for."""
        found = self._known.peek(identifier)
        return found if isinstance(found, Master) else None

    def contains(self, identifier: str) -> bool:
        """Whether the master has been looked up or put, however long ago; not while it cannot be shown."""
        return identifier in self._known and not isinstance(self._known.peek(identifier), _Refused)

    def put(self, identifier: str, master: Master) -> None:
        self._known.put(identifier, master)

    def forget(self, identifier: str, master: Master) -> None:
        """A master turned out to be another version by now: look it up again, unless that has been done since."""
        self._known.forget_value(identifier, master)

    def purge(self, identifier: str) -> None:
        """Forget all that is in memory of a master and its pages."""
        image, _ = self.templates.form.split(identifier)
        for name in [name for name in self._known if self.templates.form.split(name)[0] == image]:
            found = self._known.peek(name)
            self._known.forget(name)
            if found is not None:
                self._heads.pop(found.blob)
                self._grown.pop(found.blob)
                self._pages.pop(replace(found.blob, page=1))

    async def page_of(self, identifier: str) -> int:
        """Which page of its master an image is. Raises as a `Locator` does."""
        if self._locator is not None:
            return await self._locator.page_of(identifier)
        return self.templates.form.split(identifier)[1]

    async def urls(self, identifier: str) -> list[str]:
        """The URLs that an image's master may have. Raises as a `Locator` does."""
        return [self.source.root + key for key in await self._keys(identifier)]

    def pop_head(self, blob: Blob) -> list[Chunk]:
        """What was read to learn what a master is, for the first request for its pixels; nothing after that."""
        return self._heads.pop(blob) or []

    def peek_prepared(self, master: Master, box: Box, size: Size) -> Layout | None:
        """The layout that `prepared` gives, where it need not read for it; None where it must."""
        layout = self._grown.get(master.blob) or master.layout
        return layout if layout.prepare(box, size) is None else None

    async def prepared(
        self, master: Master, box: Box, size: Size, reader: Reader, *, seen: list[Chunk] | None = None
    ) -> Layout:
        """The master's layout with all that the plan for a box needs to know of large indexes.

        Each part of an index is read once, through `reader`, and kept; its bytes are added to `seen`, from which
        nothing is read again. Raises `Malformed`, `SourceError`.
        """
        ready = self.peek_prepared(master, box, size)
        if ready is not None:
            return ready
        async with self._growing.setdefault(master.blob, asyncio.Lock()):
            layout = self._grown.get(master.blob) or master.layout
            missing = layout.prepare(box, size)
            if missing is None:  # another request has just read it
                return layout
            layout = await drive(missing, reader, master.blob, first_bytes=0, chunk_bytes=0, seen=seen)
            self.put_layout(master.blob, layout)
        return layout

    def put_layout(self, blob: Blob, layout: Layout) -> None:
        """Remember what has been found out about a master beyond its headers."""
        self._grown.put(blob, layout)
        self._store(blob, layout)

    def put_incomplete(self, blob: Blob, why: str) -> None:
        """Remember that not all of a master's picture is in its file."""
        if self._incomplete.get(blob) is None:
            log.warning("%s is shown in part: %s", blob.url, why)
        self._incomplete.put(blob, why)

    def incomplete(self, blob: Blob) -> str:
        """Why not all of a master's picture is in its file, as far as its pixels were read; empty where all is."""
        return self._incomplete.get(blob) or ""

    async def close(self) -> None:
        await self._known.close()

    async def _look_up(self, identifier: str, previous: Master | _Refused | None) -> Master | _Refused:
        keys, page = await self._keys(identifier), await self.page_of(identifier)
        if (
            previous is not None
            and self._locator is not None
            and (previous.blob.url not in keys or previous.blob.page != page)
        ):
            previous = None  # the image has another master by now
        known = previous or await self._stored(keys, page)
        try:
            look = await self._open(identifier, keys, Unless(known.blob.etag) if known else None)
        except NotModified:
            assert known is not None, "only a conditional read can find nothing new"
            return known
        try:
            return await self._read(*look, page)
        except Changed:
            # Overwritten between the first read and the next: read it again from its new start.
            return await self._read(*await self._open(identifier, keys, None), page)

    async def _keys(self, identifier: str) -> Sequence[str]:
        if self._locator is not None:
            return await self._locator.places(identifier)
        return self.templates.keys_of(identifier)

    async def _open(self, identifier: str, keys: Sequence[str], unless: Unless | None) -> tuple[Blob, list[Chunk]]:
        """The first of the objects that exists: its head, and its tail where that is of use and the same version's."""
        for key in keys:
            try:
                return await self._look(key, unless)
            except Missing:
                continue
        if self._locator is None:
            raise Missing(f"{self.source.root} has no object for '{identifier}' by the keys {self.templates}")
        raise Missing(f"there is no object for '{identifier}' at {', '.join(keys) or 'any place'}")

    async def _look(self, key: str, unless: Unless | None) -> tuple[Blob, list[Chunk]]:
        if unless is None and self._tail_reads.is_useful(key):
            # Both are waited for, whatever the head says: so a look-up costs the same every time.
            found, tail = await asyncio.gather(self._head(key, None), self._tail(key), return_exceptions=True)
            if isinstance(found, BaseException):
                raise found
            if isinstance(tail, BaseException):
                raise tail
        else:
            found, tail = await self._head(key, unless), None
        blob, head = found
        self._tail_reads.record(key, head, blob.size)
        seen = [(Span(0, len(head)), head)] if head else []
        if tail is not None and tail[0].version == blob.version:
            seen.append(tail[1])
        return blob, seen

    async def _head(self, key: str, unless: Unless | None) -> tuple[Blob, bytes]:
        opened = await self.source.open(key, span=Span(0, HEAD_BYTES), unless=unless)
        return opened.blob, await body(opened)

    async def _tail(self, key: str) -> tuple[Blob, Chunk] | None:
        """The last bytes of an object; None where the store does not give them: they can be read by their place."""
        try:
            opened = await self.source.open(key, span=Suffix(TAIL_BYTES))
            data = await body(opened)
        except SourceError:
            return None
        return (opened.blob, (opened.span, data)) if opened.span is not None else None

    async def _read(self, blob: Blob, seen: list[Chunk], page: int) -> Master | _Refused:
        blob = replace(blob, page=page)
        try:
            return Master(blob, await self._parse(blob, seen))
        except MasterError as error:
            return _Refused(blob, copy.copy(error))  # without the traceback, which holds on to all that was read

    async def _parse(self, blob: Blob, seen: list[Chunk]) -> Layout:
        if not seen:
            raise Malformed("the file is empty: 0 bytes")
        index = None
        if blob.page > 1:
            first = replace(blob, page=1)
            index = self._pages.get(first) or PageIndex()
            self._pages.put(first, index)
        layout = await drive(
            formats.parse(
                blob.size,
                blob.page,
                index,
                tail_bytes=sum(len(span) for span, _ in seen[1:]),
                pdf_dpi=self._pdf_dpi,
            ),
            self.source,
            blob,
            chunk_bytes=CHUNK_BYTES,
            max_gap_bytes=self._max_gap_bytes,
            seen=seen,
        )
        self._heads.put(blob, seen)
        self._store(blob, layout)
        return layout

    async def _stored(self, keys: Sequence[str], page: int) -> Master | None:
        """The master as the volume's metadata has it, whether or not that is still the current version."""
        if self._metadata is None:
            return None
        stored = await self._metadata.get([self.source.root + key for key in keys], page)
        if stored is None:
            return None
        master = await asyncio.to_thread(_load, stored, self.root_of(stored.url), page)
        if master is not None and master.layout.format == "pdf" and master.layout.density != self._pdf_dpi:
            return None  # the setting was another
        return master

    def _store(self, blob: Blob, layout: Layout) -> None:
        if self._metadata is not None:
            self._metadata.put(blob, partial(_dump, blob, layout))


def _dump(blob: Blob, layout: Layout) -> bytes:
    """A line of what the store said of the master, and its layout's serial form."""
    modified = blob.modified.isoformat() if blob.modified else None
    return json.dumps({"media": blob.media, "modified": modified}).encode() + b"\n" + layout.dump()


def _load(stored: StoredMetadata, root: str, page: int) -> Master | None:
    """The master of a dump; None where another version of this program wrote it in another form."""
    line, _, dump = stored.text.partition(b"\n")
    try:
        facts, layout = json.loads(line), formats.load(dump)
        modified = datetime.fromisoformat(facts["modified"]) if facts["modified"] else None
        key = stored.url.removeprefix(root)
        blob = Blob(root, key, stored.etag, stored.size_bytes, facts["media"], modified, page)
    except (MasterError, ValueError, KeyError, TypeError) as fault:
        log.info("the volume's metadata of %s cannot be used: %s", stored.url, fault)
        return None
    return Master(blob, layout)
