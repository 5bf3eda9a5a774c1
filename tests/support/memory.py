"""A source in a dictionary that records what is asked of it: the fake of every room that is handed a `Source`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from special.errors import Changed, Missing
from special.storage.blob import Absent, Blob, NotModified, Span, Suffix, Unless
from special.storage.checks import clip
from special.storage.source import Opened

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class MemorySource:
    """Objects by key. `calls` holds one tuple per request: its verb, its key and, for bytes, the spans."""

    objects: dict[str, bytes] = field(default_factory=dict)
    root: str = "memory://fake/"
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def verbs(self, verb: str) -> list[object]:
        """The keys that were asked for with one verb, in order."""
        return [call[1] for call in self.calls if call[0] == verb]

    def blob(self, key: str) -> Blob:
        """The current version of an object; not recorded."""
        if key not in self.objects:
            raise Missing(f"{self.root}{key} is not there")
        data = self.objects[key]
        return Blob(
            self.root, key, f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"', len(data), None, WRITTEN
        )

    async def stat(self, key: str) -> Blob:
        self.calls.append(("stat", key))
        return self.blob(key)

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        self.calls.append(("read", blob.key, tuple(spans)))
        self._check(blob)
        return [self.objects[blob.key][span.start : span.stop] for span in spans]

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        self.calls.append(("open", key))
        blob = self.blob(key)
        if pin:
            self._check(pin)
        if unless and unless.etag == blob.etag:
            raise NotModified
        sent = Span(*clip(span, blob.size)) if blob.size else None
        data = self.objects[key][sent.start : sent.stop] if sent else b""

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield data

        return Opened(blob, sent, chunks())

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        self.calls.append(("write", key))
        if isinstance(pin, Blob):
            self._check(pin)
        elif pin and key in self.objects:
            raise Changed(f"{self.root}{key} is there")
        self.objects[key] = bytes(data)
        return self.blob(key)

    async def signed_url(self, key: str) -> str | None:
        return None

    async def delete(self, key: str) -> None:
        self.calls.append(("delete", key))
        self.objects.pop(key, None)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        self.calls.append(("list", prefix))
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield self.blob(key)

    async def close(self) -> None:
        self.calls.append(("close", ""))

    def _check(self, pin: Blob) -> None:
        if self.blob(pin.key).etag != pin.etag:
            raise Changed(f"{pin.url} is another version")
