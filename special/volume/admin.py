"""Operating a volume: its state, whether it is sound, and freeing space on the disk.

All of it works beside running servers, and on a directory that no server uses. Blocking calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time

from special.errors import ConfigurationError, Missing
from special.volume import metadata, pyramids
from special.volume.blocks import Damaged, object_url
from special.volume.directory import VolumeDirectory
from special.volume.ledger import Entry
from special.volume.object_files import ObjectFiles, read_block_map


@dataclass(frozen=True, slots=True)
class VolumeStat:
    """The state of a volume."""

    directory: Path
    """Where it is."""
    size_bytes: int
    """What it may take on disk."""
    disk_bytes: int
    """What it takes, its own ledger included; an upper bound."""
    block_bytes: int
    """Length of the blocks of new objects."""
    objects: int
    """How many versions of masters are on it."""
    hits: int
    """Blocks that were here when they were wanted, ever."""
    misses: int
    """Blocks that had to be fetched, ever."""
    evictions: int
    """Objects that were evicted, ever."""
    oldest_s: float
    """Seconds since the object that is evicted next was last read; 0 for an empty volume."""
    top: tuple[Entry, ...]
    """The objects that are read most, the first first."""

    @property
    def hit_rate(self) -> float:
        """Hits among all blocks that were wanted, 0 to 1."""
        return self.hits / max(1, self.hits + self.misses)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and what was wrong."""

    objects: int
    """Objects whose map could be read."""
    blocks: int
    """Blocks whose checksum was right."""
    dropped_blocks: int
    """Blocks that were wrong: taken out of their map, to be fetched again."""
    dropped_objects: int
    """Objects whose map was wrong: removed."""
    pyramids: int = 0
    """Pyramids that were right from end to end."""
    dropped_pyramids: int = 0
    """Pyramids that were wrong: removed, to be made again."""
    dropped_notes: int = 0
    """Metadata that was wrong: removed, to be parsed again."""

    @property
    def sound(self) -> bool:
        """Whether nothing had to be dropped."""
        return not (self.dropped_blocks or self.dropped_objects or self.dropped_pyramids or self.dropped_notes)


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was removed, and what could not be."""

    objects: int
    """Objects removed."""
    kept: int
    """Objects left, because they are being read."""


def stat(directory: Path, *, top: int = 10) -> VolumeStat:
    """The state of the volume in a directory. Raises `ConfigurationError` if there is none."""
    with _joined(directory) as volume:
        return survey(volume, top=top)


def survey(volume: VolumeDirectory, *, top: int) -> VolumeStat:
    """The state of an open volume."""
    with volume.open_ledger() as ledger:
        entries, totals, disk_bytes = ledger.objects(), ledger.totals(), volume.taken_bytes()
    return VolumeStat(
        directory=volume.directory,
        size_bytes=volume.terms.size_bytes,
        disk_bytes=disk_bytes,
        block_bytes=volume.terms.block_bytes,
        objects=len(entries),
        hits=totals.hits,
        misses=totals.misses,
        evictions=totals.evictions,
        oldest_s=max(0.0, time() - min(entry.used_s for entry in entries)) if entries else 0.0,
        top=tuple(sorted(entries, key=lambda entry: entry.hits + entry.misses, reverse=True)[:top]),
    )


def verify(directory: Path) -> Verified:
    """Check every block and pyramid of every object, and drop what is wrong. Reads all of the volume.

    Raises `ConfigurationError` if there is none.
    """
    objects = blocks = dropped_blocks = dropped_objects = whole_pyramids = dropped_pyramids = dropped_notes = 0
    with _joined(directory) as volume:
        for home in volume.object_directories():
            try:
                files = ObjectFiles.open(read_block_map(home), home)
            except FileNotFoundError:  # just evicted
                continue
            except Damaged:
                dropped_objects += volume.discard(home)
                continue
            if files is None:
                continue
            objects += 1
            with closing(files):
                for index in files.published():
                    if files.read_blocks([index]):
                        blocks += 1
                    elif files.lock_blocks([index]):  # else it is being fetched again
                        if not files.read_blocks([index]):
                            files.remove_block(index)
                            dropped_blocks += 1
                        files.unlock_blocks([index])
                whole, dropped = pyramids.verify(files)
                is_right = metadata.verify(files)
                if dropped or not is_right:
                    volume.weigh(files.blocks)
            whole_pyramids += whole
            dropped_pyramids += dropped
            dropped_notes += not is_right
    return Verified(objects, blocks, dropped_blocks, dropped_objects, whole_pyramids, dropped_pyramids, dropped_notes)


def find(directory: Path, image: str, *, keys: Sequence[str], root: str | None = None) -> list[str]:
    """The names in a volume that an image's identifier means, by the keys of its master, below any root or one.

    A name is a URL, after the endpoint and a space where the store has one of its own. A master's own URL means
    itself. Raises `Missing` where the volume has none, `ConfigurationError` where masters of several sources are
    meant, or there is no volume.
    """
    with _joined(directory) as volume, volume.open_ledger() as ledger:
        urls = sorted({object_url(entry.url) for entry in ledger.objects()})
    roots = {url: url.removesuffix(key) for key in keys for url in urls if url.endswith(f"/{key}")}
    found = [url for url in urls if url == image or url.endswith(f" {image}")]
    found = found or sorted(url for url in roots if root in (None, roots[url]))
    if not found:
        such = f", such as {urls[0]}" if urls else ""
        raise Missing(
            f"{directory} has nothing of '{image}' by the keys {', '.join(keys)}; it has {len(urls)} masters{such}"
        )
    if len({roots.get(url) for url in found}) > 1:
        raise ConfigurationError(f"'{image}' may be any of {', '.join(found)}: name one by its URL, or its --source")
    return found


def clear(directory: Path, urls: Sequence[str] | None = None) -> Cleared:
    """Remove all versions of some objects, or of all. Raises `ConfigurationError` if there is no volume."""
    with _joined(directory) as volume:
        counts = [volume.clear(url) for url in (urls if urls is not None else [None])]
        return Cleared(sum(gone for gone, _ in counts), sum(kept for _, kept in counts))


@contextmanager
def _joined(directory: Path) -> Iterator[VolumeDirectory]:
    volume = VolumeDirectory(directory, at=lambda step: None)
    volume.join(None)
    try:
        yield volume
    finally:
        volume.leave()
