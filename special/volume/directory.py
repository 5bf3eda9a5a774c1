"""A volume's directory: which objects it takes and evicts, so that it never exceeds its size.

The order of steps makes it safe to die at any of them. Space is reserved before it is
taken, and given back after it was freed; a map appears after its data file and disappears
before it; a block is entered in the map after it is in the data file. What a dead process
leaves behind is too much reserved, never too little, and a live one weighs it again.

Blocking calls: everything here runs in the volume's one disk thread.

    DIR/servers                     settings and membership
    DIR/ledger.sqlite               the ledger
    DIR/objects/ab/cdef…/map, data  one object; further files of it count like its data
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, time
from typing import Literal

from special.errors import ConfigurationError
from special.observability import VOLUME_BYTES, VOLUME_EVICTIONS
from special.volume import locks
from special.volume.blocks import BlockMap, Damaged, whole_pages
from special.volume.faults import record_fault
from special.volume.ledger import HEADROOM_BYTES, TOUCHES, Ledger, Use, files_of, is_broken
from special.volume.membership import SERVERS_NAME, Membership, VolumeTerms
from special.volume.object_files import MAP_NAME, ObjectFiles, destroy, disk_bytes, read_block_map, remove
from special.volume.pack_file import NEW

LEDGER_NAME = "ledger.sqlite"
OBJECTS_NAME = "objects"

ATTEMPTS = 4
"""To admit an object: one to reserve space, one to make files, one to open them, and one for a race lost."""
CHECK_S = 60.0
"""How often the whole ledger is checked."""
FULL_S = 0.1
"""How long no space is looked for after none was found: looking for it tries every object."""

Step = Literal["admit", "create", "reserve", "write", "publish", "settle", "evict", "strike"]
"""What is about to happen: where a process may die or a disk may fail, and tests make them."""


class Full(Exception):
    """There is not enough space, and every object that could be evicted is being read."""


class VolumeDirectory:
    """An open volume directory."""

    def __init__(self, directory: Path, *, at: Callable[[Step], None]) -> None:
        self.directory = directory
        self._at = at
        self._membership: Membership | None = None
        self._ledger: Ledger | None = None
        self._terms: VolumeTerms | None = None
        self._full_until = 0.0
        self._check_at = 0.0
        self._unsettled: list[tuple[int, BlockMap]] = []

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None, "join() comes first"
        return self._ledger

    @property
    def membership(self) -> Membership:
        assert self._membership is not None, "join() comes first"
        return self._membership

    @property
    def terms(self) -> VolumeTerms:
        assert self._terms is not None, "join() comes first"
        return self._terms

    def join(self, terms: VolumeTerms | None) -> None:
        """Enter the directory; None takes the terms that reservation there.

        The first server makes ledger and files agree and evicts what is too much. Raises
        `ConfigurationError` where servers disagree, `OSError` or `sqlite3.Error` where the disk fails.
        """
        self.leave()
        if terms is not None:
            self._create()
        elif not (self.directory / SERVERS_NAME).exists():
            raise ConfigurationError(
                f"{self.directory} holds no volume: name the directory that a server was started with"
            )
        self._membership = membership = Membership(self.directory)
        try:
            with membership.setup() as alone:
                self._terms = membership.agree(terms, alone=alone)
                with membership.ledger_lock(locks.try_exclusive):
                    self._ledger = self._open_ledger(checked=alone)
                    if alone or self._ledger.is_new:
                        self._reconcile(alone=alone)
                with self.open_ledger(), self.ledger.transaction():
                    self._give_back()
                    self._make_space(0, sparing="")
        except BaseException:
            self.leave()
            raise

    def _create(self) -> None:
        """Make the directory, for this user alone. One that belongs to another user is refused."""
        for folder in (self.directory, self.directory / OBJECTS_NAME):
            folder.mkdir(0o700, parents=True, exist_ok=True)
            owner = folder.stat().st_uid
            if owner not in (os.geteuid(), 0):  # an empty volume of Kubernetes is of root
                raise ConfigurationError(
                    f"{folder} belongs to user {owner}, and this server runs as user {os.geteuid()}: "
                    f"choose another directory for the volume, or give this one to that user"
                )
        if (self.directory / OBJECTS_NAME).is_symlink():
            raise ConfigurationError(f"{folder} is a symbolic link, which a volume does not follow: remove it")

    @property
    def is_lost(self) -> bool:
        """Whether the directory was removed or replaced since it was joined."""
        return self._membership is None or not self._membership.is_current

    def leave(self) -> None:
        """Close the ledger and give up the membership."""
        if self._ledger is not None:
            self._ledger.close()
        if self._membership is not None:
            self._membership.close()
        self._ledger = self._membership = None

    def object_directory(self, name: str) -> Path:
        return self.directory / OBJECTS_NAME / name[:2] / name[2:]

    def fits(self, blocks: BlockMap) -> bool:
        """Whether an object fits when everything else is evicted."""
        return (
            not self.is_lost and blocks.describable and blocks.full_bytes <= self.terms.size_bytes - self._own_bytes()
        )

    def has_space(self, size_bytes: int) -> bool:
        """Whether `size_bytes` more fit without anything being evicted."""
        with self.open_ledger():
            return self.taken_bytes() + whole_pages(size_bytes) <= self.terms.size_bytes

    def find(self, blocks: BlockMap) -> ObjectFiles | None:
        """An object's files, protected; None if it has none that can be used. Needs no ledger."""
        try:
            return ObjectFiles.open(blocks, self.object_directory(blocks.name))
        except Damaged as error:
            record_fault("corrupt", error)
            return None

    def admit(self, blocks: BlockMap) -> ObjectFiles:
        """An object's files, protected, created if there are none. Raises `Full`."""
        self._at("admit")
        for _ in range(ATTEMPTS):
            with self.open_ledger(), self.ledger.transaction():
                if (files := self.find(blocks)) is not None:
                    return files
                if self.ledger.contains(blocks.name):  # space is reserved, so files may be made
                    self._at("create")
                    ObjectFiles.create(blocks, self.object_directory(blocks.name))
                    continue
                fits = self._make_space(blocks.base_bytes, sparing="")
                if fits:
                    self.ledger.add_object(blocks, blocks.base_bytes, time())
            if not fits:
                raise Full(f"no space for {blocks.base_bytes} bytes more")
        raise OSError(errno.EIO, "what was just made cannot be opened", str(self.object_directory(blocks.name)))

    def store(self, files: ObjectFiles, first: int, blocks: Sequence[bytes]) -> None:
        """Reserve space, write adjacent blocks, publish them, and settle what they took. Raises `Full`."""

        def write() -> None:
            self._at("write")
            files.write(first, blocks)
            self._at("publish")
            files.publish(first, blocks)

        self.reserve_and_write(files.blocks, sum(whole_pages(len(data)) for data in blocks), write)

    def reserve_and_write(self, blocks: BlockMap, need: int, write: Callable[[], None]) -> Literal[True]:
        """Reserve space for one object, let `write` take it, and settle what it took. Raises `Full`."""
        name = blocks.name
        self._at("reserve")
        with self.open_ledger():  # until all is written and settled: a new ledger has no reservations
            with self.ledger.transaction():
                reservation = (
                    self.ledger.reserve(self.membership.owner, name, need)
                    if self._make_space(need, sparing=name)
                    else None
                )
            if reservation is None:
                raise Full(f"no space for {need} bytes more")
            try:
                write()
            finally:
                self._unsettled.append((reservation, blocks))
                self._settle()
        return True

    def weigh(self, blocks: BlockMap) -> None:
        """Record what an object takes now: files of it were removed."""
        with self.open_ledger(), self.ledger.transaction():
            self._weigh(blocks)

    def touch(self, uses: Sequence[Use]) -> None:
        """Record what was read, and report how full the volume is."""
        with self.open_ledger():
            for start in range(0, len(uses), TOUCHES):
                with self.ledger.transaction():
                    self.ledger.touch(uses[start : start + TOUCHES])
            self._settle()
            VOLUME_BYTES.set(self.taken_bytes())
            if monotonic() > self._check_at:
                self._check_at = monotonic() + CHECK_S
                self.ledger.check()

    def taken_bytes(self) -> int:
        """What the volume takes and has reserved, in total."""
        return self.ledger.promised_bytes() + self._own_bytes()

    def forget_full(self) -> None:
        """Objects may be evicted that were protected: there may be space by now."""
        self._full_until = 0.0

    def object_directories(self) -> Iterator[Path]:
        yield from sorted((self.directory / OBJECTS_NAME).glob("*/*"))

    def discard(self, home: Path) -> bool:
        """Remove an object that cannot be read; False if it is being read all the same."""
        with self.open_ledger(), self.ledger.transaction():
            return self._evict(home.parent.name + home.name)

    def clear(self, url: str | None) -> tuple[int, int]:
        """Remove all versions of an object, or all objects: how many went, and how many are being read."""
        gone = kept = 0
        with self.open_ledger():
            names = self.ledger.names(url)
        for name in names:
            with self.open_ledger(), self.ledger.transaction():
                if self._evict(name):
                    gone += 1
                else:
                    kept += 1
        return gone, kept

    @contextmanager
    def open_ledger(self) -> Iterator[Ledger]:
        """The ledger, beside others; the current one, if another process has replaced it.

        Where it turns out to be broken a new one is made of what is on the disk, and the block raises.
        """
        if self.is_lost:
            raise FileNotFoundError(errno.ENOENT, "the volume was removed or replaced", str(self.directory))
        with ExitStack() as stack:
            stack.enter_context(self.membership.ledger_lock(locks.try_shared))
            while not self.ledger.is_current:
                stack.close()
                self._replace_ledger()
                stack.enter_context(self.membership.ledger_lock(locks.try_shared))
            try:
                yield self.ledger
            except sqlite3.Error as error:
                if is_broken(error):
                    stack.close()
                    self._replace_ledger()
                raise

    def _replace_ledger(self) -> None:
        """Open the current ledger, or make a new one of what is on the disk, while no other process writes."""
        with self.membership.ledger_lock(locks.try_exclusive):
            if self.ledger.is_current:  # no other process has noticed
                record_fault("ledger", f"{self.ledger.path} is broken, and made again")
                self.ledger.remove()
            self.ledger.close()
            self._unsettled.clear()  # numbers of another ledger
            self._ledger = self._open_ledger(checked=False)
            if self._ledger.is_new:
                self._reconcile(alone=False)

    def _settle(self) -> None:
        """Give back reservations whose writing is over, for what it took; what fails is tried again later."""
        while self._unsettled:
            reservation, blocks = self._unsettled[-1]
            self._at("settle")
            with self.ledger.transaction():
                self.ledger.release(reservation)
                self._weigh(blocks)
            self._unsettled.pop()

    def _make_space(self, need: int, *, sparing: str) -> bool:
        """Evict until `need` more bytes fit. Inside a transaction that must be committed either way."""
        if self._full_until > monotonic():
            return False
        limit = self.terms.size_bytes - self._own_bytes() - need
        if self.ledger.promised_bytes() > limit:
            self._give_back()
        kept = 0
        while self.ledger.promised_bytes() > limit:
            names = self.ledger.oldest(skip=kept)
            if not names:
                self._full_until = monotonic() + FULL_S
                return False
            for name in names:
                if self.ledger.promised_bytes() <= limit:
                    break
                if name != sparing and self._evict(name):
                    self.ledger.evicted()
                    VOLUME_EVICTIONS.inc()
                else:
                    kept += 1
        return True

    def _evict(self, name: str) -> bool:
        try:
            self._at("evict")
            if not remove(self.object_directory(name)):
                return False
        except OSError as error:
            record_fault("write", error)
            return False
        with suppress(OSError):  # another object of the same prefix is there, or is coming
            self.object_directory(name).parent.rmdir()
        self._at("strike")
        self.ledger.remove_object(name)
        return True

    def _own_bytes(self) -> int:
        """What the volume takes for itself, with what the ledger may grow by."""
        paths = [self.directory, self.directory / OBJECTS_NAME, self.membership.path, *self.ledger.files()]
        return HEADROOM_BYTES + sum(path.stat().st_blocks * 512 for path in paths if path.exists())

    def _open_ledger(self, *, checked: bool) -> Ledger:
        """The ledger; a new one where it is broken. Only while no other process uses it."""
        path = self.directory / LEDGER_NAME
        ledger: Ledger | None = None
        try:
            ledger = Ledger(path)
            if checked:
                ledger.check()
            return ledger
        except (sqlite3.DatabaseError, Damaged) as error:
            if ledger is not None:
                ledger.close()
            if isinstance(error, sqlite3.Error) and not is_broken(error):
                raise
            record_fault("ledger", error)
            for file in files_of(path):
                file.unlink(missing_ok=True)
            return Ledger(path)

    def _reconcile(self, *, alone: bool) -> None:
        """Make the ledger agree with what is on disk. Only while no other process uses it."""
        on_disk: set[str] = set()
        for home in self.object_directories():
            name = home.parent.name + home.name
            try:
                blocks = read_block_map(home)
                if blocks.name != name:
                    raise Damaged(f"{home} holds the map of {blocks.name}")
                for draft in home.glob("*" + NEW) if alone else ():  # its making was cut short
                    draft.unlink()
                weight = disk_bytes(blocks, home)
            except FileNotFoundError:  # its making or removing was cut short
                remove(home)
                continue
            except (OSError, Damaged) as error:
                record_fault("corrupt", error)
                destroy(home)
                continue
            on_disk.add(name)
            with self.ledger.transaction():
                if not self.ledger.contains(name):
                    self.ledger.add_object(blocks, weight, (home / MAP_NAME).stat().st_mtime)
                self.ledger.weigh(name, weight)
        for name in set(self.ledger.names(None)) - on_disk:
            with self.ledger.transaction():
                self.ledger.remove_object(name)
        for prefix in (self.directory / OBJECTS_NAME).iterdir():
            with suppress(OSError):  # not empty
                prefix.rmdir()

    def _give_back(self) -> None:
        """Give back what the dead have reserved, and weigh what they may have written."""
        for reservation, owner, name in self.ledger.reservations():
            if not self.membership.is_alive(owner):
                self.ledger.release(reservation)
                with suppress(OSError, Damaged):  # it weighs what it weighed
                    self._weigh(read_block_map(self.object_directory(name)))

    def _weigh(self, blocks: BlockMap) -> None:
        with suppress(FileNotFoundError):  # removed by another process, which updates the ledger
            self.ledger.weigh(blocks.name, disk_bytes(blocks, self.object_directory(blocks.name)))
