"""Mounts and unmounts by `fusermount3`, which any user may run, and clears what a killed process left mounted."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from special.errors import ConfigurationError

SUBTYPE = "special"
"""Mounts are of type `fuse.special`."""
_DEVICE = Path("/dev/fuse")
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\(\d{3})")
"""How a space, a tab, a line's end and a backslash are written there."""


def mount(directory: Path, *, name: str, shared: bool) -> int:
    """Mount a folder: the descriptor by which the kernel asks for what is in it, not blocking.

    `name` is what `df` and `mount` call it; `shared`: whether other users may see it. Raises `ConfigurationError`.
    """
    _clear(directory)
    if not directory.is_dir():
        raise ConfigurationError(f"there is no folder {directory} to mount on: create it")
    if not _DEVICE.exists():
        raise ConfigurationError(
            f"there is no {_DEVICE}: load the kernel's module with 'modprobe fuse', or start the container with "
            "--device /dev/fuse --cap-add SYS_ADMIN"
        )
    options = ["ro", "nosuid", "nodev", "default_permissions", f"fsname={_escaped(name)}", f"subtype={SUBTYPE}"]
    if shared:
        options.append("allow_other")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.run(  # noqa: S603 - our own words, and a path
            [_fusermount(), "-o", ",".join(options), "--", str(directory)],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode:
            raise ConfigurationError(f"{directory} cannot be mounted: {process.stderr.strip().splitlines()[-1]}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_blocking(descriptors[0], False)
    return descriptors[0]


def unmount(directory: Path) -> None:
    """Take the mount out of the tree. Programs that have files of it open may read them to the end."""
    if mounted_type(directory) == f"fuse.{SUBTYPE}":
        command = [_fusermount(), "-u", "-z", "--", str(directory)]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)  # noqa: S603 - our own words, and a path


def mounted_type(directory: Path) -> str | None:
    """The type of the file system that is mounted on a folder; None if there is none."""
    found = None
    for line in _MOUNTS.read_bytes().splitlines():
        # proc(5): id, parent, device, root, mount point, options, optional fields, a dash, type, …
        before, _, after = line.partition(b" - ")
        if _OCTAL.sub(lambda it: bytes([int(it[1], 8)]), before.split()[4]) == os.fsencode(directory):
            found = after.split()[0].decode()  # the last one covers those before it
    return found


def _clear(directory: Path) -> None:
    """Unmount what a process left that was killed. Raises `ConfigurationError` where a mount is in use."""
    if mounted_type(directory) != f"fuse.{SUBTYPE}":
        return
    try:
        os.statvfs(directory)  # which the kernel never answers by itself
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise ConfigurationError(f"{directory} cannot be mounted: {error.strerror}") from error
        unmount(directory)
    else:
        raise ConfigurationError(
            f"{directory} is mounted already: stop that process, or unmount it with 'fusermount3 -u {directory}'"
        )


def _fusermount() -> str:
    path = shutil.which("fusermount3")
    if path is None:
        raise ConfigurationError(
            "mounting needs fusermount3: install the system's package fuse3, with 'apt-get install fuse3' or "
            "'dnf install fuse3'"
        )
    return path


def _escaped(value: str) -> str:
    """A mount option's value, in which a comma would start the next option."""
    return value.replace("\\", "\\\\").replace(",", "\\,")
