"""Every error that special raises on purpose, as one tree.

    SpecialError
    ├── RequestError              the caller's mistake; decided before any work
    │   ├── BadRequest            400  a parameter that cannot be understood or is out of bounds
    │   ├── Unauthorised          401  restricted, and the client is not known
    │   ├── Forbidden             403  restricted, and the client's roles are not enough
    │   ├── NotFound              404  no such identifier, or no such stored size
    │   ├── Misdirected           421  a host that is not served here
    │   ├── OutOfRange            416  a Range that starts past the end of what is stored
    │   └── NotOffered            501  valid, but switched off here (upscaling)
    ├── SourceError               502  an object store said no
    │   ├── Missing               404  there is no such object
    │   ├── Outside               404  a place below none of the sources; nothing is asked there
    │   ├── Denied                502  the store refused us: credentials, permissions, keys, the clock
    │   ├── Archived              503  the object is in an archive, and must be restored first
    │   ├── Changed               503  the object is no longer the version that was pinned
    │   ├── Uncounted             502  the store counts no bytes from an object's end
    │   └── Unreachable           503  timeout, reset, throttling, short body
    │       └── RangesIgnored     502  the store sends whole objects where ranges are asked for
    ├── MasterError               422  this master cannot be shown
    │   ├── Malformed             422  the file breaks its own format's rules
    │   │   └── Unreadable        500  a stored rendition, or a file beside it, is broken
    │   ├── Unsupported           422  a format or feature that nothing here decodes
    │   │   └── NotAnImage        422  nothing that is known as an image
    │   ├── NoSuchPage            404  a page behind the last
    │   └── TooExpensive          422  showing this much of it takes more than one answer may take
    ├── DecodeError               500  a decoder process failed on this one job
    │   ├── Crashed               500  the process died
    │   │   └── Quarantined       503  others died on the same master before; it is not decoded for now
    │   ├── TimedOut              503  the deadline passed; the process was killed
    │   └── Busy                  503  no decoder will be free in time
    │       └── Preparing         503  its pyramid is being made, and goes on while the client waits
    ├── CatalogueError            503  a catalogue does not answer, or what it says makes no sense
    ├── HookError                 500  the operator's own code failed on this one request
    └── ConfigurationError        a setting that cannot work; the command line exits with 2

`str(error)` is for the operator and the log: it may name keys, buckets and paths.
`error.public` is for the client: one plain sentence, and never any of those.
"""

from __future__ import annotations

import math
from typing import ClassVar


class SpecialError(Exception):
    """The base. `status` is the HTTP status, `code` a stable name for logs and metrics."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    sentence: ClassVar[str] = "The image server failed."

    @property
    def public(self) -> str:
        """What the client may read."""
        return self.sentence

    @property
    def retry_after_s(self) -> int | None:
        """Seconds for a Retry-After header, where trying again makes sense."""
        return 1 if self.status == 503 else None


class RequestError(SpecialError):
    """The caller's mistake. Its message is made of the caller's own words, so it is public."""

    status = 400
    code = "request"

    @property
    def public(self) -> str:
        return str(self)


class BadRequest(RequestError):
    """A parameter that cannot be understood, or that is out of bounds."""

    code = "bad-request"


class Unauthorised(RequestError):
    """Restricted, and the client is not known."""

    status = 401
    code = "unauthorised"


class Forbidden(RequestError):
    """Restricted, and the client's roles are not enough."""

    status = 403
    code = "forbidden"


class NotFound(RequestError):
    """No such identifier, or no such stored size."""

    status = 404
    code = "not-found"


class Misdirected(RequestError):
    """A request for a host that is not served here (RFC 9110, section 15.5.20)."""

    status = 421
    code = "misdirected"


class OutOfRange(RequestError):
    """A Range that starts past the end of what is stored."""

    status = 416
    code = "out-of-range"


class NotOffered(RequestError):
    """A valid request for something that is switched off here."""

    status = 501
    code = "not-offered"


class SourceError(SpecialError):
    """An object store said no, or said nothing."""

    status = 502
    code = "source"
    sentence = "The image could not be read from its store."


class Missing(SourceError):
    """There is no such object."""

    status = 404
    code = "missing"
    sentence = "There is no image with this identifier."


class Outside(SourceError):
    """A place below none of the sources: nothing is asked there, and nothing is known of it."""

    status = 404
    code = "outside"
    sentence = Missing.sentence


class Denied(SourceError):
    """The store refused our credentials, or a policy refused us. Nothing is known of the object.

    `perhaps_absent`: it gave no other reason than that access is denied, as S3 also does for a key that is not there
    to those who may not list the bucket.
    """

    status = 502
    code = "denied"
    sentence = "The image's store refuses the image server."

    def __init__(self, message: str = "", *, perhaps_absent: bool = False) -> None:
        super().__init__(message)
        self.perhaps_absent = perhaps_absent


class Archived(SourceError):
    """The object is in a storage class from which it must be restored before it can be read."""

    status = 503
    code = "archived"
    sentence = "The image is in an archive, and cannot be read before it is restored."

    @property
    def retry_after_s(self) -> int:
        return 3600


class Changed(SourceError):
    """The object is no longer the version that was pinned. Forget the pin, start again once."""

    status = 503
    code = "changed"
    sentence = "The image is being replaced; ask again."


class Uncounted(SourceError):
    """The store gives no bytes that are counted from an object's end: read a span of it."""

    code = "uncounted"


class Unreachable(SourceError):
    """Timeout, reset, throttling, or a body that is not as long as it was said to be.

    `advice`: what is wrong with the store, and what to do about it, as the rest of a sentence; empty where its
    answer tells nothing.
    """

    status = 503
    code = "unreachable"
    sentence = "The image's store does not answer; ask again."

    def __init__(self, message: str = "", *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


class RangesIgnored(Unreachable):
    """The store sent another range than was asked for, as a rule the whole object."""

    status = 502
    code = "ranges-ignored"
    sentence = "The image's store cannot send parts of an image."


class MasterError(SpecialError):
    """This master cannot be shown. Every other image is unharmed."""

    status = 422
    code = "master"
    sentence = "This image cannot be shown."

    @property
    def public(self) -> str:
        """The sentence with the reason: what the file's own bytes say, never where it is."""
        return f"This image cannot be shown: {str(self).rstrip('.')}."


class Malformed(MasterError):
    """The file breaks its own format's rules. The message is public: it names no key and no path."""

    code = "malformed"


class Unreadable(Malformed):
    """A stored rendition, or a file that describes them, is broken. The message names it, and is not public."""

    status = 500
    code = "unreadable"
    sentence = "What is stored of this image cannot be read."

    @property
    def public(self) -> str:
        return self.sentence


class Unsupported(MasterError):
    """A format, or a feature of a format, that nothing here decodes. The message is public, as that of `Malformed`."""

    code = "unsupported"


class NotAnImage(Unsupported):
    """The file starts as no image does that is known here, or is empty."""

    code = "no-image"


class NoSuchPage(MasterError):
    """A page behind the last one of a master, which has `count` of them."""

    status = 404
    code = "no-page"

    def __init__(self, page: int, count: int) -> None:
        super().__init__(f"there is no page {page}: it has {count} {'page' if count == 1 else 'pages'}")
        self.page = page
        self.count = count

    def __reduce__(self) -> tuple[type[NoSuchPage], tuple[int, int]]:
        return type(self), (self.page, self.count)


class TooExpensive(MasterError):
    """Showing this much of it takes more bytes, pixels or memory than one answer may take; less may be possible."""

    code = "too-dear"
    sentence = "This takes more pixels or memory than one answer may; ask for a smaller size, or for less of the image."

    @property
    def public(self) -> str:
        return self.sentence


class DecodeError(SpecialError):
    """A decoder process failed on this one job."""

    code = "decode"
    sentence = "This image could not be decoded."


class Crashed(DecodeError):
    """The decoder process died; it has been replaced."""

    code = "crashed"


class Quarantined(Crashed):
    """What was to be decoded cost decoders before. `after_s`: seconds after which to ask again."""

    status = 503

    def __init__(self, message: str = "", *, after_s: float = 1.0) -> None:
        super().__init__(message)
        self._after_s = after_s

    @property
    def retry_after_s(self) -> int:
        return max(1, math.ceil(self._after_s))


class TimedOut(DecodeError):
    """The job's deadline passed; its decoder process was killed and replaced."""

    status = 503
    code = "timed-out"
    sentence = "The image took too long to make; ask again."


class Busy(DecodeError):
    """No decoder will be free in time. `after_s`: seconds after which to ask again."""

    status = 503
    code = "busy"
    sentence = "The image server is busy; ask again."

    def __init__(self, message: str = "", *, after_s: float = 1.0) -> None:
        super().__init__(message)
        self._after_s = after_s

    @property
    def retry_after_s(self) -> int:
        return max(1, math.ceil(self._after_s))


class Preparing(Busy):
    """The image's pyramid is being made, and goes on being made: a retry after `after_s` finds it further on."""

    code = "preparing"
    sentence = "The image is being prepared for viewing; ask again."


class CatalogueError(SpecialError):
    """A catalogue does not answer, or what it says makes no sense. Nothing is shown of an image meanwhile."""

    status = 503
    code = "catalogue"
    sentence = "The image's catalogue does not answer; ask again."


class HookError(SpecialError):
    """The operator's own code failed on this one request."""

    code = "hook"


class ConfigurationError(SpecialError):
    """A setting that cannot work. The message is one sentence that names the fix."""

    code = "configuration"
