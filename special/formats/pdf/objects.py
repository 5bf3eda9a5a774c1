"""Objects of a PDF from their text (ISO 32000-1, section 7.3). Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

from special.errors import Malformed

MAX_DEPTH: Final = 64
"""How deep arrays and dictionaries may be inside each other."""
_SPACE: Final = rb"(?:[\0\t\n\f\r ]|%[^\r\n]*[\r\n])*"
_SPACES: Final = re.compile(_SPACE)
_LINE_END: Final = re.compile(rb"[\t\f ]*(?:\r\n|\n|\r)?")
_TOKEN: Final = re.compile(_SPACE + rb"(<<|>>|[\[\](){}]|<[0-9A-Fa-f\0\t\n\f\r ]*>|/?[^\0\t\n\f\r ()<>\[\]{}/%]+|/)")
_REST_OF_REFERENCE: Final = re.compile(rb"[\0\t\n\f\r ]+(\d{1,5})[\0\t\n\f\r ]+R(?![^\0\t\n\f\r ()<>\[\]{}/%])")
_INTEGER: Final = re.compile(rb"[+-]?\d+")
_NUMBER: Final = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)")
_PARENTHESIS: Final = re.compile(rb"\\.|[()]", re.DOTALL)
_WORDS: Final = {b"true": True, b"false": False, b"null": None}


class Name(str):
    """A name, without its solidus."""

    __slots__ = ()


class Reference(NamedTuple):
    """An object of its own, by its number."""

    number: int
    generation: int


Object: TypeAlias = "bool | int | float | bytes | Name | Reference | list[Object] | dict[str, Object] | None"
"""A string is bytes, as it is written."""


class Cut(Exception):
    """The text ends before the object does."""


class Scanner:
    """Objects one after the other out of a part of a file, which may end within one."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at
        """Offset of the first byte that was not taken."""

    def token(self) -> bytes:
        """The next token; of a string in parentheses the first of these. Raises `Cut`."""
        found = _TOKEN.match(self._data, self.at)
        if found is None or found.end() == len(self._data):
            raise Cut
        self.at = found.end()
        return found[1]

    def integer(self) -> int:
        """The next token, a whole number that is not negative. Raises `Cut`, `Malformed`."""
        token = self.token()
        if not token.isdigit() or len(token) > 10:
            raise Malformed(f"the PDF has {token[:20]!r} where a number should be")
        return int(token)

    def skip_space(self) -> None:
        """Go to the first byte of the next token. Raises `Cut`."""
        self._skip(_SPACES)

    def line(self) -> int:
        """Go to the first byte of the next line, and give its offset (section 7.3.8.1). Raises `Cut`."""
        self._skip(_LINE_END)
        return self.at

    def _skip(self, what: re.Pattern[bytes]) -> None:
        found = what.match(self._data, self.at)
        if found is None or found.end() == len(self._data):
            raise Cut
        self.at = found.end()

    def value(self, depth: int = 0) -> Object:
        """The next object. Raises `Cut`, `Malformed`."""
        return self._value(self.token(), depth)

    def _value(self, token: bytes, depth: int) -> Object:
        if depth > MAX_DEPTH:
            raise Malformed(f"the PDF has objects in more than {MAX_DEPTH} others")
        if token == b"<<":
            return self._dictionary(depth)
        if token == b"[":
            items: list[Object] = []
            while (token := self.token()) != b"]":
                items.append(self._value(token, depth + 1))
            return items
        if token == b"(":
            return self._string()
        if token.startswith(b"/"):
            return _name(token)
        if token.startswith(b"<"):
            return token
        if _INTEGER.fullmatch(token) and len(token) <= 20:
            return self._integer_or_reference(int(token))
        if _NUMBER.fullmatch(token) and len(token) <= 40:
            return float(token)
        if token in _WORDS:
            return _WORDS[token]
        raise Malformed(f"the PDF has {token[:20]!r} where an object should be")

    def _dictionary(self, depth: int) -> dict[str, Object]:
        entries: dict[str, Object] = {}
        while (token := self.token()) != b">>":
            if not token.startswith(b"/"):
                raise Malformed(f"the PDF has {token[:20]!r} where a dictionary's key should be")
            entries[_name(token)] = self.value(depth + 1)
        return entries

    def _integer_or_reference(self, number: int) -> int | Reference:
        if len(self._data) - self.at < 16:  # too few for what follows a reference
            raise Cut
        rest = _REST_OF_REFERENCE.match(self._data, self.at)
        if rest is None or number < 0:
            return number
        self.at = rest.end()
        return Reference(number, int(rest[1]))

    def _string(self) -> bytes:
        start, depth = self.at, 1
        while depth:
            found = _PARENTHESIS.search(self._data, self.at)
            if found is None:
                raise Cut
            self.at = found.end()
            depth += {b"(": 1, b")": -1}.get(found[0], 0)
        return self._data[start : self.at - 1]


def _name(token: bytes) -> Name:
    plain = re.sub(rb"#([0-9A-Fa-f]{2})", lambda code: bytes([int(code[1], 16)]), token[1:])
    return Name(plain.decode("latin-1"))
