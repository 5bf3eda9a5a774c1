"""A bucket, a container or a web server's folder as a source.

The rules of a `Source` are here, whichever library reads the bytes: every read is pinned and its answer checked,
failures that may pass are retried, every GET is counted, and the number of requests at once is limited.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from special.errors import (
    Archived,
    Changed,
    ConfigurationError,
    Denied,
    Missing,
    RangesIgnored,
    SourceError,
    Uncounted,
    Unreachable,
)
from special.storage.blob import Absent, Blob, NotModified, Span, Suffix, Unless
from special.storage.checks import clip, count_get, counting_errors, require
from special.storage.client import (
    GetAnswer,
    ObjectHead,
    RangeNotSatisfiable,
    StoreClient,
    matchable,
    nameable,
    one_line,
)
from special.storage.retry import RetryBudget, RetryPolicy
from special.storage.source import Opened

if TYPE_CHECKING:
    from special.storage.aws import Account

T = TypeVar("T")

log = logging.getLogger(__name__)

SMALL_BYTES = 262144
"""A body up to this size is read before it is handed on, so that a failure on the way can be retried unseen."""
CHUNK_BYTES = 262144
"""Larger bodies are streamed in chunks of this size."""
SIGNED_URL_S = 300
"""How long a signed URL is valid: long enough for a proxy that follows it at once."""
_IMPOSSIBLE = re.compile("[\0\ud800-\udfff]")
"""NUL, and what UTF-8 cannot encode."""
_PROBE = ".special-probe"
"""A key that no object has: asking for it tells a bucket that answers from one that does not."""
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "incorrectly configured region")
_REGION = re.compile(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'")


class _Absence(Enum):
    """What a store says of a key that is not there."""

    TOLD = "404"
    HIDDEN = "403, as of what it denies"


class Bucket:
    """A prefix of an object store, as a `Source`."""

    def __init__(
        self,
        root: str,
        client: StoreClient,
        *,
        prefix: str = "",
        fallback: Callable[[], Awaitable[StoreClient]] | None = None,
        account: Account | None = None,
        endpoint: str = "",
        retry_policy: RetryPolicy,
        concurrency: int,
    ) -> None:
        """`fallback` opens a client for keys that obstore cannot name, and for listings; without it there are none."""
        self._root = root
        self.endpoint = endpoint
        """The store's address or account, where neither `root` nor the provider's default says it; else empty."""
        self._client = client
        self._prefix = prefix
        self._open_fallback = fallback
        self._fallback: StoreClient | None = None
        self._opening = asyncio.Lock()
        self._account = account
        self._retry_policy = retry_policy
        self._budget = RetryBudget(concurrency)
        self._absence: _Absence | None = None
        self._probing = asyncio.Lock()
        self._refused: tuple[str, str] | None = None
        """Key and tag of the last read that the store refused with 412."""
        self._sends_match = True
        self._told_of_ranges = False
        self._has_sent_parts = False

    @property
    def root(self) -> str:
        return self._root

    async def check(self) -> None:
        """Ask for a key that no object has. Raises `ConfigurationError` where no other key could be read either.

        A store that denies it may still give what is there: S3 does so where listing is not allowed. That
        is only a warning; credentials that the store does not know are an error.
        """
        if self._account is not None and not self._account.anonymous:
            await self._account.credentials()
        try:
            await self._probe()
        except SourceError as error:
            problem = _diagnosis(str(error), error)
            if problem is not None:
                raise ConfigurationError(f"{self._root} {problem}") from error
            if isinstance(error, Denied):
                log.warning(
                    "%s denies a key that is not there: permit s3:ListBucket, or what is denied counts as absent; "
                    "if it denies images too, permit s3:GetObject, or set AWS_REQUESTER_PAYS=true where readers pay",
                    self._root,
                )
        else:
            log.warning("%s answers for a key that no object has, as a login page does: is it a store?", self._root)

    async def probe_absence(self) -> None:
        """Find out once what the store says of a key that is not there; one GET, nothing raised.

        Done before it matters: a permission that is taken away later must not look as if all images were gone.
        """
        async with self._probing:
            if self._absence is None:
                with suppress(SourceError):
                    await self._probe()

    async def _probe(self) -> None:
        client, path = await self._route(_PROBE)

        async def attempt() -> None:
            answer = await self._get(client, path, None, None, None)
            await answer.close()

        try:
            await self._retry_policy.run(attempt, self._budget)
        except Missing:
            self._absence = _Absence.TOLD
            raise
        except Denied as error:
            if error.perhaps_absent and self._absence is None:
                self._absence = _Absence.HIDDEN
            raise

    async def stat(self, key: str) -> Blob:
        client, path = await self._route(key)

        async def attempt() -> Blob:
            return self._blob(await client.head(path))

        return await self._told_apart(attempt)

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        if len(spans) == 1:
            return [await self._read(blob, spans[0])]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(blob, span)) for span in spans]
        except ExceptionGroup as failed:
            raise _first(failed) from None
        return [task.result() for task in tasks]

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        client, path = await self._route(key)
        if isinstance(span, Suffix) and not client.counts_from_end:
            raise Uncounted(f"{self._root} counts no bytes from an object's end: ask with a span")

        async def attempt() -> tuple[Blob, GetAnswer, bytes | None]:
            answer = await self._get(client, path, span, pin, unless)
            blob = self._blob(answer)
            if unless and unless.hold(blob.etag, blob.modified):
                await answer.close()
                raise NotModified(blob.etag)
            return blob, answer, await _whole(answer) if answer.stop - answer.start <= SMALL_BYTES else None

        blob, answer, data = await self._told_apart(attempt, size_bytes=SMALL_BYTES)
        sent = Span(answer.start, answer.stop) if answer.stop > answer.start else None
        if data is not None:
            return Opened(blob, sent, data)
        chunks = self._stream(client, path, blob, answer)
        await anext(chunks)  # up to its first yield: an unread body that is closed must still release its connection
        return Opened(blob, sent, chunks)

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        client, path = await self._route(key)
        match = matchable(pin.etag) if isinstance(pin, Blob) else pin

        async def attempt() -> Blob:
            # A pinned write whose answer was lost finds its own object on the second try, and raises `Changed`.
            etag = await client.put(path, data, media=media, match=match)
            return Blob(self._root, key, etag, len(data), media)

        try:
            return await self._retry_policy.run(attempt, self._budget, size_bytes=len(data))
        except Denied as error:
            raise self._advised(error, "written", "s3:PutObject") from error
        except Missing as error:
            if not isinstance(pin, Blob):
                raise
            raise Changed(f"{pin.url} is gone, it was {pin.etag}") from error

    async def signed_url(self, key: str) -> str | None:
        client, path = await self._route(key)
        return await client.signed_url(path, SIGNED_URL_S)

    async def delete(self, key: str) -> None:
        client, path = await self._route(key)

        async def attempt() -> None:
            with suppress(Missing):
                await client.delete(path)

        try:
            await self._retry_policy.run(attempt, self._budget)
        except Denied as error:
            raise self._advised(error, "deleted from", "s3:DeleteObject") from error

    def _advised(self, error: Denied, done: str, action: str) -> Denied:
        """The error of what was not permitted, with the permission that it needs, unless the store gave a reason."""
        return Denied(f"{self._root} cannot be {done}: permit {action} ({error})") if error.perhaps_absent else error

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        client = await self._fallback_client() or self._client
        first = self._prefix + after if after else ""
        async for listed in self._resumed(lambda last: client.list(self._prefix + prefix, after=last), first):
            assert not isinstance(listed, str), "a whole listing has no folders"
            yield self._blob(listed)

    async def children(self, prefix: str = "", *, first_only: bool = False) -> AsyncGenerator[Blob | str, None]:
        client, path = await self._fallback_client() or self._client, self._prefix + prefix
        async for listed in self._resumed(lambda last: client.children(path, after=last, first_only=first_only), ""):
            yield listed.removeprefix(self._prefix) if isinstance(listed, str) else self._blob(listed)
            if first_only:
                return

    async def hides_absence(self) -> bool:
        """Whether the store says of an absent key that access is denied, as it says of others."""
        await self.probe_absence()
        return self._absence is not _Absence.TOLD

    async def is_empty(self) -> bool:
        """Whether nothing is stored here: one list. Raises `SourceError` where that is not allowed."""
        async for _ in self._client.list(self._prefix, after=""):
            return False
        return True

    async def close(self) -> None:
        await self._client.close()
        if self._fallback is not None:
            await self._fallback.close()

    async def _read(self, blob: Blob, span: Span) -> bytes:
        """One span of the pinned version, whole."""
        require(span, blob)
        client, path = await self._route(blob.key)

        async def attempt() -> bytes:
            return await _whole(await self._get(client, path, span, blob, None))

        return await self._told_apart(attempt, size_bytes=len(span))

    async def _told_apart(self, attempt: Callable[[], Awaitable[T]], *, size_bytes: int = 0) -> T:
        """What `attempt` reads, with retries. Raises `Missing` where access is denied because nothing is there."""
        try:
            return await self._retry_policy.run(attempt, self._budget, size_bytes=size_bytes)
        except Missing:
            self._absence = _Absence.TOLD
            raise
        except Denied as error:
            if not error.perhaps_absent:
                raise
            await self.probe_absence()
            if self._absence is _Absence.HIDDEN:
                raise Missing(str(error)) from error
            raise

    async def _get(
        self, client: StoreClient, path: str, span: Span | Suffix | None, pin: Blob | None, unless: Unless | None
    ) -> GetAnswer:
        """One GET (two for the start of an empty object), counted, its version and its range checked."""
        size_bytes = 0
        match = matchable(pin.etag) if pin and self._sends_match else None
        try:
            answer = await client.get(path, span=span, match=match, unless=unless)
            size_bytes = answer.stop - answer.start
        except RangeNotSatisfiable as error:
            return await self._past_the_end(client, path, span, pin, unless, error)
        except Changed:
            if match is not None and await self._refuses_matches(client, path, match):
                return await self._get(client, path, span, pin, unless)
            raise
        except RangesIgnored as error:
            if isinstance(span, Suffix):  # some send a short object whole
                raise Uncounted(f"{path} is sent whole where its last bytes are asked for") from error
            raise self._sent_whole(str(error)) from error
        finally:
            count_get(size_bytes)
        if pin is not None and (answer.etag, answer.size) != (pin.etag, pin.size):
            await answer.close()
            raise Changed(f"{pin.url} is {answer.etag} by now, not {pin.etag}")
        if (answer.start, answer.stop) != clip(span, answer.size):
            await answer.close()
            if (answer.start, answer.stop) == (0, answer.size):
                raise self._sent_whole(f"{path}: asked for {span}, was sent all {answer.size} bytes")
            raise Unreachable(f"{path}: asked for {span}, was sent bytes {answer.start}–{answer.stop}")
        self._has_sent_parts |= answer.stop - answer.start < answer.size
        return answer

    async def _refuses_matches(self, client: StoreClient, path: str, match: str) -> bool:
        """Whether the store answers 412 to any If-Match: it has refused this version twice, and HEAD still names it.

        From then on none is sent; the version of every answer is checked all the same.
        """
        if self._refused != (path, match):
            self._refused = path, match
            return False
        if (await client.head(path)).etag != match:
            return False
        if self._sends_match:
            log.warning(
                "%s refuses requests with If-Match: it is asked without, and its answers are checked", self._root
            )
            self._sends_match = False
        return True

    def _sent_whole(self, message: str) -> Unreachable:
        """The error of an answer that is not the part that was asked for. It may pass where parts have come before."""
        if self._has_sent_parts:
            return Unreachable(message)
        if not self._told_of_ranges:
            self._told_of_ranges = True
            log.error(
                "%s ignores Range and sends whole objects: masters cannot be read from there; use another server, "
                "or switch byte ranges on",
                self._root,
            )
        return RangesIgnored(message)

    async def _past_the_end(
        self,
        client: StoreClient,
        path: str,
        span: Span | Suffix | None,
        pin: Blob | None,
        unless: Unless | None,
        error: RangeNotSatisfiable,
    ) -> GetAnswer:
        """A 416: the object was cut short, or it is empty, or the caller is wrong."""
        assert span is not None, "only a range can be out of range"
        if isinstance(span, Suffix):
            raise Uncounted(f"{path} is empty, or its store counts no bytes from the end") from error
        if pin is not None and span.start < pin.size:
            raise Changed(f"{pin.url} is shorter by now than {pin.size}") from error
        if span.start > 0:
            raise ValueError(f"{path} ends before byte {span.start}") from error
        return await self._get(client, path, None, pin, unless)

    async def _stream(
        self, client: StoreClient, path: str, blob: Blob, answer: GetAnswer
    ) -> AsyncGenerator[bytes, None]:
        """The rest of an answer, asked for again from where it broke off. Starts with an empty chunk."""
        position, stop, failures = answer.start, answer.stop, 0

        async def resume() -> GetAnswer:
            return await self._get(client, path, Span(position, stop), blob, None)

        try:
            yield b""
            while True:
                try:
                    with counting_errors():
                        async for chunk in self._timed_chunks(answer, tries=failures):
                            position, failures = position + len(chunk), 0
                            yield chunk
                    return
                except Unreachable:
                    failures += 1
                    if failures > self._retry_policy.retries:
                        raise
                await answer.close()
                answer = await self._retry_policy.run(resume, self._budget)
        finally:
            await answer.close()

    async def _resumed(
        self, listing: Callable[[str], AsyncIterator[ObjectHead | str]], last: str
    ) -> AsyncIterator[ObjectHead | str]:
        """A listing, asked for again after the last path where it broke off."""
        failures = 0
        while True:
            try:
                async for listed in listing(last):
                    yield listed
                    last, failures = listed if isinstance(listed, str) else listed.path, 0
            except Denied as error:
                said = str(error).removeprefix(": ")  # the root itself has no key
                raise Denied(f"{self._root} cannot be listed: permit s3:ListBucket ({said})") from error
            except Unreachable:
                if failures == self._retry_policy.retries:
                    raise
                await asyncio.sleep(self._retry_policy.wait_s(failures))
                failures += 1
            else:
                return

    async def _timed_chunks(self, answer: GetAnswer, *, tries: int) -> AsyncGenerator[bytes, None]:
        """The body in chunks, each within its timeout, and together as long as announced."""
        left_bytes = answer.stop - answer.start
        async with aclosing(answer.chunks(CHUNK_BYTES)) as chunks:
            while left_bytes:
                chunk = await self._retry_policy.run_once(lambda: anext(chunks, b""), CHUNK_BYTES, tries=tries)
                if not 0 < len(chunk) <= left_bytes:
                    raise Unreachable(f"{answer.path}: the body is not as long as announced")
                left_bytes -= len(chunk)
                yield chunk

    async def _fallback_client(self) -> StoreClient | None:
        """What names the other keys, and lists; opened when it is first needed."""
        async with self._opening:
            if self._fallback is None and self._open_fallback is not None:
                self._fallback = await self._open_fallback()
        return self._fallback

    async def _route(self, key: str) -> tuple[StoreClient, str]:
        """The client that can name a key, and the whole key. Raises `Missing` for what cannot be a key."""
        path = self._prefix + key
        client = self._client if nameable(path) else await self._fallback_client()
        # Amazon S3 User Guide, "Naming Amazon S3 objects": UTF-8, at most 1,024 bytes. Others allow no more.
        if client is None or not key or _IMPOSSIBLE.search(key) or len(path.encode()) > 1024:
            raise Missing(f"{key!r} names nothing in {self._root}")
        return client, path

    def _blob(self, head: ObjectHead) -> Blob:
        key = head.path[len(self._prefix) :]
        return Blob(self._root, key, head.etag, head.size, head.media, head.modified)


async def _whole(answer: GetAnswer) -> bytes:
    """All of a body, as long as announced."""
    data = await answer.body()
    if len(data) != answer.stop - answer.start:
        raise Unreachable(f"{answer.path}: {len(data)} bytes came of {answer.stop - answer.start}")
    return data


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    """One of several failures that came together. `Changed` first: the others may follow from it."""
    changed = failed.subgroup(Changed)
    error = (changed or failed).exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _diagnosis(message: str, error: SourceError) -> str | None:
    """What is wrong with a bucket, as the rest of a sentence; None if nothing is."""
    if any(code in message for code in _NO_BUCKET):
        return "does not exist: create the bucket, or correct its name"
    if any(code in message for code in _ELSEWHERE):
        named = _REGION.search(message)
        return f"is in another region: set AWS_REGION to {(named[1] or named[2]) if named else 'that of the bucket'}"
    match error:
        case Missing() | Denied(perhaps_absent=True):
            return None
        case Denied() | Archived():
            return f"refuses us: {one_line(message)}"
        case Unreachable(advice=advice):
            return advice or "does not answer: check the network, and AWS_ENDPOINT_URL if it is not Amazon's"
        case _:
            return f"cannot be used: {one_line(message)}"
