"""The pages of a TIFF: which of its directories start one, and which are smaller levels of the page before.

Only the directory before tells where the next one is: to find page 300 costs a read for each of 299 others, once. What
was found is kept in a `PageIndex`, from which the next search goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from special.errors import Malformed, NoSuchPage, Unsupported
from special.formats.parser import Parser
from special.formats.tiff.ifd import Dialect, Directory, header
from special.formats.tiff.ifd_chain import DIRECTORY_BYTES, Links, fill
from special.formats.tiff.layout import level_of
from special.formats.tiff.page import Page
from special.formats.tiff.tags import COPIED, Tag
from special.storage import Span

MAX_PAGES = 10_000
"""A longer chain of directories is not followed."""
WALK_BYTES = 1024
"""What is asked for at a directory's offset: most of their entries fit."""
IS_MASK = 4
"""Bit 2 of NewSubfileType (TIFF 6.0, section 8): which of another picture's pixels are opaque."""


@dataclass(slots=True)
class _Picture:
    """A page, to tell which directories behind it are its levels."""

    directory: Directory
    factors: set[int] = field(default_factory=set)
    """How much smaller the levels are that it has."""

    def adopt(self, directory: Directory, *, size_bytes: int) -> bool:
        """Whether a directory that says nothing of itself is a smaller level of this page, as `TiffLayout` has it."""
        if Tag.SUB_IFDS in self.directory.fields or not directory.smaller_than(self.directory):
            return False
        try:
            full = Page.of(self.directory, size_bytes=size_bytes)
            level = level_of(directory, full, is_nested=False, size_bytes=size_bytes)
        except (Malformed, Unsupported):
            return False
        if level is None or level.factor in self.factors:
            return False
        self.factors.add(level.factor)
        return True


@dataclass(slots=True)
class PageIndex:
    """Where the pages of one version of a TIFF start, as far as they were looked for."""

    starts: list[int] = field(default_factory=list)
    """Offsets of the pages' own directories."""
    _at: int | None = None
    """The next directory; 0 where there is none, None where nothing was read yet."""
    _links: Links | None = None
    _pictures: list[_Picture] = field(default_factory=list)
    """The last page, and before it the one than which all directories since are smaller."""

    def find(self, page: int, size_bytes: int) -> Parser[int]:
        """The offset of a page's directory, in a file of `size_bytes`.

        Asks for one directory after the other. Raises `NoSuchPage`; `Malformed` for a broken one on the way, and
        `Unsupported` for too many.
        """
        (head,) = yield [Span(0, min(16, size_bytes))]
        dialect, first = header(head)
        if self._links is None:
            self._at, self._links = first, Links(size_bytes)
        links = self._links
        while len(self.starts) < page and self._at:
            at = self._at
            if len(links.seen) >= MAX_PAGES:
                raise Unsupported(f"the TIFF has more than {MAX_PAGES} directories; no page behind them is looked for")
            directory, following = yield from _read(dialect, links, at, [it.directory for it in self._pictures])
            if self._at == at:  # no other search has come as far meanwhile
                links.follow(at)
                self._add(at, directory, size_bytes)
                self._at = following
        if len(self.starts) < page:
            raise NoSuchPage(page, len(self.starts))
        return self.starts[page - 1]

    def _add(self, at: int, directory: Directory, size_bytes: int) -> None:
        if directory.is_reduced or directory.hint(Tag.NEW_SUBFILE_TYPE, 0) & IS_MASK:
            return
        if not directory.is_other_page and any(it.adopt(directory, size_bytes=size_bytes) for it in self._pictures):
            return
        self.starts.append(at)
        picture = _Picture(directory)
        top = self._pictures[0] if self._pictures else None
        is_smaller = top is not None and not directory.is_other_page and directory.smaller_than(top.directory)
        self._pictures = [top, picture] if top is not None and is_smaller else [picture]


def _read(dialect: Dialect, links: Links, at: int, before: Sequence[Directory]) -> Parser[tuple[Directory, int]]:
    """A directory, and the next one's offset; with its values where they tell whether it is a level of those before."""
    (head,) = yield [links.link(at, WALK_BYTES)]
    if dialect.entries_bytes(head) > len(head):
        (head,) = yield [links.span(at, DIRECTORY_BYTES)]
    directory, following = dialect.directory(head, at, data_at=at, end=links.size_bytes)
    if any(directory.smaller_than(it) for it in before):
        yield from fill([*before, directory], COPIED)
    return directory, following
