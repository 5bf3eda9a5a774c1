"""From identifier to master: its key, its pinned version, its layout.

The first look costs one GET of the object's head, which tells version, size and format at once;
more only where the headers lie elsewhere. After that a master is believed for a while, then asked after with
If-None-Match. What one server found out it notes in the volume: whoever comes to know of the master later, in another
process or after a restart, asks only whether that version still stands. A side-car that `derive` wrote saves even
that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from weakref import WeakValueDictionary

from special import formats
from special.concurrency import LRUCache, TTLCache
from special.errors import Changed, Denied, Malformed, MasterError, Missing
from special.formats import Layout, drive
from special.geometry import Box, Size
from special.storage import Blob, Chunk, NotModified, Opened, Reader, Source, Span, Unless, body
from special.volume import MetadataStore, StoredMetadata

log = logging.getLogger(__name__)

HEAD_BYTES = 65536
"""How much of an object is read to learn what it is: most headers and all small indexes fit."""
CHUNK_BYTES = 2048
"""The least that a later read takes: parsers know how much they want."""
FRESH_HEADS = 64
"""Masters whose first bytes are kept until somebody asks for their pixels: mostly at once."""
GROWN_LAYOUTS = 256
"""Masters whose large indexes are kept in memory, the last ones that grew; some hundred KB each at the most."""


@dataclass(frozen=True, slots=True)
class Master:
    """One version of one master."""

    blob: Blob
    layout: Layout


class Masters:
    """Finds masters in one source by key templates; remembers them, and notes what it found where there are `notes`."""

    def __init__(
        self,
        source: Source,
        *,
        keys: Sequence[str] = ("{id}",),
        ttl_s: float = 60.0,
        max_gap_bytes: int = 65536,
        notes: MetadataStore | None = None,
    ) -> None:
        self.source = source
        self._notes = notes
        self._keys = tuple(keys)
        self._max_gap_bytes = max_gap_bytes
        self._known: TTLCache[str, Master] = TTLCache(self._look_up, ttl_s=ttl_s)
        self._heads: LRUCache[Blob, list[Chunk]] = LRUCache(FRESH_HEADS)
        self._grown: LRUCache[Blob, Layout] = LRUCache(GROWN_LAYOUTS)
        self._growing: WeakValueDictionary[Blob, asyncio.Lock] = WeakValueDictionary()

    async def find(self, identifier: str) -> Master:
        """The master of an identifier. Raises `Missing`, `MasterError` or another `SourceError`.

        Costs nothing while it is believed, one conditional GET of the head after that.
        """
        return await self._known.get(identifier)

    def peek(self, identifier: str) -> Master | None:
        """The master of an identifier, if it is believed: nothing is waited for."""
        return self._known.peek(identifier)

    def contains(self, identifier: str) -> bool:
        """Whether the master has been looked at already, or learned of, however long ago."""
        return identifier in self._known

    def put(self, identifier: str, master: Master) -> None:
        """Believe a side-car."""
        self._known.put(identifier, master)

    def forget(self, identifier: str, master: Master) -> None:
        """A master turned out to be another version by now: look again, unless somebody has done so already."""
        if self._known.peek(identifier) is master:
            self._known.forget(identifier)

    def pop_head(self, blob: Blob) -> list[Chunk]:
        """What was read to learn what a master is, for the first who asks for its pixels; nothing after that."""
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
            if missing is None:  # somebody else has just read it
                return layout
            layout = await drive(missing, reader, master.blob, first_bytes=0, chunk_bytes=0, seen=seen)
            self.put_layout(master.blob, layout)
        return layout

    def put_layout(self, blob: Blob, layout: Layout) -> None:
        """Remember what has been found out about a master beyond its headers."""
        self._grown.put(blob, layout)
        self._note(blob, layout)

    async def close(self) -> None:
        """Cancel the look-ups that are under way."""
        await self._known.close()

    async def _look_up(self, identifier: str, previous: Master | None) -> Master:
        known = previous or await self._noted(identifier)
        try:
            opened = await self._open(identifier, Unless(known.blob.etag) if known else None)
        except NotModified:
            assert known is not None, "only a conditional read can find nothing new"
            return known
        head = await body(opened)
        try:
            return Master(opened.blob, await self._parse(opened.blob, head))
        except Changed:
            # Overwritten between the first read and the next: once more, from its new start.
            opened = await self._open(identifier, None)
            return Master(opened.blob, await self._parse(opened.blob, await body(opened)))

    async def _open(self, identifier: str, unless: Unless | None) -> Opened:
        denied: Denied | None = None
        for key in self._keys_of(identifier):
            try:
                return await self.source.open(key, span=Span(0, HEAD_BYTES), unless=unless)
            except Missing:
                continue
            except Denied as error:  # S3 denies what is not there, where we may not list
                denied = error
        if denied is not None:
            raise denied
        raise Missing(f"{self.source.root} has no object for '{identifier}' by the keys {', '.join(self._keys)}")

    def _keys_of(self, identifier: str) -> list[str]:
        """Where its master may lie, in the order in which that is tried."""
        return [template.replace("{id}", identifier) for template in self._keys]

    async def _noted(self, identifier: str) -> Master | None:
        """What somebody noted of the master, whether or not that version still stands."""
        if self._notes is None:
            return None
        noted = await self._notes.get([self.source.root + key for key in self._keys_of(identifier)])
        return await asyncio.to_thread(_master, noted, self.source.root) if noted is not None else None

    def _note(self, blob: Blob, layout: Layout) -> None:
        if self._notes is not None:
            self._notes.put(blob, partial(_text, blob, layout))

    async def _parse(self, blob: Blob, head: bytes) -> Layout:
        if not head:
            raise Malformed(f"{blob.url} is empty")
        seen = [(Span(0, len(head)), head)]
        layout = await drive(
            formats.parse(blob.size),
            self.source,
            blob,
            chunk_bytes=CHUNK_BYTES,
            max_gap_bytes=self._max_gap_bytes,
            seen=seen,
        )
        self._heads.put(blob, seen)
        self._note(blob, layout)
        return layout


def _text(blob: Blob, layout: Layout) -> bytes:
    """What is noted of a master: a line of what the store said of it, and its layout's serial form."""
    modified = blob.modified.isoformat() if blob.modified else None
    return json.dumps({"media": blob.media, "modified": modified}).encode() + b"\n" + layout.dump()


def _master(noted: StoredMetadata, root: str) -> Master | None:
    """What was noted; None where another version of this program wrote it in another form."""
    line, _, dump = noted.text.partition(b"\n")
    try:
        facts, layout = json.loads(line), formats.load(dump)
        modified = datetime.fromisoformat(facts["modified"]) if facts["modified"] else None
        blob = Blob(root, noted.url.removeprefix(root), noted.etag, noted.size_bytes, facts["media"], modified)
    except (MasterError, ValueError, KeyError, TypeError) as fault:
        log.info("what was noted of %s is of no use: %s", noted.url, fault)
        return None
    return Master(blob, layout)
