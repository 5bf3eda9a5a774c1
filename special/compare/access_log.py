"""Targets of GET requests out of access logs. Pure.

A log line names people: addresses, user agents, names, queries. Nothing but the request's target is taken of it, and
of that `sample` keeps the path.

    combined        nginx and Apache, with or without a virtual host in front: "GET /path HTTP/1.1"
    ALB             the same with a whole URL: "GET https://host:443/path HTTP/1.1"
    CloudFront      columns as its #Fields line names them
    JSON lines      nginx, Caddy, Google's load balancers, CloudFront, `special` itself
    URLs            an address or path a line
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

_QUOTED = re.compile(r'"([A-Z]{3,10}) (.+?) HTTP/\d(?:\.\d)?"')
_ESCAPED = re.compile(r"\\x([0-9A-Fa-f]{2})|\\([\"\\])")
"""How nginx and Apache write what would end a field, and bytes that are not ASCII."""
_ORIGIN = re.compile(r"https?://[^/?]+", re.IGNORECASE)
_TARGETS = ("request_uri", "requestUrl", "uri", "url", "path", "cs-uri-stem")
_METHODS = ("method", "request_method", "requestMethod", "cs-method")
_NESTED = ("request", "httpRequest")
_UNSAFE = "!$%&'()*+,-./:;=?@^_~"
"""What stays as it is in a target; everything else is percent-encoded."""


def targets(lines: Iterable[str]) -> Iterator[str | None]:
    """The path and query of each line's GET request, percent-encoded; None for a line without one."""
    columns: list[str] = []
    for line in map(str.strip, lines):
        if not line:
            continue
        if line.startswith("#"):
            if line.startswith("#Fields:"):
                columns = line.removeprefix("#Fields:").split()
            continue
        found = _of_columns(dict(zip(columns, line.split("\t"), strict=False))) if columns else _of_line(line)
        yield None if found is None else quote(_ORIGIN.sub("", found, count=1), safe=_UNSAFE)


def _of_line(line: str) -> str | None:
    if line.startswith("{"):
        try:
            document = json.loads(line)
        except ValueError:
            return None
        return _of_columns(document) if "cs-uri-stem" in document else _of_json(document)
    if line.startswith(("http://", "https://", "/")) and " " not in line:
        return line
    match = _QUOTED.search(line)
    return _unescaped(match[2]) if match and match[1] == "GET" else None


def _of_columns(fields: dict[str, Any]) -> str | None:
    """CloudFront percent-encodes what it logs, so that `%2F` of an address is `%252F` there."""
    if fields.get("cs-method") != "GET" or "cs-uri-stem" not in fields:
        return None
    query = fields.get("cs-uri-query", "-")
    target = fields["cs-uri-stem"] + ("" if query in ("-", "") else f"?{query}")
    return str(target).replace("%25", "%")


def _of_json(document: dict[str, Any]) -> str | None:
    for name in _NESTED:
        inner = document.get(name)
        if isinstance(inner, dict):
            return _of_json(inner)
        if isinstance(inner, str):
            method, _, rest = inner.partition(" ")
            return rest.rpartition(" HTTP/")[0] or rest if method == "GET" else None
    method = next((document[name] for name in _METHODS if name in document), "GET")
    target = next((document[name] for name in _TARGETS if isinstance(document.get(name), str)), None)
    return target if method == "GET" else None


def _unescaped(text: str) -> str:
    data = _ESCAPED.sub(lambda it: chr(int(it[1], 16)) if it[1] else it[2], text)
    # The escapes are bytes, of UTF-8 as a rule: quote() takes them as they are.
    return quote(data.encode("latin-1", "replace"), safe=_UNSAFE)
