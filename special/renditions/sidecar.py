"""The side-car: what `derive` stores about one image beside its renditions. Our own form."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from special.formats import Layout
from special.geometry import Size
from special.renditions.sizes_file import SizesFile
from special.storage import Blob

SIDECAR_NAME = "special.json"
SIDECAR_VERSION = 1
"""Another version is refused by name."""
FOREIGN = "foreign"
"""The encoding of renditions that others made: the side-car is ours, the sizes file and its files are theirs."""
MAX_LAYOUT_BYTES = 256 * 1024
"""A longer layout stays out of the side-car, which every cold request reads."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What `derive` stores about one image beside its renditions."""

    key: str
    """The master's key in the default source, or its URL in another one."""
    etag: str
    """The version of the master that the renditions were made from."""
    size_bytes: int
    media: str | None
    modified: datetime | None
    shape: Size
    """The master's size in pixels, upright."""
    layout: bytes | None
    """What `formats.load` reads; None where it would be too large to be worth reading."""
    sizes: SizesFile
    """What the sizes file says once this side-car is published."""
    max_unauthorised: int | None
    """Longest side that is open; None: everything is."""
    encoding: str
    """How the renditions were encoded, such as `jpg 85`; `FOREIGN` where others made them."""
    settled: bool
    """False while there may be files that must be removed."""
    page: int = 1
    """Which page of the master the image is."""

    def blob(self, root: str) -> Blob:
        """The master's pinned version, in the source of that root."""
        key = self.key.removeprefix(root)
        return Blob(root, key, self.etag, self.size_bytes, self.media, self.modified, self.page)

    def dump(self) -> bytes:
        return json.dumps(
            {
                "version": SIDECAR_VERSION,
                "master": {
                    "key": self.key,
                    "etag": self.etag,
                    "bytes": self.size_bytes,
                    "media": self.media,
                    "modified": self.modified.isoformat() if self.modified else None,
                    "width": self.shape.width,
                    "height": self.shape.height,
                    "layout": b64encode(self.layout).decode() if self.layout is not None else None,
                    **({"page": self.page} if self.page != 1 else {}),
                },
                "sizes": self.sizes.plain(),
                "max_unauthorised": self.max_unauthorised,
                "encoding": self.encoding,
                "settled": self.settled,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def load(cls, document: Any) -> Sidecar:
        """Read the parsed form. Raises `ValueError`, `KeyError` or `TypeError` where it is none."""
        if document["version"] != SIDECAR_VERSION:
            raise ValueError(f"its version is {document['version']!r}, this special reads {SIDECAR_VERSION}")
        master = document["master"]
        limit = document["max_unauthorised"]
        return cls(
            key=str(master["key"]),
            etag=str(master["etag"]),
            size_bytes=int(master["bytes"]),
            media=master["media"],
            modified=datetime.fromisoformat(master["modified"]) if master["modified"] else None,
            shape=Size(master["width"], master["height"]),
            layout=b64decode(master["layout"], validate=True) if master["layout"] is not None else None,
            sizes=SizesFile.load(document["sizes"]),
            max_unauthorised=int(limit) if limit is not None else None,
            encoding=str(document["encoding"]),
            settled=bool(document["settled"]),
            page=int(master.get("page", 1)),
        )


def dump_layout(layout: Layout) -> bytes | None:
    """A layout as a side-car keeps it; None where it is too long."""
    data = layout.dump()
    return data if len(data) <= MAX_LAYOUT_BYTES else None
