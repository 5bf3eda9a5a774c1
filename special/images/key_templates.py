"""How identifiers and keys of masters belong together. Pure: no store is asked.

A template is text with fields. Of the identifier `ark/12148/f1`:

    {id}                  ark/12148/f1          the identifier
    {id[0:2]}             ar                    some characters of it, as Python slices text
    {parts[1]}            12148                 a segment, counted from 0, or from the end with -1
    {sha1}  {sha1[0:2]}   5c                    the SHA-1 of its UTF-8 text in hexadecimal; also md5 and sha256
    {pairtree}            ar/k=/12/14/8=/f1     the path of a pairtree
    {lower}               ark/12148/f1          in small letters
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_to_bytes

from special.errors import ConfigurationError, RequestError
from special.iiif import IdentifierForm, Spelling, parse_identifier

LeftOut = Literal["spelling", "no image", "no template"]
"""Why a key makes no identifier: `a//b` and `/lead`, which `odd_keys` allows; it is no image by its name, or hidden;
the templates, with the segments of identifiers, have no place for it."""
_TYPES = mimetypes.MimeTypes(filenames=())
for _extension in ("jp2", "jpf", "jpx", "jpm", "j2k", "j2c", "jpc", "jph", "jhc", "ptif", "ptiff", "tf8", "btf"):
    _TYPES.add_type(f"image/x-{_extension}", f".{_extension}")  # images for which no type is known everywhere
_SIDE_FILES = frozenset(
    ["db", "ini", "jsonl", "log", "md", "md5", "sha1", "sha256", "sha512", "tfw", "toml", "yaml", "yml"]
)
"""Extensions of files that are kept beside masters and have no registered media type."""
_FIELD = re.compile(r"\{(\w+)(?:\[(-?\d+)\]|\[(-?\d+)?(:)(-?\d+)?\])?\}", re.ASCII)
_DIGESTS = ("md5", "sha1", "sha256")
_FIELDS = ("id", "parts", *_DIGESTS, "pairtree", "lower")
_USAGE = "fields are {id}, {id[0:2]}, {parts[0]}, {sha1}, {sha1[0:2]}, {md5}, {sha256}, {pairtree} and {lower}"
_PAIRTREE_ODD = re.compile(r'[^\x21-\x7e]|["*+,<=>?\\^|]')
"""What the pairtree specification (version 0.1, section 3) writes in hexadecimal."""
_PAIRTREE_SWAPS = {ord("/"): ord("="), ord(":"): ord("+"), ord("."): ord(",")}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    start: int | None
    stop: int | None
    is_slice: bool

    @property
    def group(self) -> str | None:
        """The group of a key's pattern that tells the identifier or a segment of it; None for a field that does not."""
        if self.name == "parts":
            return f"part{self.start}" if self.start is not None and self.start >= 0 else None
        return self.name if self.name in ("id", "pairtree") and not self.is_slice else None

    def of(self, identifier: str) -> str | None:
        """The field's text; None where the identifier has no such segment."""
        match self.name:
            case "parts":
                parts = identifier.split("/")
                assert self.start is not None, "it was checked"
                return parts[self.start] if -len(parts) <= self.start < len(parts) else None
            case "id":
                text = identifier
            case "lower":
                text = identifier.lower()
            case "pairtree":
                text = _pairtree(identifier)
            case digest:
                text = hashlib.new(digest, identifier.encode(), usedforsecurity=False).hexdigest()
        return text[self.start : self.stop] if self.is_slice else text


@dataclass(frozen=True, slots=True)
class KeyTemplates:
    """Templates of keys, such as `{id}.jp2`. Raises `ConfigurationError` for one that cannot be read."""

    templates: tuple[str, ...] = ("{id}",)
    """The first key that exists is the master."""
    id_segments: int = 1
    """Path segments of an identifier. 1 also allows for slashes inside it, which URLs write as %2F."""
    form: IdentifierForm = IdentifierForm.NORMAL
    """How identifiers are read. Other spellings have no address; a page has the keys of its image."""
    slash_substitute: str = ""
    """What stands for a slash in identifiers, which then have none; empty: a slash is a slash."""

    def __post_init__(self) -> None:
        for template in self.templates:
            _compiled(template)

    def __str__(self) -> str:
        return ", ".join(self.templates)

    def keys_of(self, identifier: str) -> tuple[str, ...]:
        """The keys that an identifier's master may have, in the order in which they are tried.

        None for an identifier that is not the one spelling of its image, or has too few segments for every template.
        """
        identifier, _ = self.form.split(identifier)
        if self.slash_substitute:
            if "/" in identifier:
                return ()
            identifier = identifier.replace(self.slash_substitute, "/")
            if not replace(self.form, pages=False).accepts(identifier):
                return ()
        keys = (_key(template, identifier) for template in self.templates)
        return tuple(key for key in keys if key is not None)

    def identifier_of(self, key: str) -> str | None:
        """The identifier whose master has this key; None for an object that is no master by its name.

        Where several templates fit, the one that says most about the key wins: `{id}.jp2` before `{id}`. None too
        where the template's fields do not tell the whole identifier, as `{sha1}` or `{lower}` alone.
        """
        if not self._is_candidate(key):
            return None
        for template in sorted(self.templates, key=len, reverse=True):
            identifier = _identifier(template, key)
            if identifier is not None and self.slash_substitute:
                identifier = identifier.replace("/", self.slash_substitute)
            identifier = identifier and self.form.join(identifier)
            if identifier is not None and self._has_address(identifier) and key in self.keys_of(identifier):
                return identifier
        return None

    def left_out(self, key: str) -> LeftOut | None:
        """Why a key makes no identifier; None where it makes one, and for what stands for a folder."""
        if key.endswith("/") or self.identifier_of(key) is not None:
            return None
        if not self._is_candidate(key):
            return "no image"
        odd = replace(self, form=replace(self.form, spelling=Spelling.ODD))
        return "no template" if odd.identifier_of(key) is None else "spelling"

    def _is_candidate(self, key: str) -> bool:
        """Whether nothing in a key's name says that it is no image, or a template has its extension."""
        extension = key.rpartition("/")[2].rpartition(".")[2]
        return _may_be_image(key) or any(it.endswith(f"}}.{extension}") for it in self.templates)

    def _has_address(self, identifier: str) -> bool:
        if self.id_segments > 1 and identifier.count("/") != self.id_segments - 1:
            return False
        try:
            return parse_identifier(identifier.replace("%", "%25"), self.form) == identifier
        except RequestError:
            return False


@lru_cache(256)
def _compiled(template: str) -> tuple[str | _Field, ...]:
    """A template's literal text and its fields, in order. Raises `ConfigurationError`."""
    pieces: list[str | _Field] = []
    end = 0
    for match in _FIELD.finditer(template):
        name, index, first, colon, last = match.groups()
        if name not in _FIELDS or (index is not None) != (name == "parts"):
            raise ConfigurationError(f"the key template '{template}' has {match[0]}: {_USAGE}")
        start, stop = (int(it) if it else None for it in (index or first, last))
        pieces += [template[end : match.start()], _Field(name, start, stop, is_slice=colon is not None)]
        end = match.end()
    pieces = [it for it in (*pieces, template[end:]) if it != ""]
    literal = "".join(it for it in pieces if isinstance(it, str))
    if "{" in literal or "}" in literal or literal == template:
        raise ConfigurationError(f"the key template '{template}' cannot be read: {_USAGE}")
    return tuple(pieces)


def _key(template: str, identifier: str) -> str | None:
    """The key of an identifier; None where a field has no text, or would lead to another folder."""
    pieces = _compiled(template)
    texts = [it if isinstance(it, str) else it.of(identifier) for it in pieces]
    if any(not text for text in texts):
        return None
    key = "".join(text for text in texts if text)
    # An identifier was checked at the door, but a slice of it may be what no segment may be.
    is_cut = any(isinstance(it, _Field) and (it.is_slice or it.name != "id") for it in pieces)
    path = key.rpartition("://")[2]
    return None if is_cut and any(segment in ("", ".", "..") for segment in path.split("/")) else key


def _identifier(template: str, key: str) -> str | None:
    """The identifier that a template's fields tell of a key; to be confirmed by its keys."""
    match = re.fullmatch(_pattern(template), key, re.DOTALL)
    if match is None:
        return None
    found = match.groupdict()
    if "id" in found:
        return found["id"]
    if "pairtree" in found:
        return _unpaired(found["pairtree"])
    parts = [found.get(f"part{number}") for number in range(len(found))]
    return "/".join(part for part in parts if part) if parts and all(parts) else None


@lru_cache(256)
def _pattern(template: str) -> str:
    """A key template as a regular expression; a field that comes again must be the same again."""
    pattern, seen = "", set[str]()
    for piece in _compiled(template):
        if isinstance(piece, str):
            pattern += re.escape(piece)
        elif (group := piece.group) is None:
            pattern += ".+?"
        else:
            pattern += f"(?P={group})" if group in seen else f"(?P<{group}>{_WHOLE[piece.name]})"
            seen.add(group)
    return pattern


_WHOLE = {"id": ".+", "parts": "[^/]+", "pairtree": "(?:[^/]{2}/)*[^/]{1,2}"}
"""What a field that tells the identifier, or a segment of it, may look like in a key."""


def _pairtree(identifier: str) -> str:
    """The path of an identifier in a pairtree (version 0.1, sections 2 and 3)."""
    cleaned = "".join(
        it if not _PAIRTREE_ODD.match(it) else "".join(f"^{byte:02x}" for byte in it.encode()) for it in identifier
    ).translate(_PAIRTREE_SWAPS)
    return "/".join(cleaned[at : at + 2] for at in range(0, len(cleaned), 2))


def _unpaired(path: str) -> str | None:
    """The identifier of a path in a pairtree; None for what is no such path."""
    cleaned = path.replace("/", "").translate({other: one for one, other in _PAIRTREE_SWAPS.items()})
    quoted = cleaned.replace("%", "%25").replace("^", "%")
    try:
        return unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return None


def claims_image(key: str) -> bool:
    """Whether a key's extension says that the object is an image."""
    kind, packing = _TYPES.guess_type(f"file:{key.rpartition('/')[2]}", strict=False)
    return packing is None and kind is not None and kind.startswith("image/")


def _may_be_image(key: str) -> bool:
    """False for what a well-known extension says is no image, and for hidden files."""
    name = key.rpartition("/")[2]
    if not name or name.startswith(".") or name.rpartition(".")[2].lower() in _SIDE_FILES:
        return False
    kind, packing = _TYPES.guess_type(f"file:{name}", strict=False)
    return packing is None and (kind is None or kind.startswith("image/"))
