"""Several folders and buckets as one source, whose keys are URLs: a collection is rarely in one place.

What is below none of them has no address: a client that can name a URL reaches no more than the operator listed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from special.errors import ConfigurationError, Outside
from special.storage.blob import Absent, Blob, Span, Suffix, Unless
from special.storage.bucket import Bucket
from special.storage.local import Folder
from special.storage.opening import folder_path
from special.storage.source import Opened, Source


def with_endpoint(*sources: Source) -> Callable[[str], str]:
    """Puts the store's endpoint before a URL, where it has one of its own: two stores may have a bucket of one name."""
    members = [it for source in sources for it in (source.members if isinstance(source, Sources) else (source,))]
    endpoints = {it.root: it.endpoint if isinstance(it, Bucket) else "" for it in members}
    longest_first = sorted(endpoints, key=len, reverse=True)

    def named(url: str) -> str:
        endpoint = next((endpoints[root] for root in longest_first if url.startswith(root)), "")
        return f"{endpoint} {url}" if endpoint else url

    return named


class Sources:
    """A `Source` over others. Its keys are URLs; its blobs are those of the source that has them, root included."""

    def __init__(self, members: Sequence[Folder | Bucket]) -> None:
        """The first of `members` is the default one. Raises `ConfigurationError` where two are the same place."""
        self.members = tuple(members)
        self._by_root = {it.root: it for it in members}
        self._longest_first = sorted(self._by_root, key=len, reverse=True)
        if len(self._by_root) < len(self.members):
            raise ConfigurationError("two of the sources are the same place: name each once")

    @property
    def root(self) -> str:
        return ""

    @property
    def folders(self) -> frozenset[str]:
        """The roots of those that are folders of this machine."""
        return frozenset(it.root for it in self.members if isinstance(it, Folder))

    def resolve(self, place: str) -> str:
        """The one URL of a place that a catalogue names: a URL below a source, or a path in a folder.

        What is relative is below the default source. Raises `Outside` for a place that is below none of them.
        """
        scheme, separator, rest = place.partition("://")
        if place.startswith("/") or (separator and scheme.lower() == "file"):
            url = self._file_url(place)
        elif separator:
            url = f"{scheme.lower()}://{rest}"
        else:
            url = self.members[0].root + place
        key = url[len(self.root_of(url)) :]
        if not key or any(segment in (".", "..") for segment in key.split("/")):
            raise Outside(f"'{place}' names no object")
        return url

    def spellings(self, url: str) -> tuple[str, ...]:
        """What a catalogue may call the place of a URL: itself, and its key where it is below the default source."""
        default = self.members[0].root
        return (url, url.removeprefix(default)) if url.startswith(default) else (url,)

    def places_of(self, key: str) -> list[str]:
        """The place of a key in each source, the default one first."""
        return [f"{it.path}/{key}" if isinstance(it, Folder) else it.root + key for it in self.members]

    def root_of(self, url: str) -> str:
        """The root of the source that has a URL. Raises `Outside` for one that is below none of them."""
        for root in self._longest_first:
            if url.startswith(root):
                return root
        raise Outside(f"'{url}' is below none of the sources {', '.join(self._by_root)}")

    async def stat(self, key: str) -> Blob:
        source, key = self._split(key)
        return await source.stat(key)

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        source = self._by_root.get(blob.root)
        if source is None:
            raise Outside(f"'{blob.url}' is below none of the sources {', '.join(self._by_root)}")
        return await source.read(blob, spans)

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        source, key = self._split(key)
        return await source.open(key, span=span, pin=pin, unless=unless)

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        source, key = self._split(key)
        return await source.write(key, data, media=media, pin=pin)

    async def signed_url(self, key: str) -> str | None:
        source, key = self._split(key)
        return await source.signed_url(key)

    async def delete(self, key: str) -> None:
        source, key = self._split(key)
        await source.delete(key)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        """Objects of all of them, one source after the other. `prefix` and `after` are URLs, or empty."""
        first = self.members.index(self._by_root[self.root_of(after)]) if after else 0
        for member in self.members[first:]:
            if prefix.startswith(member.root) or member.root.startswith(prefix):
                inside = after.removeprefix(member.root) if after.startswith(member.root) else ""
                async for blob in member.list(prefix[len(member.root) :], after=inside):
                    if self.root_of(blob.url) == member.root:  # not of a source below this one
                        yield blob

    async def close(self) -> None:
        for member in self.members:
            await member.close()

    def _file_url(self, place: str) -> str:
        path = folder_path(place)
        assert path is not None, "its scheme is that of a file"
        for member in self.members:
            key = member.key_of(path) if isinstance(member, Folder) else None
            if key is not None:
                return member.root + key
        raise Outside(f"'{place}' is below none of the sources {', '.join(self._by_root)}")

    def _split(self, url: str) -> tuple[Source, str]:
        root = self.root_of(url)
        return self._by_root[root], url[len(root) :]
