"""Which form of a document an Accept header prefers (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from special.iiif import Version

MAX_HEADER = 2000
"""Characters of a header that are read; what comes after them counts as not said."""

JsonMedia = Literal["application/ld+json", "application/json"]

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_RANGE = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_PARAMETER = re.compile(rf"""\s*;\s*([^\s=;]+)\s*=\s*({_QUOTED}|'[^']*'|[^\s;]*)""")
_CONTEXT: Final = "http://iiif.io/api/{api}/{version}/context.json"


@dataclass(frozen=True, slots=True)
class Form:
    """One form in which a document is offered."""

    version: Version
    media: JsonMedia


_FORMS: dict[Version, tuple[Form, ...]] = {
    3: (Form(3, "application/ld+json"), Form(3, "application/json")),
    2: (Form(2, "application/json"), Form(2, "application/ld+json")),
}
_ANY: dict[Version, tuple[Form, ...]] = {3: _FORMS[3] + _FORMS[2], 2: _FORMS[2] + _FORMS[3]}
"""By the default version."""


@dataclass(frozen=True, slots=True)
class _Range:
    media: str
    parameters: Mapping[str, str]
    weight: float

    def specificity(self, form: Form, api: str) -> int:
        """How closely it names a form; 0 where it does not."""
        if self.media not in ("*/*", "application/*", form.media):
            return 0
        context = _CONTEXT.format(api=api, version=form.version)
        if self.parameters.keys() - {"charset"} and self.parameters.get("profile") != context:
            return 0
        return 1 + (self.media != "*/*") + (self.media == form.media) + bool(self.parameters)


@lru_cache(maxsize=1024)
def preferred(
    accept: str, named: Version | None, *, api: Literal["image", "presentation"] = "image", default: Version = 3
) -> Form:
    """The form that a client wants of an API's documents; `named` is the version that the address says.

    Where the header says nothing, or wants none of them, it is the first that is offered, of the `default` version:
    that is better than 406.
    """
    ranges = list(_parsed(accept[:MAX_HEADER]))

    def weight(form: Form) -> float:
        closest = max(((it.specificity(form, api), it.weight) for it in ranges), default=(0, 0.0))
        return closest[1] if closest[0] else 0.0

    return max(_FORMS[named] if named else _ANY[default], key=weight)


def _parsed(accept: str) -> Iterator[_Range]:
    for part in _RANGE.findall(accept):
        media, semicolon, rest = part.partition(";")
        parameters = {name.lower(): _unquoted(value) for name, value in _PARAMETER.findall(semicolon + rest)}
        weight = parameters.pop("q", "1")
        try:
            yield _Range(media.strip().lower(), parameters, min(1.0, max(0.0, float(weight))))
        except ValueError:
            continue


def _unquoted(value: str) -> str:
    # Clients write single quotes too, and https, which is in no context's address.
    return value.strip("\"'").replace("https://iiif.io/", "http://iiif.io/")
