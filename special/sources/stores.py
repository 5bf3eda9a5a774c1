"""Object stores through obstore: S3, Azure, Google Cloud Storage, plain HTTP.

A GET of a small object costs obstore a tenth of the CPU time that it costs botocore. In exchange it cannot
name every key, and tells some errors apart only in their text; both are dealt with here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from special.errors import Changed, Denied, Missing
from special.sources.wire import Answer, Stored, by_status, tag
from special.spans import NotModified, Span, Unless

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_UNNAMEABLE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
"""An empty segment (a slash first, last or doubled), `.`, `..`, and ASCII control characters.

Measured with obstore 0.12: it drops the first and the last slash in silence and refuses the rest. Everything else
arrives as it was meant, `%2F`, `+`, `?`, `#`, a backslash and any other Unicode included.
"""


def nameable(path: str) -> bool:
    """Whether obstore can name a key."""
    return _UNNAMEABLE.search(path) is None


class ObstoreWire:
    """A store behind obstore."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def head(self, path: str) -> Stored:
        with _explained(path):
            # Not head_async: that one leaves out the media type.
            return _Answer(path, await obstore.get_async(self._store, path, options={"head": True})).stored

    async def get(self, path: str, *, span: Span | None, match: str | None, unless: Unless | None) -> Answer:
        options: GetOptions = {}
        if span is not None:
            options["range"] = (span.start, span.stop)
        if match is not None:
            options["if_match"] = match
        if unless is not None and unless.etag is not None:
            options["if_none_match"] = unless.etag
        elif unless is not None:
            options["if_modified_since"] = unless.since
        with _explained(path):
            return _Answer(path, await obstore.get_async(self._store, path, options=options))

    async def put(self, path: str, data: bytes, *, media: str | None, match: str | None) -> str:
        with _explained(path):
            result = await obstore.put_async(
                self._store,
                path,
                data,
                attributes={"Content-Type": media} if media else None,
                mode={"e_tag": match} if match else "overwrite",
                use_multipart=False,
            )
        return tag(result["e_tag"], len(data), None)

    async def delete(self, path: str) -> None:
        with _explained(path):
            await obstore.delete_async(self._store, path)

    async def list(self, prefix: str, *, after: str) -> AsyncIterator[Stored]:
        # obstore's prefixes end at a slash: list the folder that holds them all, and keep those that match.
        folder = prefix.rpartition("/")[0]
        pages = obstore.list(self._store, folder or None, offset=after or None, chunk_size=1000)
        with _explained(prefix):
            async for page in pages:
                for meta in page:
                    if meta["path"].startswith(prefix) and meta["path"] > after:
                        yield _stored(meta, None)

    async def close(self) -> None:
        """Connections close when nobody holds the store any more."""


class _Answer:
    """obstore's answer to a GET."""

    __slots__ = ("_path", "_result", "start", "stop", "stored")

    def __init__(self, path: str, result: GetResult) -> None:
        self._path = path
        self._result = result
        self.stored = _stored(result.meta, result.attributes.get("Content-Type"))
        self.start, self.stop = result.range

    async def body(self) -> bytes:
        with _explained(self._path):
            return bytes(await self._result.bytes_async())

    async def chunks(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        with _explained(self._path):
            async for chunk in self._result.stream(min_chunk_size=size_bytes):
                yield bytes(chunk)

    async def close(self) -> None:
        """Dropping the result closes its connection."""


def _stored(meta: ObjectMeta, media: str | None) -> Stored:
    modified = meta["last_modified"]
    return Stored(meta["path"], tag(meta["e_tag"], meta["size"], modified), meta["size"], media, modified)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What obstore raises, as our errors. The text is the store's own, cut before obstore repeats itself."""
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(_said(error)) from error
    except NotModifiedError:
        raise NotModified from None
    except (PreconditionError, AlreadyExistsError) as error:
        raise Changed(_said(error)) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise Denied(_said(error)) from error
    except (BaseError, OSError, ValueError) as error:
        said = _said(error)
        status, code = _STATUS.search(said), _CODE.search(said)
        raise by_status(int(status[1]) if status else None, code[1] if code else "", said) from error


def _said(error: Exception) -> str:
    return str(error).partition("\n\nDebug source")[0]
