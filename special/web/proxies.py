"""How this server is reached: under which hosts, through which proxies, and who is behind them.

Host and X-Forwarded-* headers can be set by any client. They reach info.json, links and redirects only where they are
the name of a host that is served here, and X-Forwarded-* only from proxies that the settings trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Self

from starlette.types import Scope

from special.errors import BadRequest, Misdirected

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """The server as its clients see it."""

    base_url: str | None
    """Its public address, where the settings name one."""
    proxies: frozenset[str]
    """Addresses whose X-Forwarded-* headers are believed."""
    hosts: re.Pattern[str] | None
    """The host names that are served, in lower case and without a port; None: any."""

    @classmethod
    def of(cls, base_url: str | None, *, trusted_proxies: Iterable[str], allowed_hosts: Sequence[str]) -> Self:
        """`allowed_hosts` are patterns such as `*.example.org`; `*` allows any."""
        patterns = [translate(pattern.lower()) for pattern in allowed_hosts]
        hosts = None if "*" in allowed_hosts else re.compile("|".join(patterns))
        return cls(base_url.rstrip("/") if base_url else None, frozenset(trusted_proxies), hosts)

    def base(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """`scheme://host` as the public sees it, without a trailing slash. Raises `BadRequest`, `Misdirected`."""
        if self.base_url and not self.hosts:
            return self.base_url
        scheme, host = scope["scheme"], _text(headers, b"host", "")
        if self.proxies and self._peer(scope) in self.proxies:
            scheme = _text(headers, b"x-forwarded-proto", scheme).split(",")[0].strip()
            host = _text(headers, b"x-forwarded-host", host).split(",")[0].strip()
        name = _host_name(scheme, host)
        if self.hosts and not self.hosts.fullmatch(name):
            raise Misdirected(f"This server does not answer for {name}.")
        return self.base_url or f"{scheme}://{host}"

    def client(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """The client's address: the peer, or behind trusted proxies the last forwarded address that is none of them."""
        peer = self._peer(scope)
        if peer in self.proxies and b"x-forwarded-for" in headers:
            for address in reversed(_text(headers, b"x-forwarded-for", "").split(",")):
                peer = address.strip() or peer
                if peer not in self.proxies:
                    break
        return peer

    @staticmethod
    def _peer(scope: Scope) -> str:
        client = scope.get("client")
        return client[0] if client else ""


@lru_cache(maxsize=1024)
def _host_name(scheme: str, host: str) -> str:
    """The name in a Host header, in lower case and without a port."""
    named = _HOST.fullmatch(host)
    if scheme not in ("http", "https") or named is None:
        raise BadRequest("The Host header is not a host name.")
    return named[1].lower()


def _text(headers: Mapping[bytes, bytes], name: bytes, default: str) -> str:
    value = headers.get(name)
    return default if value is None else value.decode("latin-1")
