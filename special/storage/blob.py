"""One version of one object, and byte spans of it.

Everything that special reads from a store is a `Span` of a `Blob`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Blob:
    """One version of one stored object."""

    root: str
    """URL of the source it lives in, ending in a slash: `s3://bucket/prefix/`."""
    key: str
    """The object's key below the root."""
    etag: str
    """The store's entity tag, with its quotes, as RFC 9110 section 8.8.3 writes it."""
    size: int
    media: str | None = None
    """The media type that the store names, if it names one. A hint only: content decides."""
    modified: datetime | None = None
    """When the store says it was last written; aware, in UTC."""
    page: int = 1
    """Which of the pictures in it is meant, where it has several. Its bytes are the same."""

    @property
    def url(self) -> str:
        """Root and key: what names this object everywhere, of whatever version."""
        return self.root + self.key

    @property
    def version(self) -> str:
        """Names this version of this object everywhere: the key of caches, of the volume and of the quarantine.

        No two versions share one, and no two pages: the size has no space, and an entity tag has no quote inside.
        """
        version = f"{self.root}{self.key} {self.etag} {self.size}"
        return version if self.page == 1 else f"{version} {self.page}"

    @property
    def picture_tag(self) -> str:
        """The entity tag, with the page."""
        return self.etag if self.page == 1 else f"{self.etag};{self.page}"


@dataclass(frozen=True, slots=True)
class Absent:
    """In place of a pinned version: nothing may be stored there yet."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The bytes `start <= offset < stop` of an object. Never empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a span needs 0 <= start < stop, not {self.start}–{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    @classmethod
    def at(cls, start: int, length: int) -> Span:
        return cls(start, start + length)

    @classmethod
    def whole(cls, blob: Blob) -> Span:
        """All of a blob that is not empty."""
        return cls(0, blob.size)

    def covers(self, other: Span) -> bool:
        """Whether the other is inside this one."""
        return self.start <= other.start and other.stop <= self.stop


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last bytes of an object whose size is not known yet (RFC 9110 section 14.1.2); all of a shorter one."""

    size_bytes: int
    """How many; at least 1."""

    def __len__(self) -> int:
        return self.size_bytes


Chunk = tuple[Span, bytes]
"""Bytes that were read, and their place in the blob."""


class NotModified(Exception):
    """The object is still the version that the caller has. Carries no body."""

    def __init__(self, etag: str | None = None) -> None:
        super().__init__()
        self.etag = etag
        """The version's tag, where the store gave it."""


@dataclass(frozen=True, slots=True)
class Unless:
    """Conditions under which a body is not wanted: they are passed on to the store."""

    etag: str | None = None
    """Value for If-None-Match, a list or `*` included."""
    since: datetime | None = None
    """Value for If-Modified-Since."""

    @property
    def only_etag(self) -> str | None:
        """The one tag that is named: if the condition holds, it is the current version's."""
        tags = _TAG.findall(self.etag or "")
        return tags[0] if len(tags) == 1 else None

    def hold(self, etag: str, modified: datetime | None = None) -> bool:
        """Whether the caller has this version already (RFC 9110 sections 13.1.2 and 13.1.3).

        Tags compare weakly. A time counts only where no tag is given, and in whole seconds, as HTTP dates do.
        """
        if self.etag is not None:
            return self.etag.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(self.etag)
        return self.since is not None and modified is not None and modified.replace(microsecond=0) <= self.since
