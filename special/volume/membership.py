"""Which servers use a volume's directory: they agree on its size, and dead ones are noticed.

One file, never unlinked, that holds the settings. Its locks say the rest: the server that sets up takes
`SETUP_BYTE`, all members share `MEMBER_BYTE`, work on the ledger shares `LEDGER_BYTE` (and replacing the ledger
takes it alone), and each member has a byte of its own from `OWNER_BYTE` on. The kernel drops them all when a process
dies, so nothing ever expires.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep

from special.errors import ConfigurationError
from special.volume import locks
from special.volume.blocks import FORMAT_VERSION, PAGE_BYTES
from special.volume.no_follow import open_file

SERVERS_NAME = "servers"
SETUP_BYTE = 1 << 20
MEMBER_BYTE = SETUP_BYTE + 1
LEDGER_BYTE = SETUP_BYTE + 2
OWNER_BYTE = SETUP_BYTE + 16
OWNERS = 4096
LEDGER_TIMEOUT_S = 10.0
"""How long to wait for another server: it writes some megabytes, evicts some objects, or makes a new ledger."""
SETUP_TIMEOUT_S = 60.0
"""How long another server may take to set up: it may have many objects to evict."""


@dataclass(frozen=True, slots=True)
class VolumeTerms:
    """What all servers on one directory have to agree on."""

    size_bytes: int
    """What the volume may take on disk."""
    block_bytes: int
    """Length of the blocks of new objects."""


class Membership:
    """One volume's membership of a directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / SERVERS_NAME
        self.owner = -1
        self._fd = open_file(self.path, os.O_RDWR | os.O_CREAT)

    @property
    def is_current(self) -> bool:
        """Whether the file is still the one of its name."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Leave. What is still reserved for us is given back by another member."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def setup(self) -> Iterator[bool]:
        """Enter the directory, one server at a time; says whether we are alone in it.

        Raises `TimeoutError` where another one takes too long.
        """
        deadline = monotonic() + SETUP_TIMEOUT_S
        while not locks.try_exclusive(self._fd, SETUP_BYTE):
            if monotonic() > deadline:
                raise TimeoutError(f"another server has been setting up {self.path.parent} for {SETUP_TIMEOUT_S:.0f} s")
            sleep(0.01)
        try:
            alone = locks.try_exclusive(self._fd, MEMBER_BYTE)
            yield alone
            locks.try_shared(self._fd, MEMBER_BYTE)
            self.owner = next(n for n in range(OWNERS) if locks.try_exclusive(self._fd, OWNER_BYTE + n))
        finally:
            locks.unlock(self._fd, SETUP_BYTE)

    @contextmanager
    def ledger_lock(self, take: Callable[[int, int], bool]) -> Iterator[None]:
        """Use the ledger, beside others (`locks.try_shared`) or alone (`locks.try_exclusive`).

        Raises `TimeoutError`.
        """
        deadline = monotonic() + LEDGER_TIMEOUT_S
        while not take(self._fd, LEDGER_BYTE):
            if monotonic() > deadline:
                raise TimeoutError(
                    f"other servers have locked the ledger of {self.path.parent} for {LEDGER_TIMEOUT_S:.0f} s"
                )
            sleep(0.002)
        try:
            yield
        finally:
            locks.unlock(self._fd, LEDGER_BYTE)

    def agree(self, terms: VolumeTerms | None, *, alone: bool) -> VolumeTerms:
        """Set the terms if we are alone, else accept them; None accepts any.

        Raises `ConfigurationError` where they differ, or where there are none to accept.
        """
        agreed = self.terms()
        if agreed is not None and terms in (None, agreed):
            return agreed
        if terms is None:
            raise ConfigurationError(
                f"the settings of the volume {self.path.parent} cannot be read: start a server on it"
            )
        if agreed is not None and not alone:
            for name, ours in asdict(terms).items():
                if (theirs := getattr(agreed, name)) != ours:
                    raise ConfigurationError(
                        f"another server uses the volume {self.path.parent} with {name} = {theirs}, not {ours}: "
                        f"set the same, or stop that server, or choose another directory"
                    )
        text = json.dumps({"version": FORMAT_VERSION, **asdict(terms)}) + "\n"
        os.pwrite(self._fd, text.encode().ljust(PAGE_BYTES), 0)
        return terms

    def terms(self) -> VolumeTerms | None:
        """What was agreed on; None if nothing was, or it cannot be read."""
        try:
            fields = json.loads(os.pread(self._fd, PAGE_BYTES, 0))
            if fields["version"] == FORMAT_VERSION:
                return VolumeTerms(fields["size_bytes"], fields["block_bytes"])
        except (ValueError, TypeError, KeyError):
            pass  # an empty or damaged file: the first server writes it again
        return None

    def is_alive(self, owner: int) -> bool:
        """Whether the member with this number is still there."""
        if owner == self.owner:
            return True
        if not locks.try_exclusive(self._fd, OWNER_BYTE + owner):
            return True
        locks.unlock(self._fd, OWNER_BYTE + owner)
        return False
