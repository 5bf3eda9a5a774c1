"""The results of jobs on their way from a decoder process: JSON and raw bytes, checked by the parent.

A form belongs to a function. It takes a result apart in the child, puts it together in the parent, and says how long
the bytes may be, by the job's own arguments. A reply that does not fit its job is that of a broken process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from special.codecs import CutTiles, Rendered, TileCut, cut_tiles, render, render_all
from special.iiif import Job
from special.workers.messages import Returned

FILE_BYTES: Final = 1 << 16
"""What any file may have beside its pixels: headers, tables, palettes."""
PIXEL_BYTES: Final = 6
"""Maximum length of an encoded pixel: 4 channels of 8 bits, and half as much again for what does not compress."""
PLAIN_BYTES: Final = 32 << 20
"""Maximum length of bytes that a function without a form of its own may return."""


@dataclass(frozen=True, slots=True)
class ResultForm:
    """How one function's results travel."""

    pack: Callable[[Any], Returned]
    """In the child: the result taken apart."""
    unpack: Callable[[Returned, tuple[Any, ...]], Any]
    """In the parent: the result, from what came and the job's arguments. Raises `ValueError` where they do not fit."""
    max_bytes: Callable[[tuple[Any, ...]], int]
    """Maximum length of the bytes, by the job's arguments."""


def form_of(function: Callable[..., object]) -> ResultForm:
    """The form of a function's results; of one that has none of its own, bytes or what JSON can say."""
    return _FORMS.get(function, _PLAIN)


def _pack_rendered(results: Sequence[Rendered]) -> Returned:
    return Returned([[it.decode_ms, it.encode_ms] for it in results], [it.data for it in results])


def _unpack_rendered(returned: Returned, jobs: Sequence[Job]) -> list[Rendered]:
    times = returned.value
    _check(isinstance(times, list) and len(times) == len(returned.parts) == len(jobs))
    _check(all(isinstance(pair, list) and [type(ms) for ms in pair] == [float, float] for pair in times))
    return [Rendered(data, *pair) for data, pair in zip(returned.parts, times, strict=True)]


def _rendered_bytes(jobs: Sequence[Job]) -> int:
    return sum(FILE_BYTES + PIXEL_BYTES * job.output.area for job in jobs)


def _pack_tiles(result: CutTiles) -> Returned:
    return Returned(
        [result.channels, [len(it) for it in result.encoded]], [data for it in result.encoded for data in it]
    )


def _unpack_tiles(returned: Returned, cuts: Sequence[TileCut]) -> CutTiles:
    _check(isinstance(returned.value, list) and len(returned.value) == 2)
    channels, counts = returned.value
    _check(channels in (1, 3) and isinstance(counts, list) and len(counts) == len(cuts))
    _check(all(it in (1, 2) for it in counts) and sum(counts) == len(returned.parts))
    parts = iter(returned.parts)
    return CutTiles(tuple(tuple(next(parts) for _ in range(count)) for count in counts), channels)


def _tiles_bytes(cuts: Sequence[TileCut], tile: int) -> int:
    return len(cuts) * 2 * (FILE_BYTES + PIXEL_BYTES * tile**2)  # each as it is, and filled up to a whole one


def _pack_plain(result: object) -> Returned:
    return Returned(None, [result]) if isinstance(result, bytes) else Returned(result)


def _unpack_plain(returned: Returned) -> object:
    _check(not returned.parts or (returned.value is None and len(returned.parts) == 1))
    return returned.parts[0] if returned.parts else returned.value


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("a result that does not fit its job")


_PLAIN: Final = ResultForm(_pack_plain, lambda returned, args: _unpack_plain(returned), lambda args: PLAIN_BYTES)
_FORMS: Final[dict[Callable[..., object], ResultForm]] = {
    render: ResultForm(
        lambda result: _pack_rendered([result]),
        lambda returned, args: _unpack_rendered(returned, [args[1]])[0],
        lambda args: _rendered_bytes([args[1]]),
    ),
    render_all: ResultForm(
        _pack_rendered,
        lambda returned, args: _unpack_rendered(returned, args[1]),
        lambda args: _rendered_bytes(args[1]),
    ),
    cut_tiles: ResultForm(
        _pack_tiles,
        lambda returned, args: _unpack_tiles(returned, args[1]),
        lambda args: _tiles_bytes(args[1], args[2]),
    ),
}
