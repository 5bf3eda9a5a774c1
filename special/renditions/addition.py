"""One more rendition of an image, by a server that had to make it from the master. Pure.

A server does less than `derive`: it never touches what other tools have stored, nor what is of another version of the
master, another format or another quality. `derive` brings those up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from special import geometry
from special.geometry import Size
from special.images import Access, Rendition, StoredFormat
from special.renditions.sidecar import Sidecar
from special.renditions.sizes_file import SizesFile, rendition_key
from special.storage import Blob

MAX_SIZES = 32
"""Maximum number of an image's sizes that are added to: requests for every size there is must not fill the bucket."""


@dataclass(frozen=True, slots=True)
class Addition:
    """A picture of a whole image, and what it was made from."""

    identifier: str
    master: Blob
    shape: Size
    """The master's size in pixels, upright."""
    layout: bytes | None
    """As in `Sidecar`."""
    limit: int | None
    """Longest side that is open, by every rule that there is; None: everything is."""
    size: Size
    form: StoredFormat
    encoding: str
    """As in `Sidecar`."""
    data: bytes

    @property
    def rendition(self) -> Rendition:
        """Its key is never under `open/` above the limit."""
        access: Access = "open" if self.limit is None or self.size.long_side <= self.limit else "auth"
        return Rendition(self.size, access, rendition_key(self.identifier, self.size, access, self.form), self.form)

    def beside(self, sidecar: Sidecar | None) -> Sidecar | None:
        """The side-car that names this size too, given the current one (None: nothing is stored).

        None where it cannot be added.
        """
        if not self._in_proportion:
            return None
        if sidecar is None:
            return self._sidecar(SizesFile(formats=(self.form,))) if self.form == "jpg" else None
        sizes = sidecar.sizes
        listed = (*sizes.open, *sizes.auth)
        if (
            (sidecar.key, sidecar.etag, sidecar.page) != (self.master.key, self.master.etag, self.master.page)
            or not sidecar.settled
            or sidecar.encoding != self.encoding
            or sizes.formats != (self.form,)
            or len(listed) >= MAX_SIZES
            or any(size.long_side == self.size.long_side for size in listed)
        ):
            return None
        return replace(sidecar, sizes=self._among(sizes))

    @property
    def _in_proportion(self) -> bool:
        """A distorted picture would have the key of the undistorted one with its long side."""
        width, height = self.size.width, self.size.height
        return self.size in (geometry.to_width(self.shape, width), geometry.to_height(self.shape, height))

    def _among(self, sizes: SizesFile) -> SizesFile:
        return SizesFile.of((*sizes.renditions(self.identifier), self.rendition))

    def _sidecar(self, sizes: SizesFile) -> Sidecar:
        return Sidecar(
            key=self.master.key,
            etag=self.master.etag,
            size_bytes=self.master.size,
            media=self.master.media,
            modified=self.master.modified,
            shape=self.shape,
            layout=self.layout,
            sizes=self._among(sizes),
            # The operator's rules apply as well, as long as they are configured.
            max_unauthorised=None,
            encoding=self.encoding,
            settled=True,
            page=self.master.page,
        )
