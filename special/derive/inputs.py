"""Which masters to make renditions of: named one by one, listed by their source, or read from a file.

All of them stream: forty million identifiers take no more memory than ten.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import os
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

from special.catalogue import Catalogue
from special.errors import ConfigurationError, Missing
from special.images import KeyTemplates, LeftOut
from special.renditions import SIDECAR_NAME
from special.storage import Blob, Source

_LINES_AT_ONCE = 1000
BYTE_ORDER_MARKS = b"\xff\xfe"
"""What UTF-16 begins with, in either order; no UTF-8 has these bytes."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image to make renditions of."""

    identifier: str
    blob: Blob | None = None
    """The master's current version, where a listing gave it."""
    listed: bool = field(default=False, compare=False)
    """Whether it is only what a listing found, which may be no image."""


async def locate(source: Source, templates: KeyTemplates, identifier: str, catalogue: Catalogue | None = None) -> Blob:
    """The master's current version: one HEAD per template, or place in the catalogue, until one exists.

    Raises `Missing`, `SourceError`, `CatalogueError`.
    """
    if catalogue is not None:
        keys, page = await catalogue.places(identifier), await catalogue.page_of(identifier)
    else:
        keys, page = templates.keys_of(identifier), templates.form.split(identifier)[1]
    for key in keys:
        try:
            return replace(await source.stat(key), page=page)
        except Missing:
            continue
    if catalogue is not None:
        raise Missing(f"'{identifier}' is in the catalogue, and there is no object in its place")
    raise Missing(f"{source.root} has no object for '{identifier}' by the keys {templates}")


async def named(identifiers: Iterable[str]) -> AsyncIterator[InputImage]:
    """The images with these identifiers. Raises `ConfigurationError` for one that is no UTF-8 text."""
    for identifier in identifiers:
        try:
            identifier.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"the identifier {identifier!r} is no UTF-8 text: write it in UTF-8") from None
        yield InputImage(identifier)


async def listed(
    source: Source,
    templates: KeyTemplates,
    catalogue: Catalogue | None = None,
    *,
    leave_out: Callable[[str, LeftOut], None] = lambda key, why: None,
) -> AsyncIterator[InputImage]:
    """Every image of a source, or of a catalogue that can list its images; a page at a time.

    `leave_out` is told of keys that have no identifier, and why.

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
            yield InputImage(identifier, blob if len(templates.templates) == 1 else None, listed=True)
        elif (why := templates.left_out(blob.key)) is not None:
            leave_out(blob.key, why)


async def stored(thumbs: Source) -> AsyncIterator[InputImage]:
    """Every image of which something is stored, by its side-car, a page of the listing at a time."""
    async for blob in thumbs.list():
        identifier = blob.key.removesuffix(f"/{SIDECAR_NAME}")
        if identifier != blob.key:
            yield InputImage(identifier)


async def matching(
    images: AsyncIterator[InputImage], include: Sequence[str], exclude: Sequence[str]
) -> AsyncIterator[InputImage]:
    """Those whose identifier matches a pattern of `include`, if there are any, and none of `exclude`."""
    async for image in images:
        wanted = not include or any(fnmatchcase(image.identifier, it) for it in include)
        if wanted and not any(fnmatchcase(image.identifier, it) for it in exclude):
            yield image


def comes_once(path: str) -> bool:
    """Whether a list of names can be read only once: standard input, or a pipe, as of a shell's `<(…)`."""
    return path == "-" or (os.path.exists(path) and not os.path.isfile(path))


async def read(
    path: str, *, root: str, templates: KeyTemplates, catalogue: Catalogue | None = None
) -> AsyncIterator[InputImage]:
    """The images that a file names, or standard input for `-`.

    One identifier a line; in a `.csv` or `.csv.gz`, the keys of an S3 inventory. Raises `ConfigurationError`.
    """
    with ExitStack() as stack:
        lines = _decoded(path, iter(_opened(path, stack)))
        inventory = path.removesuffix(".gz").endswith(".csv")
        if not inventory:
            found = _of_lines(lines)
        elif catalogue is not None:
            found = (f"s3://{bucket}/{key}" for bucket, key in _of_inventory(lines))
        else:
            found = _identifiers(_of_inventory(lines), root, templates)
        # From a pipe each line is taken as it comes; from a file, many at a time.
        at_once = 1 if comes_once(path) else _LINES_AT_ONCE
        while batch := await asyncio.to_thread(_take, found, at_once):
            for name in batch:
                for identifier in await catalogue.identifiers_of(name) if catalogue and inventory else (name,):
                    yield InputImage(identifier)


def _opened(path: str, stack: ExitStack) -> io.TextIOBase | Iterable[str]:
    if path == "-":
        # As a file is read: by no locale, which would let through what is no UTF-8 text, and a byte order mark.
        return stack.enter_context(open(sys.stdin.fileno(), encoding="utf-8-sig", closefd=False))
    try:
        file = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115 - the stack is one
        if file.peek(4).startswith(b"PAR1"):
            raise ConfigurationError(f"{path} is a Parquet file: have the inventory written as CSV")
        if path.endswith(".gz"):
            return stack.enter_context(gzip.open(file, "rt", encoding="utf-8-sig"))
        return stack.enter_context(io.TextIOWrapper(file, encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"the list of identifiers {path} cannot be read: {error.strerror}") from None


def _decoded(path: str, lines: Iterator[str]) -> Iterator[str]:
    """The lines of a file. Raises `ConfigurationError` where they are no text."""
    try:
        for line in lines:
            if "\0" in line:
                raise ConfigurationError(f"{path} is no UTF-8 text, for it has zero bytes: {_convert('utf-16')}")
            yield line
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        found = "utf-16" if not error.start and byte in BYTE_ORDER_MARKS else "latin1"
        raise ConfigurationError(f"{path} is no UTF-8 text (byte 0x{byte:02x}): {_convert(found)}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} is cut off, or is no gzip file: {error}") from None


def _convert(encoding: str) -> str:
    return f"convert it, as with `iconv -f {encoding} -t utf-8`"


def _take(identifiers: Iterator[str], count: int) -> Sequence[str]:
    return list(islice(identifiers, count))


def _of_lines(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        identifier = line.rstrip("\r\n")
        if identifier:
            yield identifier


def _identifiers(objects: Iterator[tuple[str, str]], root: str, templates: KeyTemplates) -> Iterator[str]:
    """Identifiers of objects below a root. Raises `ConfigurationError` where there are objects, and none of them is."""
    place = urlsplit(root)
    prefix = place.path.lstrip("/")
    elsewhere, found = "", False
    for bucket, key in objects:
        if bucket != place.netloc or not key.startswith(prefix):
            elsewhere = elsewhere or f"{bucket}/{key}"
            continue
        found = True
        identifier = templates.identifier_of(key[len(prefix) :])
        if identifier is not None:
            yield identifier
    if elsewhere and not found:
        raise ConfigurationError(f"the inventory has nothing of {root}: its first row is of {elsewhere}")


def _of_inventory(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Bucket and key of each object."""
    # Amazon S3 User Guide, "Amazon S3 Inventory": no header; Bucket, Key (URL-encoded), then what was chosen.
    for row in csv.reader(lines):
        if len(row) < 2:
            raise ConfigurationError(f"an S3 inventory has the columns Bucket and Key at least, not {row!r}")
        yield row[0], unquote_plus(row[1])
