"""What is done for one image, and what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from special.derive.inputs import InputImage
from special.derive.plan import AccessChange

Result = Literal["made", "stood", "due", "sound", "wrong", "removed", "foreign", "failed"]
"""made: something was done; stood: nothing had to be; due: something would be; sound and wrong: what a
check found; removed: the master is gone, and so are its renditions; foreign: others wrote the sizes file, and it is
left alone; failed: an error was in the way."""

RESULTS: tuple[Result, ...] = ("made", "stood", "due", "sound", "wrong", "removed", "foreign", "failed")
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
    planned_bytes: int = 0
    """About what a pyramid that is due will take in the store."""

    def plain(self) -> dict[str, Any]:
        """One line of `--json`."""
        fields = asdict(self) | {"decode_ms": round(self.decode_ms, 1)}
        left_out = {name for name in ("access", "planned_bytes") if not fields[name]}
        return {name: value for name, value in fields.items() if name not in left_out}


Work = Callable[[InputImage], Awaitable[Outcome]]
"""What is done for one image. May raise any `SpecialError`."""
