"""What a decoder gives up once it is ready: files, network, programs, other processes. By ctypes alone.

    no_new_privs   no program that it could start would gain rights
    landlock       no file, no TCP port, no signal to a process outside (where the kernel has it)
    seccomp        system calls on a deny list fail with EPERM, in every thread (x86_64 and aarch64)
    limits         no file grows, no descriptor is opened

Decoding needs memory, threads, clocks and the socket to the parent, and nothing else: all libraries are loaded before.
Threads are why RLIMIT_NPROC stays: it counts those of all processes of the user. Seccomp refuses new processes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from special.workers.system_calls import DENIED, NEEDED

_libc: Final = ctypes.CDLL(None, use_errno=True)

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on all architectures
_LANDLOCK_VERSION: Final = 1  # a flag that asks for the version of the interface


class Landlock(NamedTuple):
    """What Landlock can refuse, as bit masks of linux/landlock.h."""

    files: int
    ports: int
    scopes: int


def landlock_rights(version: int) -> Landlock:
    """All that an interface of this version can refuse."""
    bits = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # REFER, TRUNCATE, IOCTL_DEV
    return Landlock((1 << bits) - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of processor."""

    audit: int
    """AUDIT_ARCH of linux/audit.h, by which a filter knows whose numbers it sees."""
    column: int
    """Of the table of system calls."""

    def number(self, name: str) -> int:
        number = NEEDED[name][self.column]
        assert number is not None, "every kernel has it"
        return number

    @property
    def denied(self) -> list[int]:
        return [number for it in DENIED.values() if (number := it[self.column]) is not None]


ARCHITECTURES: Final = {"x86_64": Architecture(0xC000003E, 0), "aarch64": Architecture(0xC00000B7, 1)}

_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF codes, linux/bpf_common.h
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; the lower half of the first argument
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # linux/seccomp.h
_CLONE_THREAD: Final = 0x00010000
_X32: Final = 0x40000000
"""Added to a number on x86_64, another set of system calls is meant."""
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # operation and flag of seccomp(2)
_ENDS: Final = {"allow": _ALLOW, "deny": _ERRNO | errno.EPERM, "unknown": _ERRNO | errno.ENOSYS, "kill": _KILL}


def seccomp_filter(architecture: Architecture, pid: int) -> bytes:
    """The deny list as a program of classic BPF: 8 bytes for each step (struct sock_filter).

    A thread may be started and a process may not: clone(2) shows which by its flags, and clone3(2), whose flags no
    filter can read, is said not to exist, at which C libraries fall back to clone. A process may signal itself, which
    is how abort(3) ends it, and set its own limits.
    """
    steps: list[tuple[int, int, str, str]] = [
        (_LOAD, _ARCHITECTURE_AT, "", ""),
        (_EQUAL, architecture.audit, "", "kill"),
        (_LOAD, _NUMBER_AT, "", ""),
        (_ABOVE, _X32, "deny", ""),
        (_EQUAL, architecture.number("clone"), "clone", ""),
        (_EQUAL, architecture.number("clone3"), "unknown", ""),
        (_EQUAL, architecture.number("tgkill"), "tgkill", ""),
        (_EQUAL, architecture.number("prlimit64"), "prlimit64", ""),
        *((_EQUAL, number, "deny", "") for number in architecture.denied),
        (_RETURN, _ALLOW, "", ""),
    ]
    places: dict[str, int] = {}
    for name, check in {
        "clone": (_ANY_BIT, _CLONE_THREAD),
        "tgkill": (_EQUAL, pid),
        "prlimit64": (_EQUAL, 0),
    }.items():
        places[name] = len(steps)
        steps += [(_LOAD, _ARGUMENT_AT, "", ""), (*check, "allow", "deny")]
    for name, value in _ENDS.items():
        places[name] = len(steps)
        steps.append((_RETURN, value, "", ""))

    def jump(label: str, at: int) -> int:
        return places[label] - at - 1 if label else 0

    return b"".join(
        struct.pack("=HBBI", code, jump(true, at), jump(false, at), value)
        for at, (code, value, true, false) in enumerate(steps)
    )


def enter() -> dict[str, bool]:
    """Give up all but decoding, for good. Returns each layer and whether it holds; costs about 1 ms."""
    if sys.platform != "linux":
        return {"no_new_privs": False, "landlock": False, "seccomp": False, "limits": _limit()}
    privileges = _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    alone = len(list(Path("/proc/self/task").iterdir())) == 1
    limits = _limit()
    # Landlock binds the calling thread and those it starts: it does not hold where there are others.
    return {"no_new_privs": privileges, "landlock": _landlock() and alone, "seccomp": _seccomp(), "limits": limits}


def _limit() -> bool:
    """No file grows, and no descriptor is opened beyond those that are open."""
    folder = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    highest = max((int(it.name) for it in folder.iterdir() if it.exists()), default=2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, highest + 1))
    return True


def _landlock() -> bool:
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = struct.pack("=QQQ", *landlock_rights(version))[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, rights, len(rights), 0)
    if ruleset < 0:
        return False
    try:
        return bool(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _seccomp() -> bool:
    architecture = ARCHITECTURES.get(os.uname().machine)
    if architecture is None:
        return False
    program = ctypes.create_string_buffer(steps := seccomp_filter(architecture, os.getpid()))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(steps) // 8, ctypes.addressof(program)))
    return bool(_libc.syscall(architecture.number("seccomp"), _SET_MODE_FILTER, _ALL_THREADS, head) == 0)


def forbid_inspection() -> bool:
    """No process of the same user can read this one's memory or environment, and it leaves no core file (prctl(2))."""
    return sys.platform == "linux" and bool(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
