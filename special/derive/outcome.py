"""What is done for one image, and what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from special.derive.inputs import InputImage
from special.derive.plan import AccessChange

Result = Literal["made", "stood", "due", "sound", "wrong", "removed", "foreign", "skipped", "failed"]
"""made: something was done; stood: nothing had to be; due: something would be; sound and wrong: what a
check found; removed: the master is gone, and so are its renditions; foreign: others wrote the sizes file, and it is
left alone; skipped: a listing found it, and it is no image; failed: an error was in the way."""

RESULTS: tuple[Result, ...] = ("made", "stood", "due", "sound", "wrong", "removed", "foreign", "skipped", "failed")
BAD: frozenset[Result] = frozenset({"wrong", "failed"})
"""Results that make a run exit with 1."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image's result."""

    identifier: str
    result: Result
    detail: str = ""
    """What was done, would be done, or is wrong; one sentence."""
    access: AccessChange = ""
    """What becomes of restrictions, or would become of them."""
    written: int = 0
    """How many renditions were written."""
    gets: int = 0
    """GET requests that it took, those to the store of renditions included."""
    bytes: int = 0
    """Bytes that they asked for."""
    decode_ms: float = 0.0
    """Time in the decoder process, encoding included."""
    incomplete: str = ""
    """Why not all of the master's picture is in its file, where pixels were read; the rest was made grey."""
    planned_bytes: int = 0
    """About what a pyramid that is due will take in the store."""
    due_reads: int = 0
    """Bytes of the master that would be read, at most."""
    due_puts: int = 0
    """Objects that would be written, at most."""

    @property
    def reason(self) -> str:
        """All that is said of the image, on one line."""
        return "; ".join(filter(None, (self.detail, self.incomplete)))

    def plain(self) -> dict[str, Any]:
        """One line of `--json`."""
        fields = asdict(self) | {"decode_ms": round(self.decode_ms, 1)}
        return {name: value for name, value in fields.items() if value or name not in _ONLY_IF_SET}


_ONLY_IF_SET = ("access", "incomplete", "planned_bytes", "due_reads", "due_puts")

Work = Callable[[InputImage], Awaitable[Outcome]]
"""What is done for one image. May raise any `SpecialError`."""
