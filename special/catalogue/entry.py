"""What a catalogue says of one image: where its master is, who may see how much of it, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from special.images import Description, Rule

FIELDS = (
    "url",
    "page",
    "max_unauthorised",
    "roles",
    "label",
    "filename",
    "rights",
    "attribution",
    "provider",
    "service",
    "partOf",
    "seeAlso",
)
"""What a document or a row may have; anything else in it is passed over."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a catalogue."""

    places: tuple[str, ...]
    """Where the master may be: URLs, paths, or keys of the default source. The first that exists is it."""
    page: int | None = None
    """Which page of the master the image is, and no other; None: the first, and `;3` names others."""
    max_unauthorised: int | None = None
    """Longest side, in pixels, of the full region that is open; None: everything is."""
    roles: frozenset[str] | None = None
    """Any one of these lifts the restriction; None: those of the rules, or the default roles."""
    label: str | None = None
    filename: str | None = None
    """What the image is called when it is saved, without an extension."""
    description: Description = field(default_factory=Description)
    etag: str | None = None
    """Of the document that it was read from, to ask whether it is still so."""
    origin: str = ""
    """The kind of catalogue that knew it."""

    def __post_init__(self) -> None:
        if not isinstance(self.places, tuple):  # a string is a sequence of strings, too
            raise TypeError(f"the places of an entry are a tuple, not {self.places!r}")

    @property
    def rule(self) -> Rule | None:
        """Who may see how much of it, where the catalogue names roles; without them its limit is like a store's."""
        return None if self.roles is None else Rule(self.max_unauthorised, self.roles)

    @classmethod
    def of(cls, document: Mapping[str, Any], *, etag: str | None = None) -> Self:
        """An entry of a JSON document or a database's row; lists and objects may be JSON text in it.

        Raises `ValueError` for what cannot be understood: a limit that is misread would open an image.
        """
        url, limit, roles = document.get("url"), document.get("max_unauthorised"), document.get("roles")
        if not isinstance(url, str) or not url:
            raise ValueError(f"its 'url' is {url!r}, not the place of a master")
        page = document.get("page")
        if page is not None and (type(page) is not int or page < 1):
            raise ValueError(f"its 'page' is {page!r}, not a number from 1")
        if limit is not None and (type(limit) is not int or limit < -1):
            raise ValueError(f"its 'max_unauthorised' is {limit!r}, not a number of pixels, 0 or -1")
        named = None if roles is None else _roles(roles)
        if limit is None and named:
            limit = 0  # roles without a limit restrict all of it
        return cls(
            (url,),
            page=page,
            max_unauthorised=None if limit == -1 else limit,
            roles=named,
            label=_text(document, "label"),
            filename=_text(document, "filename"),
            description=Description(
                rights=_text(document, "rights"),
                attribution=_text(document, "attribution"),
                provider=_objects(document, "provider"),
                service=_objects(document, "service"),
                part_of=_objects(document, "partOf"),
                see_also=_objects(document, "seeAlso"),
            ),
            etag=etag,
        )


def _roles(value: Any) -> frozenset[str]:
    """Roles as a list, as JSON text of one, or as words."""
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else value.replace(",", " ").split()
    if not isinstance(value, list) or not all(isinstance(it, str) and it for it in value):
        raise ValueError(f"its 'roles' are {value!r}, not a list of names")
    return frozenset(value)


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its '{name}' is {value!r}, not text")
    return value or None


def _objects(document: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], ...]:
    value = document.get(name)
    if isinstance(value, str):
        value = json.loads(value) if value else None
    if isinstance(value, dict):
        value = [value]
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(it, dict) for it in value):
        raise ValueError(f"its '{name}' is {value!r}, not a list of objects")
    return tuple(value)
