"""Identifiers of images: read from a URL, written into one, and the one spelling that is served.

Many stores fold spellings: SeaweedFS gives `private/x` for `/private/x` too. A rule or a sizes file knows only one of
them, so every other spelling is refused before any store is asked.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from urllib.parse import quote, unquote_to_bytes

from special.errors import BadRequest, NotFound

MAX_IDENTIFIER_BYTES = 1024
"""S3 allows keys of 1,024 bytes; no identifier can need more."""

_BUCKET = "s3://"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""C0, DEL and C1: in no identifier, and in no parameter."""


class IdentifierForm(Enum):
    """Which spellings of identifiers are served. None with a `..` segment: stores differ in what they make of it."""

    NORMAL = "normal"
    """Without empty segments and `.`."""
    NORMAL_NFC = "normal, NFC"
    """The same, composed as Unicode's NFC has it: file systems may open one file by composed and decomposed names."""
    ODD = "odd"
    """All others too: the bucket has such keys. What restricts the folded form then restricts them as well."""

    def accepts(self, identifier: str) -> bool:
        segments = identifier.split("/")
        if ".." in segments:
            return False
        if self is IdentifierForm.ODD:
            return True
        composed = self is IdentifierForm.NORMAL or unicodedata.is_normalized("NFC", identifier)
        return composed and "" not in segments and "." not in segments


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
    if identifier.startswith(_BUCKET) and form is not IdentifierForm.ODD:
        identifier = fold_identifier(_BUCKET) + "/" + identifier.removeprefix(_BUCKET)
    if "\\" in identifier:
        raise BadRequest("An identifier has no backslash.")
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
