"""Which masters to make renditions of: named one by one, listed by their source, or read from a file.

All of them stream: forty million identifiers take no more memory than ten.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

from special.catalogue import Catalogue
from special.errors import ConfigurationError, Missing
from special.images import KeyTemplates
from special.storage import Blob, Source

_LINES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image to make renditions of."""

    identifier: str
    blob: Blob | None = None
    """The master's current version, where a listing gave it."""


async def locate(source: Source, templates: KeyTemplates, identifier: str, catalogue: Catalogue | None = None) -> Blob:
    """The master's current version: one HEAD per template, or place in the catalogue, until one exists.

    Raises `Missing`, `SourceError`, `CatalogueError`.
    """
    for key in await catalogue.places(identifier) if catalogue is not None else templates.keys_of(identifier):
        try:
            return await source.stat(key)
        except Missing:
            continue
    if catalogue is not None:
        raise Missing(f"'{identifier}' is in the catalogue, and there is no object in its place")
    raise Missing(f"{source.root} has no object for '{identifier}' by the keys {templates}")


async def named(identifiers: Iterable[str]) -> AsyncIterator[InputImage]:
    """The images with these identifiers."""
    for identifier in identifiers:
        yield InputImage(identifier)


async def listed(
    source: Source, templates: KeyTemplates, catalogue: Catalogue | None = None
) -> AsyncIterator[InputImage]:
    """Every image of a source, or of a catalogue that can list its images; a page at a time.

    With one template the listing tells each master's version, and no HEAD is needed; with several, an
    object may be hidden by one that an earlier template names.
    """
    if catalogue is not None:
        async for known in catalogue.identifiers():
            yield InputImage(known)
        return
    async for blob in source.list():
        identifier = templates.identifier_of(blob.key)
        if identifier is not None:
            yield InputImage(identifier, blob if len(templates.templates) == 1 else None)


async def read(
    path: str, *, root: str, templates: KeyTemplates, catalogue: Catalogue | None = None
) -> AsyncIterator[InputImage]:
    """The images that a file names, or standard input for `-`.

    One identifier a line; in a `.csv` or `.csv.gz`, the keys of an S3 inventory. Raises `ConfigurationError`.
    """
    with ExitStack() as stack:
        lines = iter(_opened(path, stack))
        inventory = path.removesuffix(".gz").endswith(".csv")
        if not inventory:
            found = _of_lines(lines)
        elif catalogue is not None:
            found = (f"s3://{bucket}/{key}" for bucket, key in _of_inventory(lines))
        else:
            found = _identifiers(_of_inventory(lines), root, templates)
        # From a pipe each line is taken as it comes; from a file, many at a time.
        at_once = 1 if path == "-" else _LINES_AT_ONCE
        while batch := await asyncio.to_thread(_take, found, at_once):
            for name in batch:
                for identifier in await catalogue.identifiers_of(name) if catalogue and inventory else (name,):
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


def _identifiers(objects: Iterator[tuple[str, str]], root: str, templates: KeyTemplates) -> Iterator[str]:
    prefix = urlsplit(root).path.lstrip("/")
    for _, key in objects:
        identifier = templates.identifier_of(key[len(prefix) :]) if key.startswith(prefix) else None
        if identifier is not None:
            yield identifier


def _of_inventory(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Bucket and key of each object."""
    # Amazon S3 User Guide, "Amazon S3 Inventory": no header; Bucket, Key (URL-encoded), then what was chosen.
    for row in csv.reader(lines):
        if len(row) < 2:
            raise ConfigurationError(f"an S3 inventory has the columns Bucket and Key at least, not {row!r}")
        yield row[0], unquote_plus(row[1])
