"""Object stores through obstore: S3, Azure, Google Cloud Storage, plain HTTP.

A GET of a small object costs obstore a tenth of the CPU time that it costs botocore. In exchange it cannot
name every key, and tells some errors apart only by their text; both are handled here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from special.errors import Changed, Denied, Missing, RangesIgnored, SourceError, Unreachable
from special.storage.blob import Absent, NotModified, Span, Suffix, Unless
from special.storage.client import (
    GetAnswer,
    ListedObject,
    ObjectHead,
    RangeNotSatisfiable,
    error_of_status,
    one_line,
    tag,
)

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutMode
    from obstore.store import ObjectStore

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([\w.]+)</Code>")
_PAST_THE_END = "Wanted range starting at"
"""obstore's own message where a store sends the whole object in place of a 416, as Azure may."""
_WHOLE = ("Received non-partial response when range requested", "Range request not supported")
"""The same where it sends the whole object in place of a range: a bucket, a web server."""
_UNUSABLE = {
    "Content-Length Header missing": "sends no Content-Length, as where it compresses answers: switch that off",
    "value for CONTENT_RANGE header": "sends no size of the object in Content-Range: use another one",
}
"""The same of answers that no further try makes better, and what to do about them."""
_CAUSES = {
    re.compile(r"InvalidCertificate\(\s*(\w+)"): "has a certificate that is not trusted ({}): name the file of its "
    "authority's certificates in AWS_CA_BUNDLE or SSL_CERT_FILE",
    re.compile("InvalidContentType"): "speaks no TLS: write its address with http://",
    re.compile("dns error"): "has a name that cannot be resolved: correct its address, or check the network",
}
"""Why no connection came about, which obstore tells in the details of an error alone, and what to do about it."""


class ObstoreClient:
    """A store behind obstore."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def head(self, path: str) -> ObjectHead:
        # Not head_async: that one leaves out the media type.
        return await self._get(path, {"head": True})

    @property
    def counts_from_end(self) -> bool:
        # Azure has no such ranges, and a web server that knows none sends the whole object.
        return isinstance(self._store, S3Store | GCSStore)

    async def get(
        self, path: str, *, span: Span | Suffix | None, match: str | None, unless: Unless | None
    ) -> GetAnswer:
        options: GetOptions = {}
        if isinstance(span, Suffix):
            options["range"] = {"suffix": span.size_bytes}
        elif span is not None:
            options["range"] = (span.start, span.stop)
        if match is not None:
            options["if_match"] = match
        if unless is not None and unless.etag is not None:
            if unless.etag.strip() != "*":  # Azure refuses it; `bucket` checks every answer anyway
                options["if_none_match"] = unless.etag
        elif unless is not None:
            options["if_modified_since"] = unless.since
        return await self._get(path, options)

    async def put(self, path: str, data: bytes, *, media: str | None, match: str | Absent | None) -> str:
        mode: PutMode = "create" if isinstance(match, Absent) else {"e_tag": match} if match else "overwrite"
        try:
            result = await obstore.put_async(
                self._store,
                path,
                data,
                attributes={"Content-Type": media} if media else None,
                mode=mode,
                use_multipart=False,
            )
        except FAILURES as error:
            raise _ours(error) from error
        return tag(result["e_tag"], len(data), None)

    async def signed_url(self, path: str, seconds: int) -> str | None:
        if not isinstance(self._store, S3Store | AzureStore | GCSStore):
            return None
        if isinstance(self._store, AzureStore) and quote(path) != path:
            return None  # obstore 0.12 signs the encoded name, where the store has the plain one
        try:
            return await obstore.sign_async(self._store, "GET", path, timedelta(seconds=seconds))
        except FAILURES as error:
            raise _ours(error) from error

    async def delete(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except FAILURES as error:
            raise _ours(error) from error

    async def list(self, prefix: str, *, after: str) -> AsyncIterator[ObjectHead]:
        # obstore's prefixes end at a slash: list the folder that holds them all, and keep those that match.
        folder = prefix.rpartition("/")[0]
        pages = obstore.list(self._store, folder or None, offset=after or None, chunk_size=1000)
        try:
            async for page in pages:
                for meta in page:
                    path, size, modified = meta["path"], meta["size"], meta["last_modified"]
                    if path.startswith(prefix) and path > after:
                        yield ListedObject(path, tag(meta["e_tag"], size, modified), size, modified)
        except FAILURES as error:
            raise _ours(error) from error

    async def children(self, prefix: str, *, after: str, first_only: bool) -> AsyncIterator[ObjectHead | str]:
        # All of a folder at once: obstore 0.12 has no pages with a delimiter.
        try:
            found = await obstore.list_with_delimiter_async(self._store, prefix.removesuffix("/") or None)
        except FAILURES as error:
            raise _ours(error) from error
        listed: dict[str, ObjectHead | str] = {f"{folder}/": f"{folder}/" for folder in found["common_prefixes"]}
        for meta in found["objects"]:
            path, size, modified = meta["path"], meta["size"], meta["last_modified"]
            listed[path] = ListedObject(path, tag(meta["e_tag"], size, modified), size, modified)
        for path in sorted(listed)[: 1 if first_only else None]:
            if path > after:
                yield listed[path]

    async def close(self) -> None:
        """Connections close with the last reference to the store."""

    async def _get(self, path: str, options: GetOptions) -> _Answer:
        try:
            return _Answer(await obstore.get_async(self._store, path, options=options))
        except FAILURES as error:
            raise _ours(error) from error


class _Answer:
    """What obstore answers to a GET."""

    __slots__ = ("_result", "etag", "media", "modified", "path", "size", "start", "stop")

    def __init__(self, result: GetResult) -> None:
        meta = result.meta
        self._result = result
        self.path: str = meta["path"]
        self.size: int = meta["size"]
        self.modified: datetime | None = meta["last_modified"]
        self.etag = tag(meta["e_tag"], self.size, self.modified)
        self.media: str | None = result.attributes.get("Content-Type")
        self.start, self.stop = result.range

    async def body(self) -> bytes:
        try:
            return bytes(await self._result.bytes_async())
        except FAILURES as error:
            raise _ours(error) from error

    async def chunks(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._result.stream(min_chunk_size=size_bytes):
                yield bytes(chunk)
        except FAILURES as error:
            raise _ours(error) from error

    async def close(self) -> None:
        """Dropping the result closes its connection."""


FAILURES = (BaseError, OSError, ValueError)
"""All that obstore raises."""


def _ours(error: Exception) -> Exception:
    """An error of obstore as one of ours, with the store's own message, cut before obstore repeats itself."""
    message = one_line(str(error).partition("\n\nDebug source")[0])
    match error:
        case FileNotFoundError():
            return Missing(message)
        case NotModifiedError():
            return NotModified()
        case PreconditionError() | AlreadyExistsError():
            return Changed(message)
    if _PAST_THE_END in message:
        return RangeNotSatisfiable(message)
    if any(text in message for text in _WHOLE):
        return RangesIgnored(message)
    status, code = _STATUS.search(message), _CODE.search(message)
    if status is None:
        for text, advice in _UNUSABLE.items():
            if text in message:
                return SourceError(f"{message}: the store, or a proxy before it, {advice}")
        for cause, advice in _CAUSES.items():
            if (found := cause.search(str(error))) is not None:
                advice = advice.format(*found.groups())
                return Unreachable(f"{message}: the store {advice}", advice=advice)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) and status is None:
        return Denied(message)
    return error_of_status(int(status[1]) if status else None, code[1] if code else "", message)
