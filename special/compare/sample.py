"""Which requests of a log are asked: those for images and info.json, of a bounded sample."""

from __future__ import annotations

import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from gzip import GzipFile
from io import BufferedReader, TextIOWrapper
from typing import Literal, cast

from special.compare.access_log import targets
from special.errors import ConfigurationError

RequestKind = Literal["info.json", "full", "part"]
"""A description, a whole picture at some size, or a region of one."""
REQUEST_KINDS: tuple[RequestKind, ...] = ("info.json", "full", "part")

_IMAGE = re.compile(
    r".+/(full|square|(?:pct(?::|%3A))?[\d.]+(?:(?:,|%2C)[\d.]+){3})/[^/]+/[^/]+/[a-z]+(?:\.[a-z0-9]+)?",
    re.ASCII | re.IGNORECASE,
)
"""identifier/region/size/rotation/quality.format; Image API 1 has requests without a format."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Request:
    """One address below a server's prefix, and how often the sample has it."""

    path: str
    """Percent-encoded, without a leading slash and without a query."""
    kind: RequestKind
    count: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """What is asked, and of how much that is a sample."""

    requests: tuple[Request, ...]
    """Each address once, in the order in which the log first has them."""
    fitting: int
    """Lines with a GET request for an image or an info.json below the prefix."""
    others: int
    """All other lines."""


def kind_of(path: str) -> RequestKind | None:
    """What kind of IIIF request a path is; None where it is none."""
    if path.endswith("/info.json"):
        return "info.json"
    match = _IMAGE.fullmatch(path)
    if match is None:
        return None
    return "full" if match[1].lower() == "full" else "part"


def read(logs: Sequence[str], *, prefix: str, limit: int) -> Sample:
    """A sample of at most `limit` lines of log files; `-` is standard input, gzip is recognised.

    `prefix` is what the addresses of the log begin with. Raises `ConfigurationError` where a file cannot be read.
    """
    return draw((target for log in logs for target in _of_file(log)), prefix=prefix, limit=limit)


def draw(found: Iterable[str | None], *, prefix: str, limit: int) -> Sample:
    """Each line that fits has the same chance (Vitter, 1985, algorithm R); the same log gives the same sample."""
    chance = random.Random(0)  # noqa: S311 - a sample is no secret
    chosen: list[tuple[int, str]] = []
    fitting = others = 0
    for target in found:
        path = None if target is None else below(target, prefix)
        if path is None or kind_of(path) is None:
            others += 1
            continue
        if len(chosen) < limit:
            chosen.append((fitting, path))
        elif (place := chance.randrange(fitting + 1)) < limit:
            chosen[place] = (fitting, path)
        fitting += 1
    return Sample(distinct(path for _, path in sorted(chosen)), fitting, others)


def distinct(paths: Iterable[str]) -> tuple[Request, ...]:
    """Each path once, with its count; those that are no IIIF requests are left out."""
    return tuple(Request(path, kind, count) for path, count in Counter(paths).items() if (kind := kind_of(path)))


def below(target: str, prefix: str) -> str | None:
    """What follows the prefix in a target, without the query; None where it begins otherwise.

    The prefix may end inside a query, such as `/iipsrv.fcgi?IIIF=`.
    """
    if not target.startswith(prefix):
        return None
    rest = target[len(prefix) :]
    return re.split("[?&]" if "?" in prefix else "[?]", rest, maxsplit=1)[0].lstrip("/")


def _of_file(name: str) -> Iterator[str | None]:
    try:
        with cast("BufferedReader", sys.stdin.buffer) if name == "-" else open(name, "rb") as raw:
            packed = raw.peek(len(_GZIP)).startswith(_GZIP)
            with TextIOWrapper(GzipFile(fileobj=raw) if packed else raw, encoding="utf-8", errors="replace") as lines:
                yield from targets(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"the log {name} cannot be read: {error}") from None
