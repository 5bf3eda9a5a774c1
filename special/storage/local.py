"""A folder as a source.

Keys are paths below the folder, and nothing outside it can be named: no `..`, no absolute path, no
symbolic link that leads away. A file is found by its exact name alone, also where the file system folds case, as on
a Mac or a memory card: a rule knows no other spelling.

Every call hops to a thread once and does all of its disk work there; no descriptor stays open between two calls.
Listings have a thread of their own: reads never wait for them.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import secrets
import stat
import time
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import TypeVar

from special.concurrency import temporary_file
from special.errors import Changed, ConfigurationError, Denied, Missing, SourceError, Unreachable
from special.storage.blob import Absent, Blob, NotModified, Span, Suffix, Unless
from special.storage.checks import clip, count_get, counting_errors, require
from special.storage.source import Opened

T = TypeVar("T")

log = logging.getLogger(__name__)

CHUNK_BYTES = 262144
"""A body is streamed in chunks of this size."""
PAGE_KEYS = 1000
"""Keys listed in one hop."""
SORTED_ENTRIES = 1024
"""Entries of a folder that are sorted at once. To sort 100,000 would keep all other threads waiting for 50 ms."""
PAUSE_S = 0.0005
"""Pause after those, in which other threads run."""
_TEMPORARY = ".special-writing-"
"""Prefix of the names of files that are being written. They are never listed."""
_NO_SUCH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO}


async def _in_thread(work: Callable[[], T]) -> T:
    """The one hop to a thread for all disk work of this module."""
    return await asyncio.to_thread(work)


@dataclass(slots=True)
class _Scan:
    """What a listing looks for, and how far it may go."""

    prefix: str
    after: str
    entries_left: int | None = None
    """Entries of folders that may still be looked at; None: all."""


class Folder:
    """A folder of the local file system, as a `Source`."""

    def __init__(self, path: Path) -> None:
        self._path = os.path.realpath(path)
        self._given = os.path.abspath(path)
        self._root = Path(self._path).as_uri().rstrip("/") + "/"
        self._lister = ThreadPoolExecutor(1, "special-listing")
        self._folds_case: bool | None = None  # unknown while there is no name to try it on
        self._told_of_links = False

    @property
    def root(self) -> str:
        return self._root

    @property
    def path(self) -> str:
        """The folder's own path, without symbolic links."""
        return self._path

    def key_of(self, path: Path) -> str | None:
        """The key of a file by its absolute path; None for one elsewhere. Looks at no disk."""
        for folder in (self._path, self._given):
            if path.is_relative_to(folder):
                return str(path.relative_to(folder))
        return None

    async def check(self) -> None:
        """Raise `ConfigurationError` if the folder is not there or cannot be read."""
        if not await _in_thread(lambda: Path(self._path).is_dir()):
            raise ConfigurationError(f"there is no folder {self._path}: create it, or name another one")
        if not await _in_thread(lambda: os.access(self._path, os.R_OK | os.X_OK)):
            raise ConfigurationError(f"the folder {self._path} cannot be read: give this user read permission")

    async def stat(self, key: str) -> Blob:
        with counting_errors():
            return await _in_thread(lambda: self._stat(key))

    async def read(self, blob: Blob, spans: Sequence[Span]) -> list[bytes]:
        for span in spans:
            require(span, blob)
            count_get(len(span))
        with counting_errors():
            return list(await _in_thread(lambda: self._read(blob, spans)))

    async def open(
        self, key: str, *, span: Span | Suffix | None = None, pin: Blob | None = None, unless: Unless | None = None
    ) -> Opened:
        with counting_errors():
            blob, sent, first = await _in_thread(lambda: self._open(key, span, pin, unless))
        count_get(len(sent) if sent else 0)
        return Opened(blob, sent, self._chunks(blob, sent, first))

    async def write(self, key: str, data: bytes, *, media: str | None = None, pin: Blob | Absent | None = None) -> Blob:
        with counting_errors():
            return await _in_thread(lambda: self._write(key, data, pin))

    async def signed_url(self, key: str) -> str | None:
        return None

    async def delete(self, key: str) -> None:
        with counting_errors():
            await _in_thread(lambda: self._delete(key))

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Blob]:
        found = self._scan("", _Scan(prefix, after), frozenset())
        while page := await self._listed(lambda: list(islice(found, PAGE_KEYS))):
            for blob in page:
                yield blob

    async def children(self, prefix: str = "", *, first_only: bool = False) -> AsyncGenerator[Blob | str, None]:
        found = self._children(prefix, _Scan("", ""))
        with suppress(Missing):  # a folder that is not there is empty, as in a bucket
            while page := await self._listed(lambda: list(islice(found, 1 if first_only else PAGE_KEYS))):
                for child in page:
                    yield child
                    if first_only:
                        return

    async def first_entries(
        self, count: int, *, folder: str, after: str, max_entries: int, wanted: Callable[[str], bool]
    ) -> Sequence[str]:
        """The first keys and folders right below a folder that are wanted, in the order of `list`.

        Folders end in a slash, as `folder` does unless it is empty. Only the first `max_entries` entries are looked
        at, as the disk gives them. Raises `Missing`, `Denied`.
        """
        found = self._children(folder, _Scan(folder, after, max_entries), wanted)
        return await self._listed(lambda: [it if isinstance(it, str) else it.key for it in islice(found, count)])

    async def hides_absence(self) -> bool:
        """A file system tells what is not there from what is denied."""
        return False

    async def is_empty(self) -> bool:
        """Whether there is no file among the first thousand entries of folders."""
        found = self._scan("", _Scan("", "", PAGE_KEYS), frozenset())
        return not await self._listed(lambda: list(islice(found, 1)))

    async def close(self) -> None:
        """Nothing stays open between calls."""
        self._lister.shutdown(wait=False)

    async def _listed(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._lister, work)

    def _stat(self, key: str) -> Blob:
        with self._opened(key) as file:
            return self._blob(key, os.fstat(file))

    def _read(self, blob: Blob, spans: Sequence[Span]) -> tuple[bytes, ...]:
        """Spans of the pinned version: it is checked before and after, so that a write in between is noticed."""
        with self._opened(blob.key) as file:
            self._expect(blob, file)
            bodies = tuple(_pread(file, span.start, span.stop) for span in spans)
            self._expect(blob, file)
        for span, body in zip(spans, bodies, strict=True):
            if len(body) != len(span):
                raise Changed(f"{blob.url} gave {len(body)} bytes for the {len(span)} at {span.start}")
        return bodies

    def _open(
        self, key: str, span: Span | Suffix | None, pin: Blob | None, unless: Unless | None
    ) -> tuple[Blob, Span | None, bytes]:
        with self._opened(key) as file:
            blob = self._blob(key, os.fstat(file))
            if pin is not None:
                self._expect(pin, file)
            if unless and unless.hold(blob.etag, blob.modified):
                raise NotModified(blob.etag)
            start, stop = clip(span, blob.size)
            first = _pread(file, start, min(stop, start + CHUNK_BYTES))
            self._expect(blob, file)
            return blob, Span(start, stop) if stop > start else None, first

    async def _chunks(self, blob: Blob, sent: Span | None, first: bytes) -> AsyncGenerator[bytes, None]:
        if sent is None:
            return
        yield first
        for start in range(sent.start + len(first), sent.stop, CHUNK_BYTES):
            part = Span(start, min(start + CHUNK_BYTES, sent.stop))
            with counting_errors():
                (chunk,) = await _in_thread(lambda part=part: self._read(blob, [part]))  # type: ignore[misc]
            yield chunk

    def _write(self, key: str, data: bytes, pin: Blob | Absent | None) -> Blob:
        """Under another name first, then renamed: readers see all or nothing."""
        path = self._locate(key)
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        with self._explained(key):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary_file(path, temporary=temporary) as (file, _):
                    file.write(data)
                    file.flush()
                    # The kernel's own stamp is as coarse as its tick; two versions in one tick must differ.
                    now_ns = time.time_ns()
                    os.utime(file.fileno(), ns=(now_ns, now_ns))
                    os.fsync(file.fileno())
                    with _locked(path.parent):
                        match pin:
                            case Blob():
                                self._expect_still(pin, path)
                            case Absent() if path.exists():
                                raise Changed(f"{self._root}{key} is there by now")
                        temporary.replace(path)
                    return self._blob(key, os.fstat(file.fileno()))
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                message = f"{self._root}{key}: a folder and a file would need the same name; keep such keys in a bucket"
                raise SourceError(message) from error

    def _delete(self, key: str) -> None:
        with suppress(Missing), self._explained(key):
            self._locate(key).unlink()

    def _scan(self, folder: str, scan: _Scan, above: frozenset[tuple[int, int]]) -> Iterator[Blob]:
        """Blobs below one folder in the order of their whole keys, as a bucket lists them."""
        with self._explained(folder), os.scandir(os.path.join(self._path, folder)) as entries:
            names = merge(*_sorted_names(entries, scan))
            inode = os.stat(os.path.join(self._path, folder))
        here = (inode.st_dev, inode.st_ino)
        if here in above:
            return  # a symbolic link back to a folder that is being listed
        for name in names:
            key = folder + name
            if name.endswith("/"):
                wanted = key.startswith(scan.prefix) or scan.prefix.startswith(key)
                if wanted and (key > scan.after or scan.after.startswith(key)) and self._within(key[:-1]):
                    yield from self._scan(key, scan, above | {here})
            elif key.startswith(scan.prefix) and key > scan.after and not name.startswith(_TEMPORARY):
                with suppress(Missing):  # removed since, a socket, or a link that leads away
                    yield self._stat(key)

    def _children(
        self, folder: str, scan: _Scan, wanted: Callable[[str], bool] = lambda key: True
    ) -> Iterator[Blob | str]:
        """What one folder has, in the order of the keys. Raises `Missing`."""
        path = self._locate(folder[:-1]) if folder else Path(self._path)
        with self._explained(folder), os.scandir(path) as entries:
            names = merge(*_sorted_names(entries, scan))
        for key in (folder + name for name in names if not name.startswith(_TEMPORARY)):
            if key > scan.after and wanted(key):
                with suppress(Missing):  # as above
                    if key.endswith("/"):
                        self._locate(key[:-1])
                        yield key
                    else:
                        yield self._stat(key)

    def _locate(self, key: str) -> Path:
        """Where a key's file is. Raises `Missing` for what no file below the folder can be."""
        parts = key.split("/")
        if "\0" in key or any(part in ("", ".", "..") for part in parts) or not _nameable(key):
            raise Missing(f"{key!r} names nothing in {self._path}")
        if not self._within(key):
            raise Missing(f"{key!r} leads out of {self._path} by a symbolic link")
        if self._folds_case is None:
            self._folds_case = _folds_case(self._path)
        with self._explained(key):
            if self._folds_case and not _is_exact(self._path, parts):
                raise Missing(f"{key!r} is spelled otherwise in {self._path}")
        return Path(self._path, *parts)

    def _within(self, key: str) -> bool:
        path = os.path.join(self._path, key)
        real = os.path.realpath(path)
        if os.path.commonpath((self._path, real)) == self._path:
            return True
        if not self._told_of_links:
            self._told_of_links = True
            log.warning(
                "%s leads out of %s by a symbolic link: it is left out, and so are all such; name the folder that they "
                "lead to as a source, or mount it there",
                path,
                self._path,
            )
        return False

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """A descriptor of a regular file. Never waits for the other end of a pipe."""
        path = self._locate(key)
        with self._explained(key):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise Missing(f"{path} is not a file")
                yield file
            finally:
                os.close(file)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Operating system errors as ours."""
        try:
            yield
        except PermissionError as error:
            raise Denied(f"{self._root}{key}: {error.strerror}; give this user the permission") from error
        except OSError as error:
            if error.errno in _NO_SUCH:
                raise Missing(f"there is no {self._root}{key}") from error
            raise Unreachable(f"{self._root}{key}: {error.strerror}") from error

    def _blob(self, key: str, stat_result: os.stat_result) -> Blob:
        # With ctime, which no program can set: an overwrite in place may keep the size and restore the mtime.
        versions = (stat_result.st_ino, stat_result.st_mtime_ns, stat_result.st_ctime_ns, stat_result.st_size)
        etag = f'"{"-".join(f"{number:x}" for number in versions)}"'
        modified = datetime.fromtimestamp(stat_result.st_mtime_ns / 1e9, UTC)
        return Blob(self._root, key, etag, stat_result.st_size, None, modified)

    def _expect(self, blob: Blob, file: int) -> None:
        found = self._blob(blob.key, os.fstat(file))
        if found.etag != blob.etag:
            raise Changed(f"{blob.url} is {found.etag} by now, not {blob.etag}")

    def _expect_still(self, pin: Blob, path: Path) -> None:
        try:
            found = self._blob(pin.key, path.stat()).etag
        except FileNotFoundError:
            found = "gone"
        if found != pin.etag:
            raise Changed(f"{pin.url} is {found} by now, not {pin.etag}")


def _sorted_names(entries: Iterator[os.DirEntry[str]], scan: _Scan) -> list[list[str]]:
    """The names in a folder, sorted in pieces. A folder sorts as its keys do, by name and slash: `a.jp2`, then `a/`."""
    pieces = []
    while piece := list(islice(entries, SORTED_ENTRIES)):
        if scan.entries_left is not None:
            piece = piece[: scan.entries_left]
            scan.entries_left -= len(piece)
        pieces.append(sorted(entry.name + "/" * _is_folder(entry) for entry in piece if _nameable(entry.name)))
        if scan.entries_left == 0:
            break
        time.sleep(PAUSE_S)
    return pieces


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one. Looks at the disk only for links."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _nameable(name: str) -> bool:
    """Whether a file's name is valid UTF-8, as keys are."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folds_case(folder: str) -> bool | None:
    """Whether another case of a name, which is not listed, is there all the same; None where no name has a letter."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            other = entry.name.swapcase()
            if other != entry.name:
                return os.path.lexists(os.path.join(folder, other)) and other not in os.listdir(folder)
    return None


def _is_exact(folder: str, parts: Sequence[str]) -> bool:
    """Whether each part of a path is spelled as in its folder, or not there. Reads the folders."""
    for part in parts:
        names = {unicodedata.normalize("NFC", name) for name in os.listdir(folder)}
        folder = os.path.join(folder, part)
        if unicodedata.normalize("NFC", part) not in names:
            return not os.path.lexists(folder)
    return True


def _pread(file: int, start: int, stop: int) -> bytes:
    """Bytes of a file, fewer only where it ends. Linux gives no more than 2 GiB - 4 KiB at once."""
    parts: list[bytes] = []
    while start < stop and (part := os.pread(file, stop - start, start)):
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Exclusive among writers into a folder: a version is compared and replaced in one step."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        os.fsync(file)
    finally:
        os.close(file)
