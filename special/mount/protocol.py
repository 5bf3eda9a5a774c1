"""The messages between the kernel's FUSE driver and a file system, as bytes. Pure.

Of the kernel's own header (`include/uapi/linux/fuse.h`) only what a read-only file system meets. A library would spare
us these tables, but libfuse's interface for paths, the only one with a Python binding that pip installs by itself, has
one inode for a path, and with it one page cache and one length for all versions of a file. Here each version is an
inode of its own. All numbers are in the machine's byte order, and structures are padded to 8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

MAJOR, MINOR = 7, 31
"""The protocol that is spoken here. A newer kernel speaks it, too."""
OLDEST_MINOR = 23
"""Linux 3.15, from which on all structures are as they are here."""
REQUEST_BYTES = 65536
"""More than any request of a read-only file system takes; the kernel asks for 8 KiB at least."""
MAX_PAGES = 256
"""Pages in one read: 1 MiB, the most that the kernel allows."""
ROOT_ID = 1
NAME_BYTES = 255
"""Longest name in a folder."""


class Opcode(IntEnum):
    """What the kernel asks for. Others are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44


class InitFlag(IntFlag):
    """What both sides can do."""

    ASYNC_READ = 1 << 0
    EXPORT_SUPPORT = 1 << 4
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22


WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
)

KEEP_CACHE = 1 << 1
"""Of an open file: what the page cache has of the inode is right."""
_INVALIDATE_ENTRY = 3

_IN = Struct("=IIQQIIIHH")  # length, opcode, unique, node, user, group, process, length of extensions, padding
_OUT = Struct("=IiQ")  # length, error, unique
_INIT_IN = Struct("=IIII")
_INIT_OUT = Struct("=IIIIHHIIHHI28x")
_ATTR = Struct("=QQQQQQIIIIIIIIII")
_ENTRY = Struct("=QQQQII")
_ATTR_OUT = Struct("=QII")
_OPEN_OUT = Struct("=QII")
_READ_IN = Struct("=QQIIQII")
_HANDLE = Struct("=Q")
_XATTR_IN = Struct("=II")
_XATTR_OUT = Struct("=II")
_STATFS_OUT = Struct("=QQQQQIIII24x")
_DIRENT = Struct("=QQII")
_FORGET_ONE = Struct("=QQ")
_INVALIDATE_ENTRY_OUT = Struct("=QII")


@dataclass(frozen=True, slots=True)
class Request:
    """One message of the kernel."""

    opcode: int
    unique: int
    """What its answer refers to."""
    node: int
    """The inode that it is about."""
    body: bytes

    @classmethod
    def parse(cls, message: bytes) -> Request:
        _, opcode, unique, node, *_ = _IN.unpack_from(message)
        return cls(opcode, unique, node, message[_IN.size :])

    @property
    def name(self) -> bytes:
        """Of LOOKUP: the name in the folder `node`."""
        return self.body.partition(b"\0")[0]

    @property
    def read(self) -> tuple[int, int, int]:
        """Of READ, READDIR and READDIRPLUS: handle, offset, and length in bytes."""
        handle, offset, size, *_ = _READ_IN.unpack_from(self.body)
        return handle, offset, size

    @property
    def handle(self) -> int:
        """Of RELEASE and RELEASEDIR: the handle. Of INTERRUPT: `unique` of the request that is not wanted any more."""
        (number,) = _HANDLE.unpack_from(self.body)
        return int(number)

    @property
    def xattr(self) -> tuple[int, bytes]:
        """Of GETXATTR and LISTXATTR: length of the kernel's buffer (0: it asks how much it needs), and the name."""
        size, _ = _XATTR_IN.unpack_from(self.body)
        return size, self.body[_XATTR_IN.size :].partition(b"\0")[0]

    @property
    def init(self) -> tuple[int, int, int, int]:
        """Of INIT: the kernel's protocol, major and minor, its longest read-ahead in bytes, and its flags."""
        major, minor, readahead, flags = _INIT_IN.unpack_from(self.body)
        return major, minor, readahead, flags

    @property
    def forgotten(self) -> Iterator[tuple[int, int]]:
        """Of FORGET and BATCH_FORGET: inodes, and how many of their look-ups are forgotten."""
        if self.opcode == Opcode.FORGET:
            yield self.node, self.handle
            return
        count, _ = _XATTR_IN.unpack_from(self.body)
        for index in range(count):
            yield _FORGET_ONE.unpack_from(self.body, _XATTR_IN.size + index * _FORGET_ONE.size)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What `stat` tells of an inode."""

    ino: int
    size: int
    mtime_ns: int
    mode: int
    """Kind and permissions."""
    user: int
    group: int

    def __bytes__(self) -> bytes:
        seconds, nanoseconds = divmod(self.mtime_ns, 10**9)
        blocks = -(-self.size // 512)
        times = (seconds,) * 3 + (nanoseconds,) * 3
        return _ATTR.pack(self.ino, self.size, blocks, *times, self.mode, 1, self.user, self.group, 0, 65536, 0)


def answer(unique: int, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """A message to the kernel, to be written at once."""
    return [_OUT.pack(_OUT.size + sum(map(len, parts)), 0, unique), *parts]


def refusal(unique: int, error: int) -> list[bytes | memoryview]:
    """The answer that a request failed, with an `errno`."""
    return [_OUT.pack(_OUT.size, -error, unique)]


def forget_name(folder: int, name: bytes) -> list[bytes | memoryview]:
    """A message that the kernel should look a name up again."""
    body = _INVALIDATE_ENTRY_OUT.pack(folder, len(name), 0) + name + b"\0"
    return [_OUT.pack(_OUT.size + len(body), _INVALIDATE_ENTRY, 0), body]


def init_out(readahead: int, flags: int) -> bytes:
    """The answer to INIT."""
    background = 256  # reads under way that no process waits for: the kernel's read-ahead
    return _INIT_OUT.pack(
        MAJOR, MINOR, readahead, WANTED & flags, background, background * 3 // 4, 4096, 1, MAX_PAGES, 0, 0
    )


def entry_out(node: int, attributes: Attributes, *, valid_s: float, attributes_valid_s: float) -> bytes:
    """The answer to LOOKUP: the inode of a name, and for how long both need not be asked for again."""
    return _entry(node, valid_s, attributes_valid_s) + bytes(attributes)


def no_entry_out(*, valid_s: float) -> bytes:
    """The answer to LOOKUP that there is no such name, and for how long that need not be asked again."""
    return _entry(0, valid_s, 0.0) + bytes(_ATTR.size)


def attributes_out(attributes: Attributes, *, valid_s: float) -> bytes:
    """The answer to GETATTR."""
    seconds, nanoseconds = _time(valid_s)
    return _ATTR_OUT.pack(seconds, nanoseconds, 0) + bytes(attributes)


def open_out(handle: int, flags: int = 0) -> bytes:
    """The answer to OPEN and OPENDIR."""
    return _OPEN_OUT.pack(handle, flags, 0)


def xattr_out(value: bytes, size: int) -> bytes | None:
    """The answer to GETXATTR and LISTXATTR; None where the kernel's buffer of `size` bytes is too small."""
    if size == 0:
        return _XATTR_OUT.pack(len(value), 0)
    return value if len(value) <= size else None


def statfs_out() -> bytes:
    """The answer to STATFS: a file system without a size, as `df` knows of /proc."""
    return _STATFS_OUT.pack(0, 0, 0, 0, 0, 65536, NAME_BYTES, 65536, 0)


ENTRY_BYTES = _ENTRY.size + _ATTR.size
"""What READDIRPLUS has before each name: the answer to its look-up."""


def folder_entry_bytes(name: bytes) -> int:
    """What a name in a folder takes."""
    return _padded(_DIRENT.size + len(name))


def folder_entry(name: bytes, ino: int, offset: int, mode: int) -> bytes:
    """One name in a folder. `offset`: where the next one is to be asked for."""
    return (_DIRENT.pack(ino, offset, len(name), mode >> 12) + name).ljust(folder_entry_bytes(name), b"\0")


def _entry(node: int, valid_s: float, attributes_valid_s: float) -> bytes:
    (entry_s, entry_ns), (attr_s, attr_ns) = _time(valid_s), _time(attributes_valid_s)
    return _ENTRY.pack(node, 0, entry_s, attr_s, entry_ns, attr_ns)


def _time(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * 1e9)


def _padded(length: int) -> int:
    return -(-length // 8) * 8
