"""Which masters to make renditions of: named one by one, listed by their source, or read from a file.

All of them stream: forty million identifiers take no more memory than ten.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import mimetypes
import re
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

from special.errors import BadRequest, ConfigurationError, Missing
from special.iiif import parse_identifier
from special.storage import Blob, Source

_TYPES = mimetypes.MimeTypes(filenames=())
_SIDE_FILES = frozenset(["db", "ini", "jsonl", "log", "md", "md5", "sha1", "sha256", "sha512", "toml", "yaml", "yml"])
"""Extensions of files that are found beside masters and have no registered media type."""
_LINES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image to make renditions of."""

    identifier: str
    blob: Blob | None = None
    """The master's current version, where a listing told it."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How identifiers and keys of masters belong together."""

    keys: tuple[str, ...] = ("{id}",)
    """Templates; the first key that exists is the master."""
    id_segments: int = 1
    """Path segments of an identifier. 1 also allows for slashes inside it, which URLs write as %2F."""

    def identifier(self, key: str) -> str | None:
        """The identifier whose master has this key; None for an object that is no master by its name.

        Where several templates fit, the one that says most about the key wins: `{id}.jp2` before `{id}`.
        """
        if not _may_be_image(key):
            return None
        for template in sorted(self.keys, key=len, reverse=True):
            match = re.fullmatch(_pattern(template), key, re.DOTALL)
            if match and self._addressable(match["id"]):
                return match["id"]
        return None

    async def locate(self, source: Source, identifier: str) -> Blob:
        """The master's current version: one HEAD per template until one exists. Raises `Missing`, `SourceError`."""
        for template in self.keys:
            try:
                return await source.stat(template.replace("{id}", identifier))
            except Missing:
                continue
        raise Missing(f"{source.root} has no object for '{identifier}' by the keys {', '.join(self.keys)}")

    def _addressable(self, identifier: str) -> bool:
        if self.id_segments > 1 and identifier.count("/") != self.id_segments - 1:
            return False
        try:
            return all(identifier.split("/")) and parse_identifier(_quoted(identifier)) == identifier
        except BadRequest:
            return False


async def named(identifiers: Iterable[str]) -> AsyncIterator[InputImage]:
    """The images with these identifiers."""
    for identifier in identifiers:
        yield InputImage(identifier)


async def listed(source: Source, naming: Naming) -> AsyncIterator[InputImage]:
    """Every image of a source, a page of its listing at a time.

    With one template the listing tells each master's version, and no HEAD is needed; with several, an
    object may be hidden by one that an earlier template names.
    """
    async for blob in source.list():
        identifier = naming.identifier(blob.key)
        if identifier is not None:
            yield InputImage(identifier, blob if len(naming.keys) == 1 else None)


async def read(path: str, *, root: str, naming: Naming) -> AsyncIterator[InputImage]:
    """The images that a file names, or standard input for `-`.

    One identifier a line; in a `.csv` or `.csv.gz`, the keys of an S3 inventory. Raises `ConfigurationError`.
    """
    with ExitStack() as stack:
        lines = iter(_opened(path, stack))
        inventory = path.removesuffix(".gz").endswith(".csv")
        identifiers = _of_inventory(lines, root, naming) if inventory else _of_lines(lines)
        # From a pipe each line is taken as it comes; from a file, many at a time.
        at_once = 1 if path == "-" else _LINES_AT_ONCE
        while batch := await asyncio.to_thread(_take, identifiers, at_once):
            for identifier in batch:
                yield InputImage(identifier)


def _opened(path: str, stack: ExitStack) -> io.TextIOBase | Iterable[str]:
    if path == "-":
        return sys.stdin
    try:
        if path.endswith(".gz"):
            return stack.enter_context(gzip.open(path, "rt", encoding="utf-8"))
        return stack.enter_context(Path(path).open(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the list of identifiers {path} cannot be read: {error.strerror}") from None


def _take(identifiers: Iterator[str], count: int) -> Sequence[str]:
    return list(islice(identifiers, count))


def _of_lines(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        identifier = line.rstrip("\r\n")
        if identifier:
            yield identifier


def _of_inventory(lines: Iterator[str], root: str, naming: Naming) -> Iterator[str]:
    # Amazon S3 User Guide, "Amazon S3 Inventory": no header; Bucket, Key (URL-encoded), then what was chosen.
    prefix = urlsplit(root).path.lstrip("/")
    for row in csv.reader(lines):
        if len(row) < 2:
            raise ConfigurationError(f"an S3 inventory has the columns Bucket and Key at least, not {row!r}")
        key = unquote_plus(row[1])
        identifier = naming.identifier(key[len(prefix) :]) if key.startswith(prefix) else None
        if identifier is not None:
            yield identifier


def _pattern(template: str) -> str:
    """A key template as a regular expression; an `{id}` that comes again must be the same again."""
    before, *after = (re.escape(part) for part in template.split("{id}"))
    return f"{before}(?P<id>.+){'(?P=id)'.join(after)}"


def _may_be_image(key: str) -> bool:
    """False for what a well-known extension says is no image, and for hidden files."""
    name = key.rpartition("/")[2]
    if not name or name.startswith(".") or name.rpartition(".")[2].lower() in _SIDE_FILES:
        return False
    kind, packing = _TYPES.guess_type(f"file:{name}", strict=False)
    return packing is None and (kind is None or kind.startswith("image/"))


def _quoted(identifier: str) -> str:
    return identifier.replace("%", "%25")
