"""Identifiers of images: read from a URL, written into one, and the one spelling that is served.

Many stores fold spellings: SeaweedFS gives `private/x` for `/private/x` too. A rule or a sizes file knows only one of
them, so every other spelling is refused before any store is asked.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar
from urllib.parse import quote, unquote_to_bytes

from special.errors import BadRequest, NotFound

MAX_IDENTIFIER_BYTES = 1024
"""S3 allows keys of 1,024 bytes; no identifier can need more."""

_BUCKET = "s3://"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""C0, DEL and C1: in no identifier, and in no parameter."""
_PAGE = re.compile(r"(.+);([1-9][0-9]{0,4})", re.DOTALL)
_NUMBERED = re.compile(r".+;[0-9]+", re.DOTALL | re.ASCII)
"""What ends as the name of a page does, whether or not there can be such a page."""


class Spelling(Enum):
    """Which spellings of identifiers are served. None with a `..` segment: stores differ in what they make of it."""

    NORMAL = "normal"
    """Without empty segments and `.`."""
    NORMAL_NFC = "normal, NFC"
    """The same, composed as Unicode's NFC has it: file systems may open one file by composed and decomposed names."""
    ODD = "odd"
    """All others too: the bucket has such keys. What restricts the folded form then restricts them as well."""


@dataclass(frozen=True, slots=True)
class IdentifierForm:
    """How identifiers are read."""

    spelling: Spelling = Spelling.NORMAL
    pages: bool = True
    """Whether `{id};3` is page 3 of the image `{id}`. Of pages, too, there is one spelling: `{id}` for the first.

    An image whose own identifier ends like that has the address `{id};1`: `a;3;1` is no page of `a`.
    """
    NORMAL: ClassVar[IdentifierForm]
    NORMAL_NFC: ClassVar[IdentifierForm]
    ODD: ClassVar[IdentifierForm]

    def accepts(self, identifier: str) -> bool:
        """Whether an identifier is in the one spelling that is served."""
        image, page = self.split(identifier)
        segments = image.split("/")
        if ".." in segments or identifier != self.join(image, page):
            return False
        if self.spelling is Spelling.ODD:
            return True
        composed = self.spelling is Spelling.NORMAL or unicodedata.is_normalized("NFC", identifier)
        return composed and "" not in segments and "." not in segments

    def split(self, identifier: str) -> tuple[str, int]:
        """The image that an identifier names, and which page of it: 1 unless it says otherwise."""
        match = _PAGE.fullmatch(identifier) if self.pages and ";" in identifier else None
        return (match[1], int(match[2])) if match else (identifier, 1)

    def join(self, image: str, page: int = 1) -> str:
        """The identifier of a page of an image."""
        is_named = page > 1 or (self.pages and ";" in image and _NUMBERED.fullmatch(image) is not None)
        return f"{image};{page}" if is_named else image

    def names(self, identifier: str) -> tuple[str, ...]:
        """What rules may call it: a page is restricted as its image is."""
        return tuple(dict.fromkeys((identifier, self.split(identifier)[0])))


IdentifierForm.NORMAL = IdentifierForm()
IdentifierForm.NORMAL_NFC = IdentifierForm(Spelling.NORMAL_NFC)
IdentifierForm.ODD = IdentifierForm(Spelling.ODD)


def fold_identifier(identifier: str) -> str:
    """What a store that reads keys as paths makes of an identifier, or of a key."""
    composed = unicodedata.normalize("NFC", identifier)
    return "/".join(segment for segment in composed.split("/") if segment not in ("", "."))


def parse_identifier(quoted: str, form: IdentifierForm = IdentifierForm.NORMAL) -> str:
    """The identifier, percent-decoded once. Raises `BadRequest`, and `NotFound` for a spelling that is not served.

    An address `s3://bucket/key` is the identifier `s3:/bucket/key`, whose segments all have text.
    """
    identifier = decode(quoted)
    if len(identifier.encode()) > MAX_IDENTIFIER_BYTES:
        raise BadRequest(f"An identifier has at most {MAX_IDENTIFIER_BYTES} bytes.")
    if identifier.startswith(_BUCKET) and form.spelling is not Spelling.ODD:
        identifier = fold_identifier(_BUCKET) + "/" + identifier.removeprefix(_BUCKET)
    if "\\" in identifier:
        raise BadRequest("An identifier has no backslash.")
    image, page = form.split(identifier)
    if form.pages and page == 1 and image == identifier and _NUMBERED.fullmatch(identifier):
        raise BadRequest("A page is a number from 1 to 99999 without zeros before it: 'map.tif;3'.")
    identifier = form.join(image, page)
    if not form.accepts(identifier):
        raise NotFound("No image has this identifier: its segments are not empty, '.' or '..', and its text is NFC.")
    return identifier


def quote_identifier(identifier: str, *, id_segments: int = 1) -> str:
    """The identifier, percent-encoded for a URL: slashes stay only where the identifier has that many segments."""
    segmented = id_segments > 1 and identifier.count("/") == id_segments - 1
    return quote(identifier, safe="/" if segmented else "")


def decode(quoted: str) -> str:
    """A part of a URL, percent-decoded once. Raises `BadRequest`."""
    try:
        text = unquote_to_bytes(quoted).decode("utf-8") if "%" in quoted else quoted
    except UnicodeDecodeError:
        raise BadRequest("The address is not valid UTF-8.") from None
    if _CONTROL.search(text):
        raise BadRequest("The address contains control characters.")
    return text
