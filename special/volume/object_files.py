"""The files of one object: a sparse data file, and a map of the blocks that are in it.

An object that is protected (a shared lock on a byte of the map) is not evicted, by any process. What is read is
checked, every time: at 20 GB/s a checksum costs less than remembering when it may be left out. All calls block;
`peek` alone is safe in an event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from special.concurrency import replace_file
from special.volume import locks
from special.volume.blocks import ENTRY_BYTES, HEADER_BYTES, BlockMap, Damaged, entry_offset, parse_entries, runs
from special.volume.faults import record_fault
from special.volume.no_follow import open_file, read_file, remove_file
from special.volume.pack_file import NEW, PackFile

MAP_NAME = "map"
DATA_NAME = "data"
USE_BYTE = 0
"""Byte of the map that readers share and that eviction takes alone. Entries' bytes are the locks of their blocks."""
PYRAMID_BYTE = 1
"""Byte of the map that the maker of the object's pyramid takes alone."""


class ObjectFiles:
    """One object's open files. Closing them frees all locks."""

    def __init__(self, blocks: BlockMap, directory: Path, map_fd: int, data_fd: int) -> None:
        self.blocks = blocks
        self.directory = directory
        self.protected = False
        self.pyramid: PackFile | None = None
        """The object's pyramid, once it was found."""
        self._has_pyramid_lock = False
        self._map_fd = map_fd
        self._data_fd = data_fd
        self._checksums: dict[int, int] = {}

    @classmethod
    def open(cls, blocks: BlockMap, directory: Path) -> ObjectFiles | None:
        """The object's files, protected; None if there are none. Raises `Damaged`, `OSError`."""
        try:
            map_fd = open_file(directory / MAP_NAME, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            data_fd = open_file(directory / DATA_NAME, os.O_RDWR)
        except BaseException as error:
            os.close(map_fd)
            if isinstance(error, FileNotFoundError):
                return None
            raise
        files = cls(blocks, directory, map_fd, data_fd)
        try:
            if not files.acquire():
                files.close()
                return None
            if BlockMap.parse(os.pread(map_fd, HEADER_BYTES, 0)) != blocks:
                raise Damaged(f"{directory / MAP_NAME} describes another object")
        except BaseException:
            files.close()
            raise
        return files

    @staticmethod
    def create(blocks: BlockMap, directory: Path) -> None:
        """Make the files of an object without any block. The map comes last: where it is, all is."""
        directory.mkdir(0o700, parents=True, exist_ok=True)
        for name, start, size_bytes in (
            (DATA_NAME, b"", blocks.size_bytes),
            (MAP_NAME, blocks.header(), blocks.map_bytes),
        ):
            replace_file(directory / name, start, temporary=directory / (name + NEW))
            os.truncate(directory / name, size_bytes)  # sparse

    def close(self) -> None:
        self.pyramid = None
        for fd in (self._map_fd, self._data_fd):
            if fd >= 0:
                os.close(fd)
        self._map_fd = self._data_fd = -1
        self.protected = False

    def acquire(self) -> bool:
        """Keep the object from being evicted; False if it has been, or is being."""
        if not self.protected and self._map_fd >= 0:
            self.protected = locks.try_shared(self._map_fd, USE_BYTE) and not self.gone
        return self.protected

    def release(self) -> None:
        """Allow eviction until the next `acquire`."""
        locks.unlock(self._map_fd, USE_BYTE)
        self.protected = False

    @property
    def gone(self) -> bool:
        """Whether the files have been removed. What was read from them is right all the same."""
        return os.fstat(self._map_fd).st_nlink == 0 or os.fstat(self._data_fd).st_nlink == 0

    def peek(self, indices: Iterable[int], scratch: bytearray) -> dict[int, bytes]:
        """Those of the blocks that are here, right, and in memory: never waits for the disk.

        Only blocks that were read or published through these open files before. `scratch` is space for one
        block. Costs two copies and a checksum of each.
        """
        found: dict[int, bytes] = {}
        for index in indices:
            if index not in self._checksums:
                continue
            buffer = memoryview(scratch)[: self.blocks.length(index)]
            try:
                length = os.preadv(self._data_fd, [buffer], index * self.blocks.block_bytes, os.RWF_NOWAIT)
            except OSError:  # not in memory, or a file system that cannot say; `read_blocks` tells
                continue
            if length == len(buffer) and self._is_right(index, data := bytes(buffer)):
                found[index] = data
        return found

    def read_blocks(self, indices: Iterable[int]) -> dict[int, bytes]:
        """The blocks among `indices` that are here and right; others are not in the answer, and broken ones counted."""
        found: dict[int, bytes] = {}
        for run in runs(sorted(indices), self.blocks.count):
            for index in self._known(run):
                try:
                    data = os.pread(self._data_fd, self.blocks.length(index), index * self.blocks.block_bytes)
                except OSError as error:
                    record_fault("read", error)
                    continue
                if self._is_right(index, data):
                    found[index] = data
        return found

    def write(self, first: int, blocks: Sequence[bytes]) -> None:
        """Put adjacent blocks into the data file. They are not there until they are published."""
        _write(self._data_fd, b"".join(blocks), first * self.blocks.block_bytes)

    def publish(self, first: int, blocks: Sequence[bytes]) -> None:
        """Enter written blocks in the map.

        Nothing is synced: should the machine stop before the data is on disk, the checksums say so.
        """
        entries = self.blocks.entries(first, blocks)
        _write(self._map_fd, entries, entry_offset(first))
        self._checksums.update((index, checksum) for index, (_, checksum) in enumerate(parse_entries(entries), first))

    def remove_block(self, index: int) -> None:
        """Take one block out of the map."""
        self._checksums.pop(index, None)
        _write(self._map_fd, bytes(ENTRY_BYTES), entry_offset(index))

    def published(self) -> list[int]:
        """The blocks that the map says are here."""
        entries = parse_entries(os.pread(self._map_fd, self.blocks.count * ENTRY_BYTES, HEADER_BYTES))
        return [index for index, (length, _) in enumerate(entries) if length]

    def lock_blocks(self, indices: Sequence[int]) -> list[int]:
        """Those of the blocks that no other process fetches: they are locked for us until `unlock_blocks`."""
        mine: list[int] = []
        for run in runs(indices, self.blocks.count):
            if locks.try_exclusive(self._map_fd, entry_offset(run.start), len(run) * ENTRY_BYTES):
                mine.extend(run)
            else:
                mine.extend(
                    index for index in run if locks.try_exclusive(self._map_fd, entry_offset(index), ENTRY_BYTES)
                )
        return mine

    def unlock_blocks(self, indices: Sequence[int]) -> None:
        for run in runs(indices, self.blocks.count):
            locks.unlock(self._map_fd, entry_offset(run.start), len(run) * ENTRY_BYTES)

    def lock_pyramid(self) -> bool:
        """Claim the making of the object's pyramid until `unlock_pyramid`; False if it is being made."""
        if self._has_pyramid_lock:  # the kernel would grant it again to the same descriptor
            return False
        self._has_pyramid_lock = locks.try_exclusive(self._map_fd, PYRAMID_BYTE)
        return self._has_pyramid_lock

    def unlock_pyramid(self) -> None:
        locks.unlock(self._map_fd, PYRAMID_BYTE)
        self._has_pyramid_lock = False

    def _known(self, run: range) -> list[int]:
        """Those of adjacent blocks that the map has; their checksums are remembered."""
        try:
            entries = parse_entries(os.pread(self._map_fd, len(run) * ENTRY_BYTES, entry_offset(run.start)))
        except OSError as error:
            record_fault("read", error)
            return []
        known: list[int] = []
        for index, (length, checksum) in zip(run, entries, strict=False):  # a truncated map has fewer
            if length == self.blocks.length(index):
                self._checksums[index] = checksum
                known.append(index)
            elif length:
                record_fault("corrupt", f"entry {index} of {self.blocks.url} in {self.directory}")
        return known

    def _is_right(self, index: int, data: bytes) -> bool:
        if len(data) == self.blocks.length(index) and self.blocks.checksum(index, data) == self._checksums.get(index):
            return True
        self._checksums.pop(index, None)
        record_fault("corrupt", f"block {index} of {self.blocks.url} in {self.directory}")
        return False


def read_block_map(home: Path) -> BlockMap:
    """What the map in an object's directory says it is. Raises `Damaged`, `OSError`."""
    return BlockMap.parse(read_file(home / MAP_NAME, HEADER_BYTES))


def disk_bytes(blocks: BlockMap, directory: Path) -> int:
    """Upper bound of what an object takes on disk now: its base, and every file but the map as the disk counts it."""
    with os.scandir(directory) as files:
        return blocks.base_bytes + sum(
            file.stat(follow_symlinks=False).st_blocks * 512 for file in files if file.name != MAP_NAME
        )


def destroy(directory: Path) -> None:
    """Remove an object's files, even while they are read: readers notice by the checksums."""
    (directory / MAP_NAME).unlink(missing_ok=True)
    _empty(directory)


def remove(directory: Path) -> bool:
    """Remove an object's files; False if they are being read.

    The map goes first, so that no process finds an object that is half removed. Files are emptied before they are
    unlinked: an idle descriptor in another process must not keep their space.
    """
    try:
        map_fd = open_file(directory / MAP_NAME, os.O_RDWR)
    except FileNotFoundError:
        _empty(directory)
        return True
    try:
        if not locks.try_exclusive(map_fd, USE_BYTE):
            return False
        (directory / MAP_NAME).unlink()
        _empty(directory)
    finally:
        os.close(map_fd)
    return True


def _empty(directory: Path) -> None:
    if directory.is_symlink():
        directory.unlink()
    if not directory.exists():
        return
    for file in list(directory.iterdir()):
        remove_file(file)
    directory.rmdir()


def _write(fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count
