"""How identifiers and keys of masters belong together. Pure: no store is asked."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass, replace

from special.errors import RequestError
from special.iiif import IdentifierForm, parse_identifier

_TYPES = mimetypes.MimeTypes(filenames=())
_SIDE_FILES = frozenset(
    ["db", "ini", "jsonl", "log", "md", "md5", "sha1", "sha256", "sha512", "tfw", "toml", "yaml", "yml"]
)
"""Extensions of files that are kept beside masters and have no registered media type."""


@dataclass(frozen=True, slots=True)
class KeyTemplates:
    """Templates of keys, such as `{id}.jp2`."""

    templates: tuple[str, ...] = ("{id}",)
    """The first key that exists is the master."""
    id_segments: int = 1
    """Path segments of an identifier. 1 also allows for slashes inside it, which URLs write as %2F."""
    form: IdentifierForm = IdentifierForm.NORMAL
    """Other spellings of identifiers have no address."""

    def __str__(self) -> str:
        return ", ".join(self.templates)

    def keys_of(self, identifier: str) -> tuple[str, ...]:
        """The keys that an identifier's master may have, in the order in which they are tried."""
        return tuple(template.replace("{id}", identifier) for template in self.templates)

    def identifier_of(self, key: str) -> str | None:
        """The identifier whose master has this key; None for an object that is no master by its name.

        Where several templates fit, the one that says most about the key wins: `{id}.jp2` before `{id}`.
        """
        if not _may_be_image(key):
            return None
        for template in sorted(self.templates, key=len, reverse=True):
            match = re.fullmatch(_pattern(template), key, re.DOTALL)
            if match and self._has_address(match["id"]):
                return match["id"]
        return None

    def is_left_out(self, key: str) -> bool:
        """Whether an image's key makes no identifier only for its spelling: `a//b`, `/lead`. `odd_keys` allows it."""
        return (
            not key.endswith("/")
            and self.identifier_of(key) is None
            and replace(self, form=IdentifierForm.ODD).identifier_of(key) is not None
        )

    def _has_address(self, identifier: str) -> bool:
        if self.id_segments > 1 and identifier.count("/") != self.id_segments - 1:
            return False
        try:
            return parse_identifier(identifier.replace("%", "%25"), self.form) == identifier
        except RequestError:
            return False


def _pattern(template: str) -> str:
    """A key template as a regular expression; an `{id}` that comes again must be the same again."""
    before, *after = (re.escape(part) for part in template.split("{id}"))
    return f"{before}(?P<id>.+){'(?P=id)'.join(after)}"


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
