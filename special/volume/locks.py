"""Locks on ranges of a file that the kernel frees when their holder dies.

Open-file-description locks belong to a descriptor, not to a process: closing another
descriptor of the same file does not drop them, as it would POSIX locks, and two volumes in one
process exclude each other like two processes. Nothing waits here: a lock is granted at once or not.
See fcntl(2), "Open file description locks".
"""

from __future__ import annotations

import errno
import fcntl
import struct

_FLOCK = struct.Struct("@hhqqi4x")
"""`struct flock` of Linux on 64 bits: type, whence, start, length, and a process id that must be 0."""


def try_shared(fd: int, start: int, length: int = 1) -> bool:
    """Lock bytes against writers; False where another descriptor has locked one of them exclusively."""
    return _set(fd, fcntl.F_RDLCK, start, length)


def try_exclusive(fd: int, start: int, length: int = 1) -> bool:
    """Lock bytes against all others; False where another descriptor has locked one of them."""
    return _set(fd, fcntl.F_WRLCK, start, length)


def unlock(fd: int, start: int, length: int = 1) -> None:
    """Unlock bytes, whether locked or not."""
    _set(fd, fcntl.F_UNLCK, start, length)


def _set(fd: int, kind: int, start: int, length: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, start, length, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
