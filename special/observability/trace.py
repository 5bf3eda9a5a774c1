"""What one request cost.

A `Trace` follows one request through all packages by a context variable, so that a source can
count a GET without a parameter for it. Work that several requests share (a block of the
volume) is counted at the request that started it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from time import monotonic
from typing import Literal

Step = Literal["source", "queue", "decode", "encode"]


@dataclass(slots=True)
class Trace:
    """What one request did. Times in milliseconds; 0 for a step that was not taken."""

    client: str = ""
    """The client's address; empty for work that no client asked for."""
    route: str = ""
    """`thumb`, `derivative`, `stream` or `tile`; empty until a plan is made."""
    gets: int = 0
    """GET requests sent to object stores (or reads of local files)."""
    bytes: int = 0
    """Bytes of bodies asked of object stores."""
    sent_bytes: int = 0
    """Bytes of the answer's body that were sent to the client."""
    source_ms: float = 0.0
    """Time spent waiting for spans, through whichever reader."""
    queue_ms: float = 0.0
    """Time spent waiting for a decoder process."""
    decode_ms: float = 0.0
    """Time from encoded bytes to pixels of the right size."""
    encode_ms: float = 0.0
    """Time from pixels to the answer's bytes."""
    incomplete: str = ""
    """Why not all of a master's picture is in its file, in words; empty where all is, as far as it was read."""
    preparing: bool = False
    """Whether a pyramid of the image is being made, after which its tiles will be cheap."""
    steps: list[tuple[Step, float, float]] = field(default_factory=list)
    """Each part of these times: what it was, and from when to when by `monotonic`, in seconds."""

    def count_get(self, size_bytes: int) -> None:
        """One GET of that many bytes was sent."""
        self.gets += 1
        self.bytes += size_bytes

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Time spent inside counts as `source_ms`."""
        start_s = monotonic()
        try:
            yield
        finally:
            self.took("source", start_s, monotonic())

    def took(self, what: Step, start_s: float, stop_s: float) -> None:
        """A step was taken, from when to when by `monotonic`."""
        ms = (stop_s - start_s) * 1000
        match what:
            case "source":
                self.source_ms += ms
            case "queue":
                self.queue_ms += ms
            case "decode":
                self.decode_ms += ms
            case "encode":
                self.encode_ms += ms
        self.steps.append((what, start_s, stop_s))

    def drawn(self, decode_ms: float, encode_ms: float) -> None:
        """A decoder has just answered, and says how long it took for both its steps."""
        stop_s = monotonic()
        between_s = stop_s - encode_ms / 1000
        self.took("decode", between_s - decode_ms / 1000, between_s)
        self.took("encode", between_s, stop_s)

    def server_timing(self) -> str:
        """The value of a Server-Timing header (W3C Server Timing, section 3)."""
        return _idle(self.route) if not (self.steps or self.gets or self.preparing) else self._timing()

    def _timing(self) -> str:
        return (
            f'route;desc="{self.route}", '
            f'source;dur={self.source_ms:.1f};desc="gets={self.gets} bytes={self.bytes}", '
            f"queue;dur={self.queue_ms:.1f}, decode;dur={self.decode_ms:.1f}, encode;dur={self.encode_ms:.1f}"
            f"{', pyramid;desc=building' if self.preparing else ''}"
        )


@cache
def _idle(route: str) -> str:
    """The timing of an answer from memory."""
    return Trace(route=route)._timing()


_current: ContextVar[Trace | None] = ContextVar("special_trace", default=None)


def trace() -> Trace:
    """The trace of the current request; one that is thrown away outside any request."""
    return _current.get() or Trace()


class tracing:  # noqa: N801  used as a statement
    """A trace, a new one if none is given, for everything inside, tasks started there included."""

    __slots__ = ("_token", "_trace")

    def __init__(self, trace: Trace | None = None) -> None:
        self._trace = trace or Trace()

    def __enter__(self) -> Trace:
        self._token = _current.set(self._trace)
        return self._trace

    def __exit__(self, *raised: object) -> None:
        _current.reset(self._token)
