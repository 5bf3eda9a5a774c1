"""What is known of an answer before it is made, the answer itself, and the contract of the four routes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from special.auth import Grant
from special.codecs import Encoding
from special.concurrency import Deadline
from special.formats import Stored
from special.iiif import Job
from special.images import Asset
from special.serving.routing import Plan
from special.storage import Span, Unless

PIXELS_VERSION: Final = 2
"""Goes up when the same request on the same master gives other bytes than before."""


Access = Literal["full", "part", "none"]


@dataclass(frozen=True, slots=True)
class InfoDocument:
    """info.json, and how it may be passed on."""

    document: dict[str, Any]
    level: int
    """The compliance level that it describes."""
    asset: Asset
    """The image that it describes."""
    access: Access
    """How much of the image the caller may see.

    Where it is none, what is described is what others see: viewers hang on a description without sizes and tiles.
    """
    is_personal: bool = False
    """Whether the operator's own code may show another caller something else."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request that may be answered, with the way to do it. Nothing has been read of any pixel."""

    asset: Asset
    plan: Plan
    job: Job
    """What was asked for, in pixels of `asset.size`."""
    grant: Grant
    canonical: str
    """`{region}/{size}/{rotation}/{quality}.{format}` in canonical form."""
    route: Route
    """Answers it."""
    etag: str | None = None
    """The answer's entity tag, where it is known without asking the store."""
    stored: Stored | None = None
    """The master's own tile that is the answer as it is stored, where there is one and its place is known."""
    final: bool = True
    """False where the master's index must be read first: then the plan may be better the next time."""
    private: bool = False
    """Whether another client would get another answer, or none."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What the headers of an answer say, without its body."""

    media: str
    etag: str
    size: int | None
    """Length of the body in bytes, where it is known."""
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out, except for the headers."""

    body: bytes | AsyncGenerator[bytes, None]
    """A stream must be exhausted or closed."""
    media: str
    etag: str
    size: int
    """Length of the body in bytes."""
    modified: datetime | None = None
    span: Span | None = None
    """Which bytes of a larger object the body is; None for all of it."""
    total: int | None = None
    """Length of that larger object."""
    incomplete: str = ""
    """Why not all of the picture is there, in words."""


class Route(Protocol):
    """One way to answer. It is chosen once, by `routing`, and kept in the `PlannedRequest`."""

    def complete(self, planned: PlannedRequest) -> PlannedRequest:
        """The request with what is known of this route's answer in advance. Reads nothing."""
        ...

    def cached(self, planned: PlannedRequest, *, unless: Unless | None) -> Answer | None:
        """The answer, if it is in memory as it is sent: no wait, no codec. Raises `NotModified`."""
        ...

    async def answer(
        self, planned: PlannedRequest, *, deadline: Deadline, unless: Unless | None, span: Span | None
    ) -> Answer:
        """Make the answer; `span` is the part that is wanted of a stored rendition that is copied.

        Raises `NotModified` where `unless` holds, before any decoder works; `SourceError`, `MasterError`,
        `DecodeError`, and `TimedOut` at the deadline.
        """
        ...

    async def head(self, planned: PlannedRequest, *, unless: Unless | None) -> AnswerHead:
        """What the headers of the answer say, without making it. At most one HEAD. Raises `NotModified`."""
        ...

    async def estimate(self, planned: PlannedRequest) -> list[Span]:
        """The GETs that `answer` would send, as spans of one object. Reads indexes, and no pixel."""
        ...

    async def signed_url(self, planned: PlannedRequest) -> str | None:
        """Where a proxy can fetch the answer from its store; None where it must be made or passed on."""
        ...


def pixels_etag(source_etag: str, job: Job, encoding: Encoding) -> str:
    """The entity tag of pixels that are made of an object with that tag."""
    words: tuple[object, ...] = (PIXELS_VERSION, source_etag, job, encoding)
    if job.marks:
        words += job.marks
    return f'"{hashlib.sha256(repr(words).encode()).hexdigest()[:32]}"'
