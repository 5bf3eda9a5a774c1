"""What parent and decoder processes send each other.

    to a child      8 bytes of length, then a pickle: a child trusts its parent
    to the parent   the lengths of a JSON header and of a body, the header, and the body: raw bytes, part after part

The parent does not trust its children, which read files of unknown origin: nothing that they send is unpickled, and
no more is received than the job can give.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from special.errors import BadRequest, Malformed, SpecialError, TooExpensive, Unsupported

LENGTH: Final = struct.Struct(">Q")
"""Before each message to a child: its length."""
LENGTHS: Final = struct.Struct(">IQ")
"""Before each message to the parent: the lengths of its header and of its body."""
MAX_HEADER_BYTES: Final = 1 << 20
MAX_TEXT_CHARACTERS: Final = 8000
"""Maximum length of an error message or a traceback; of a longer one the end is sent."""
_JOIN_BYTES: Final = 1 << 18
"""Parts of a message up to this length are joined, so that one write wakes the receiver once."""
_ERRORS: Final = {kind.code: kind for kind in (BadRequest, Malformed, TooExpensive, Unsupported)}
"""The errors that a job may raise at its caller, by their code."""

Layers = dict[str, bool]
"""The layers of a child's sandbox, and whether each holds."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a child: its limits, and what it must be able to do before it is ready."""

    parent: int
    """The parent's process id."""
    memory_bytes: int
    """Maximum size of the child's address space."""
    prepare: Callable[[], object]
    """Imports and settings that jobs will need; called once."""


@dataclass(frozen=True, slots=True)
class Call:
    """A job: a function that the child can import, and its arguments."""

    function: Callable[..., object]
    args: tuple[object, ...]
    cpu_s: float
    """Processor seconds after which the kernel ends the child, should its parent fail to."""
    talks: bool = False
    """Whether the function's first argument is a channel to its parent, `special.workers.child.Channel`."""


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to a question of a job, or to what it gave."""

    value: object


@dataclass(frozen=True, slots=True)
class Ready:
    """The child can take jobs."""

    sandbox: Layers = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unready:
    """The child cannot get ready, and ends."""

    reason: str
    """What its preparation raised, in one line that names the fix."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned."""

    value: Any
    """Its result without the bytes, as JSON has it; `special.workers.results` gives it its type."""
    parts: Sequence[bytes] = ()
    """The bytes of the result, in order."""


@dataclass(frozen=True, slots=True)
class Asks:
    """A job that talks to its parent has a question, and waits for `Told`."""

    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Gives:
    """A job that talks to its parent has a part of its result ready, and waits for `Told`."""

    value: Any
    parts: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised an error that its caller is to see."""

    error: SpecialError


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised any other exception."""

    text: str
    """Its traceback, for the log."""


Outcome = Returned | Raised | Failed
Said = Asks | Gives
Reply = Ready | Unready | Said | Outcome


def dump(message: Setup | Call | Told) -> list[bytes]:
    """A message to a child, in parts to be sent in order; large bytes inside it are not copied."""
    file = _Parts()
    pickle.Pickler(file, protocol=5).dump(message)
    return _joined([LENGTH.pack(sum(map(len, file.written))), *file.written])


def dump_reply(reply: Reply) -> list[bytes]:
    """A message to the parent, in parts to be sent in order; the bytes of a result are not copied."""
    parts: Sequence[bytes] = ()
    match reply:
        case Ready(sandbox):
            said: list[object] = ["ready", sandbox]
        case Unready(reason):
            said = ["unready", reason[-MAX_TEXT_CHARACTERS:]]
        case Asks(numbers):
            said = ["asks", list(numbers)]
        case Gives(value, parts):
            said = ["gives", value, [len(part) for part in parts]]
        case Returned(value, parts):
            said = ["returned", value, [len(part) for part in parts]]
        case Raised(error) if type(error) in _ERRORS.values():
            said = ["raised", error.code, str(error)[-MAX_TEXT_CHARACTERS:]]
        case Raised(error):
            said = ["failed", f"{type(error).__name__}: {error}"[-MAX_TEXT_CHARACTERS:]]
        case Failed(text):
            said = ["failed", text[-MAX_TEXT_CHARACTERS:]]
    header = json.dumps(said, separators=(",", ":")).encode()
    return _joined([LENGTHS.pack(len(header), sum(map(len, parts))), header, *parts])


def load_reply(header: bytes | bytearray | memoryview, body: memoryview) -> Reply:
    """A message from a child. Raises `ValueError` for anything that is none.

    Copies each part once, while the event loop waits: 0.01 ms for a tile of 50 KB, 0.04 for 1 MB, 2.6 for 20 MB.
    """
    try:
        said = json.loads(bytes(header))
    except RecursionError:
        raise ValueError("a header of too many levels") from None
    match said:
        case ["ready", dict(sandbox)] if not body and all(isinstance(it, bool) for it in sandbox.values()):
            return Ready(sandbox)
        case ["unready", str(reason)] if not body:
            return Unready(reason)
        case ["failed", str(text)] if not body:
            return Failed(text)
        case ["raised", str(code), str(text)] if not body and code in _ERRORS:
            return Raised(_ERRORS[code](text))
        case ["asks", list(numbers)] if not body and all(type(it) is int for it in numbers):
            return Asks(numbers)
        case ["gives", value, list(lengths)]:
            return Gives(value, _split(body, lengths))
        case ["returned", value, list(lengths)]:
            return Returned(value, _split(body, lengths))
    raise ValueError("a message that no child sends")


def _split(body: memoryview, lengths: list[Any]) -> list[bytes]:
    if not all(type(it) is int and it >= 0 for it in lengths) or sum(lengths) != len(body):
        raise ValueError("parts that are not as long as the body")
    parts, start = list[bytes](), 0
    for length in lengths:
        parts.append(bytes(body[start : start + length]))
        start += length
    return parts


def _joined(parts: list[bytes]) -> list[bytes]:
    return [b"".join(parts)] if sum(map(len, parts)) <= _JOIN_BYTES else parts


class _Parts:
    """A file that keeps what is written to it as separate parts."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, part: bytes) -> int:
        self.written.append(part)
        return len(part)
