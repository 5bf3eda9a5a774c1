"""What a volume leaves on disk, as version 1 of its format wrote it: golden, never edited to fit the code."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from special.storage.blob import Blob
from special.volume import Volume
from special.volume.directory import LEDGER_NAME
from special.volume.membership import SERVERS_NAME

MASTER = Blob("s3://archive/", "leaf.tif", '"5d41402a"', 100_000)
NAME = "434f7d13dc38ae1f02765b6cef3d60703801f0e99348ec18d0e926c7a287c9e1"
METADATA = b"special-note\0\0\0\1" + bytes.fromhex("135d8f8c") + b"what was parsed"
SERVERS = b'{"version": 1, "size_bytes": 16777216, "block_bytes": 65536}\n'
COLUMNS = {
    "objects": "name url etag size_bytes block_bytes disk_bytes made_s used_s hits misses stale",
    "holds": "id owner name bytes",
    "totals": "disk_bytes hits misses evictions",
}


async def left_behind(directory: Path) -> None:
    async with Volume(directory, size_bytes=16 << 20, block_bytes=64 << 10) as volume:
        volume.metadata.put(MASTER, lambda: b"what was parsed")
        await volume.metadata.flush()


async def test_servers_file_golden(tmp_path: Path) -> None:
    await left_behind(tmp_path)
    assert (tmp_path / SERVERS_NAME).read_bytes() == SERVERS.ljust(4096)


async def test_metadata_golden(tmp_path: Path) -> None:
    await left_behind(tmp_path)
    assert (tmp_path / "objects" / NAME[:2] / NAME[2:] / "note").read_bytes() == METADATA


async def test_ledger_golden(tmp_path: Path) -> None:
    await left_behind(tmp_path)
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        columns = {table: " ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})")) for table in COLUMNS}
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        objects = db.execute("SELECT name, url, etag, size_bytes, block_bytes, hits, misses, stale FROM objects")
        assert columns == COLUMNS
        assert tables == set(COLUMNS)
        assert objects.fetchall() == [(NAME, "s3://archive/leaf.tif", MASTER.etag, 100_000, 65_536, 0, 0, 0)]
