"""The kind `s3`: the identifier is the address of the master itself, `s3://bucket/key` or `s3://region/bucket/key`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from special.catalogue.entry import Entry
from special.errors import Outside
from special.storage import Sources

_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d")


class BucketIdentifierKind:
    """Knows every identifier that is an address below a source. Any client may name any master there."""

    name = "s3"

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        scheme, _, path = identifier.partition(":")
        if scheme != "s3":
            return None
        path = path.lstrip("/")
        first, _, rest = path.partition("/")
        for place in (path, rest) if _REGION.fullmatch(first) else (path,):
            try:
                return Entry((self._sources.resolve(f"s3://{place}"),))
            except Outside:
                continue
        return None

    def identifiers(self, after: str = "") -> AsyncIterator[str] | None:
        return None

    async def identifiers_of(self, place: str) -> Sequence[str]:
        return [f"s3:/{place.removeprefix('s3://')}"] if place.startswith("s3://") else []

    async def close(self) -> None:
        """Nothing is open."""
