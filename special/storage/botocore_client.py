"""Keys that obstore cannot name, and listings, through aiobotocore.

S3 allows any key: `a//b`, `/lead`, `trail/`, `..`, a tab. It also lists by any prefix, where obstore has
only folders and stops at the first key that it cannot name. This is more expensive, and rare.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from special.errors import ConfigurationError, Denied, Missing, Unreachable
from special.storage.aws import Account
from special.storage.blob import Absent, Span, Suffix, Unless
from special.storage.client import GetAnswer, ListedObject, ObjectHead, error_of_status, tag
from special.storage.retry import RetryPolicy


class _AccountCredentials(AioCredentials):  # type: ignore[misc]
    """The account's credentials, asked for at each request: both libraries use the same."""

    def __init__(self, account: Account) -> None:
        super().__init__("", "")
        self._account = account

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return await self._account.read_only_credentials()

    async def load_credentials(self) -> _AccountCredentials:
        """What aiobotocore asks of a provider."""
        return self


class BotocoreClient:
    """A bucket of S3 behind aiobotocore. Connects at the first request."""

    def __init__(self, bucket: str, account: Account, *, retry_policy: RetryPolicy, concurrency: int) -> None:
        self._bucket = bucket
        self._account = account
        self._config = AioConfig(
            connect_timeout=retry_policy.connect_s,
            read_timeout=retry_policy.deadline_s,
            max_pool_connections=concurrency,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version=UNSIGNED if account.anonymous else None,
            s3={"addressing_style": "path" if account.path_style else "auto"},
        )
        self._payer = {"RequestPayer": "requester"} if account.requester_pays else {}
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def head(self, path: str) -> ObjectHead:
        with _explained(path):
            client = await self._connected()
            return _Answer(path, await client.head_object(Bucket=self._bucket, Key=path, **self._payer))

    @property
    def counts_from_end(self) -> bool:
        return True

    async def get(
        self, path: str, *, span: Span | Suffix | None, match: str | None, unless: Unless | None
    ) -> GetAnswer:
        options: dict[str, Any] = dict(self._payer)
        if isinstance(span, Suffix):
            options["Range"] = f"bytes=-{span.size_bytes}"
        elif span is not None:
            options["Range"] = f"bytes={span.start}-{span.stop - 1}"
        if match is not None:
            options["IfMatch"] = match
        if unless is not None and unless.etag is not None:
            options["IfNoneMatch"] = unless.etag
        elif unless is not None and unless.since is not None:
            options["IfModifiedSince"] = unless.since
        with _explained(path):
            client = await self._connected()
            return _Answer(path, await client.get_object(Bucket=self._bucket, Key=path, **options))

    async def put(self, path: str, data: bytes, *, media: str | None, match: str | Absent | None) -> str:
        condition = {"IfNoneMatch": "*"} if isinstance(match, Absent) else {"IfMatch": match}
        options = {"ContentType": media, **condition, **self._payer}
        present = {name: value for name, value in options.items() if value is not None}
        with _explained(path):
            client = await self._connected()
            result = await client.put_object(Bucket=self._bucket, Key=path, Body=data, **present)
        return tag(result["ETag"], len(data), None)

    async def signed_url(self, path: str, seconds: int) -> str | None:
        with _explained(path):
            client = await self._connected()
            parameters = {"Bucket": self._bucket, "Key": path, **self._payer}
            url: str = await client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
            return url

    async def delete(self, path: str) -> None:
        with _explained(path):
            client = await self._connected()
            await client.delete_object(Bucket=self._bucket, Key=path, **self._payer)

    async def list(self, prefix: str, *, after: str) -> AsyncIterator[ObjectHead]:
        with _explained(prefix):
            client = await self._connected()
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, **self._payer, **({"StartAfter": after} if after else {})
            )
            async for page in pages:
                for item in page.get("Contents", ()):
                    yield _listed(item)

    async def children(self, prefix: str, *, after: str, first_only: bool) -> AsyncIterator[ObjectHead | str]:
        options = {**({"StartAfter": after} if after else {}), **({"MaxKeys": 1} if first_only else {})}
        with _explained(prefix):
            client = await self._connected()
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/", **options, **self._payer
            )
            async for page in pages:
                listed: dict[str, ObjectHead | str] = {
                    it["Prefix"]: it["Prefix"] for it in page.get("CommonPrefixes", ())
                }
                listed |= {item["Key"]: _listed(item) for item in page.get("Contents", ())}
                for path in sorted(listed):
                    if path > after:  # a folder that `after` is, or is in, is listed again
                        yield listed[path]

    async def close(self) -> None:
        await self._stack.aclose()

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                session = AioSession()
                session.register_component("credential_provider", _AccountCredentials(self._account))
                self._client = await self._stack.enter_async_context(
                    session.create_client(
                        "s3",
                        region_name=self._account.region,
                        endpoint_url=self._account.endpoint,
                        verify=str(self._account.certificates) if self._account.certificates else None,
                        config=self._config,
                    )
                )
        return self._client


def _listed(item: dict[str, Any]) -> ListedObject:
    size, modified = item["Size"], _in_utc(item.get("LastModified"))
    return ListedObject(item["Key"], tag(item.get("ETag"), size, modified), size, modified)


class _Answer:
    """What aiobotocore answers to a GET or a HEAD."""

    __slots__ = ("_body", "etag", "media", "modified", "path", "size", "start", "stop")

    def __init__(self, path: str, result: dict[str, Any]) -> None:
        self._body = result.get("Body")
        self.path = path
        self.start, self.stop, self.size = 0, result["ContentLength"], result["ContentLength"]
        if "ContentRange" in result:
            # "bytes 3-9/5000", RFC 9110 section 14.4
            first, last, size = (int(number) for number in re.findall(r"\d+", result["ContentRange"]))
            self.start, self.stop, self.size = first, last + 1, size
        self.modified = _in_utc(result.get("LastModified"))
        self.etag = tag(result.get("ETag"), self.size, self.modified)
        self.media: str | None = result.get("ContentType")

    async def body(self) -> bytes:
        assert self._body is not None, "a HEAD has no body"
        with _explained(self.path):
            data: bytes = await self._body.read()
            return data

    async def chunks(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        assert self._body is not None, "a HEAD has no body"
        with _explained(self.path):
            while chunk := await self._body.read(size_bytes):
                yield chunk

    async def close(self) -> None:
        if self._body is not None:
            self._body.close()


def _in_utc(moment: datetime | None) -> datetime | None:
    """Botocore's own kind of UTC is none to `email.utils`, which writes Last-Modified; some stores name no time."""
    return moment.astimezone(UTC) if moment else None


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What botocore raises, as our errors."""
    try:
        yield
    except ClientError as error:
        status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
        raise error_of_status(status, code, f"{path}: {error}") from error
    except ConfigurationError as error:  # of the credentials
        raise Denied(str(error)) from error
    except ParamValidationError as error:
        raise Missing(f"S3 has no key {path!r}") from error
    except (BotoCoreError, OSError, aiohttp.ClientError) as error:
        raise Unreachable(f"{path}: {error}") from error
