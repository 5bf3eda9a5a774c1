"""What a bucket needs of the library that talks to its store.

Two libraries do: obstore for almost everything, because a small GET costs it a tenth of the CPU time, and aiobotocore
for keys that obstore cannot name. Both have this interface and raise our errors, so that the rules of a `Source` (pins,
retries, counting) are written once, in `bucket`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from special.errors import Archived, Changed, Denied, Missing, SourceError, Unreachable
from special.storage.blob import Absent, NotModified, Span, Suffix, Unless

_UNNAMEABLE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
"""An empty segment (a slash first, last or doubled), `.`, `..`, and ASCII control characters.

Measured with obstore 0.12: it drops the first and the last slash silently and refuses the rest. Everything else
arrives unchanged, `%2F`, `+`, `?`, `#`, a backslash and any other Unicode included.
"""


class ObjectHead(Protocol):
    """What a store says of one version of an object."""

    @property
    def path(self) -> str:
        """The key, including the source's prefix."""
        ...

    @property
    def etag(self) -> str:
        """With its quotes; weak where the store named none that can be matched."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def media(self) -> str | None:
        """The media type, if the store names one here."""
        ...

    @property
    def modified(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object in a listing."""

    path: str
    etag: str
    size: int
    modified: datetime | None
    media: str | None = None


class GetAnswer(ObjectHead, Protocol):
    """The answer to a GET, with its body still to come. Close it if the body is not read to its end."""

    @property
    def start(self) -> int:
        """The first byte that is being sent."""
        ...

    @property
    def stop(self) -> int:
        """The byte after the last one; equal to `start` for an empty object."""
        ...

    async def body(self) -> bytes: ...

    def chunks(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """All of it, in chunks of about that size."""
        ...

    async def close(self) -> None: ...


class StoreClient(Protocol):
    """One store, by whole keys. One request each; nothing is tried again in here.

    Everything raises `Missing`, `Denied`, `Changed`, `Unreachable`, or plain `SourceError`.
    """

    @property
    def counts_from_end(self) -> bool:
        """Whether the store gives a `Suffix`."""
        ...

    async def head(self, path: str) -> ObjectHead: ...

    async def get(
        self, path: str, *, span: Span | Suffix | None, match: str | None, unless: Unless | None
    ) -> GetAnswer:
        """Bytes of an object; `match` is a value for If-Match. Raises `NotModified`, `RangeNotSatisfiable`."""
        ...

    async def put(self, path: str, data: bytes, *, media: str | None, match: str | Absent | None) -> str:
        """Store an object whole, in place of the one with that tag; its new tag."""
        ...

    async def signed_url(self, path: str, seconds: int) -> str | None:
        """A signed URL for GETs; None where the store has none."""
        ...

    async def delete(self, path: str) -> None: ...

    def list(self, prefix: str, *, after: str) -> AsyncIterator[ObjectHead]:
        """Objects whose whole key starts with `prefix` and sorts after `after`, a page at a time."""
        ...

    def children(self, prefix: str, *, after: str, first_only: bool) -> AsyncIterator[ObjectHead | str]:
        """Objects and folders directly below a prefix, in the order of their keys, those after `after`."""
        ...

    async def close(self) -> None: ...


class RangeNotSatisfiable(Exception):
    """The span starts past the object's end (416)."""


_CREDENTIALS = "correct the access key and its secret, or choose another profile"
_ADVICE: Final = {
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it, best by NTP",
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidAccessKeyId": f"the store does not know this access key, which may have been revoked: {_CREDENTIALS}",
    "AuthenticationFailed": _CREDENTIALS,
    "InvalidToken": "the session token is not valid: renew the credentials",
    "ExpiredToken": "the session token has expired: renew the credentials",
    "TokenRefreshRequired": "the session token has expired: renew the credentials",
    "AccountProblem": "the account is suspended: ask the store's operator",
    "AllAccessDisabled": "the bucket has been disabled: ask the store's operator",
}
"""What to do about each reason for which a store refuses us, whatever the key (Amazon S3 API, "Error responses")."""
_ENCRYPTION = "the key that encrypts the object cannot be used: enable it, and permit kms:Decrypt"


def error_of_status(status: int | None, code: str, message: str) -> Exception:
    """The error for a store's answer: its HTTP status (None: no answer at all), its own code, and its message."""
    if code in _ADVICE:
        return Denied(f"{_ADVICE[code]} ({code})")
    if code.startswith("KMS.") or (status == 403 and "kms:" in message):
        return Denied(f"{_ENCRYPTION} ({message})")
    if code == "InvalidObjectState":
        return Archived(f"the object is in an archive: restore it, or leave it out ({message})")
    match status:
        case 304:
            return NotModified()
        case 401 | 403:
            # Where a policy forbids reading what is there, Amazon names the action; otherwise it says no more than
            # that access is denied, or that listing would be needed to tell.
            names_reading = "s3:GetObject" in message or "explicit deny" in message
            return Denied(message, perhaps_absent=code in ("", "AccessDenied") and not names_reading)
        case 404:
            return Missing(message)
        case 400 if code == "KeyTooLongError":
            return Missing(message)
        case 412:
            return Changed(message)
        case 416:
            return RangeNotSatisfiable(message)
        case 429 | 500 | 502 | 503 | 504:
            said = f"{status} {code}".rstrip()
            return Unreachable(message, advice=f"answers {said}: it is overloaded, or in maintenance; try again later")
        case None | 408 | 409 | 425:
            return Unreachable(message)
        case _:
            return SourceError(message)


def tag(etag: str | None, size: int, modified: datetime | None) -> str:
    """A store's entity tag in RFC 9110's form.

    Listings of some stores leave out the quotes. A web server that sends no tag gets one made of what else it
    says of the version: a weak one, which is never sent as If-Match.
    """
    if not etag:
        stamp = f"{modified.timestamp():.0f}" if modified else "undated"
        return f'W/"{stamp}-{size}"'
    return etag if etag.endswith('"') else f'"{etag}"'


def matchable(etag: str) -> str | None:
    """The tag as a value for If-Match, which compares strongly: a weak one never matches (RFC 9110 section 13.1.1)."""
    return None if etag.startswith("W/") else etag


def nameable(path: str) -> bool:
    """Whether obstore can name a key."""
    return _UNNAMEABLE.search(path) is None


def one_line(text: str) -> str:
    """A library's message without its line ends."""
    return " ".join(text.split())
