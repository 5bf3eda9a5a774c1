"""Who uses a volume's directory: servers agree on its size, and the dead are known to be dead.

One file, never unlinked, that holds the settings. Its locks say the rest: whoever sets up takes
`SETUP_BYTE`, everybody present shares `PRESENCE_BYTE`, whoever works on the books shares
`BOOKS_BYTE` (and takes it alone to put others in their place), and each has a byte of its own from
`OWNER_BYTE` on. The kernel drops them all when a process dies, so nothing ever expires.
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

SERVERS_NAME = "servers"
SETUP_BYTE = 1 << 20
PRESENCE_BYTE = SETUP_BYTE + 1
BOOKS_BYTE = SETUP_BYTE + 2
OWNER_BYTE = SETUP_BYTE + 16
OWNERS = 4096
BOOKS_PATIENCE_S = 10.0
"""How long another server may keep the books: it writes some megabytes, evicts some objects, or makes books anew."""
SETUP_PATIENCE_S = 60.0
"""How long another server may take to set up: it may have many objects to evict."""


@dataclass(frozen=True, slots=True)
class VolumeTerms:
    """What all servers on one directory have to agree on."""

    size_bytes: int
    """What the volume may take on disk."""
    block_bytes: int
    """Into how large blocks new objects are cut."""


class Membership:
    """One volume's presence in a directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / SERVERS_NAME
        self.owner = -1
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Leave. Whatever is still reserved for us is anybody's to give back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def setup(self) -> Iterator[bool]:
        """Enter the directory, one server at a time; says whether we are alone in it.

        Raises `TimeoutError` where another one does not get done.
        """
        deadline = monotonic() + SETUP_PATIENCE_S
        while not locks.try_exclusive(self._fd, SETUP_BYTE):
            if monotonic() > deadline:
                raise TimeoutError(
                    f"another server has been setting up {self.path.parent} for {SETUP_PATIENCE_S:.0f} s"
                )
            sleep(0.01)
        try:
            alone = locks.try_exclusive(self._fd, PRESENCE_BYTE)
            yield alone
            locks.try_shared(self._fd, PRESENCE_BYTE)
            self.owner = next(n for n in range(OWNERS) if locks.try_exclusive(self._fd, OWNER_BYTE + n))
        finally:
            locks.unlock(self._fd, SETUP_BYTE)

    @contextmanager
    def ledger_lock(self, take: Callable[[int, int], bool]) -> Iterator[None]:
        """Have the books, beside others (`locks.try_shared`) or alone (`locks.try_exclusive`).

        Raises `TimeoutError`.
        """
        deadline = monotonic() + BOOKS_PATIENCE_S
        while not take(self._fd, BOOKS_BYTE):
            if monotonic() > deadline:
                raise TimeoutError(f"others have kept the books of {self.path.parent} for {BOOKS_PATIENCE_S:.0f} s")
            sleep(0.002)
        try:
            yield
        finally:
            locks.unlock(self._fd, BOOKS_BYTE)

    def agree(self, terms: VolumeTerms | None, *, alone: bool) -> VolumeTerms:
        """Set the terms if we are alone, else accept them; None accepts any.

        Raises `ConfigurationError` where they differ, or where there are none to accept.
        """
        there = self.terms()
        if there is not None and terms in (None, there):
            return there
        if terms is None:
            raise ConfigurationError(
                f"the settings of the volume {self.path.parent} cannot be read: start a server on it"
            )
        if there is not None and not alone:
            for name, ours in asdict(terms).items():
                if (theirs := getattr(there, name)) != ours:
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
            pass  # an empty or scribbled file: whoever comes first writes it anew
        return None

    def is_alive(self, owner: int) -> bool:
        """Whether another volume with this number is still there."""
        if owner == self.owner:
            return True
        if not locks.try_exclusive(self._fd, OWNER_BYTE + owner):
            return True
        locks.unlock(self._fd, OWNER_BYTE + owner)
        return False
