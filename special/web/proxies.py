"""How this server is reached: under which hosts, through which proxies, and which client is behind them.

Host, Forwarded and X-Forwarded-* headers can be set by any client. They reach info.json, links and redirects only
where they name a host that is served here, and forwarded headers only from proxies that the settings trust.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import quote

from starlette.types import Scope

from special.errors import BadRequest, ConfigurationError, Misdirected

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?", re.ASCII)
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?", re.ASCII)
_PAIR = re.compile(r'\s*([a-z]+)\s*=\s*(?:"([^"\\]*)"|([^\s;,"]+))\s*', re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_FORWARDED = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
    )
)

log = logging.getLogger("special.web")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The peers whose forwarded headers are believed."""

    networks: tuple[Network, ...] = ()
    any: bool = False
    """Every peer; for servers that only a proxy can reach."""
    unix: bool = False
    """Peers on a Unix socket, which have no address."""
    _known: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)
    """What was found out of peers: networks are slow to hash and to search."""

    @classmethod
    def parse(cls, names: Iterable[str]) -> Self:
        """From addresses, networks such as `10.0.0.0/8`, `*` and `unix`. Raises `ConfigurationError` for others."""
        chosen = [name.strip() for name in names]
        networks = []
        for name in chosen:
            if name in ("*", "unix"):
                continue
            try:
                networks.append(ip_network(name, strict=False))
            except ValueError:
                raise ConfigurationError(
                    f"trusted_proxies: '{name}' is no address; name addresses, networks such as 10.0.0.0/8, unix, or *"
                ) from None
        return cls(tuple(networks), "*" in chosen, "unix" in chosen)

    def __contains__(self, peer: object) -> bool:
        if not isinstance(peer, str):
            return False
        trusted = self._known.get(peer)
        if trusted is None:
            if len(self._known) >= 4096:
                self._known.clear()
            trusted = self._known[peer] = self._is_trusted(peer)
        return trusted

    def _is_trusted(self, peer: str) -> bool:
        if self.any:
            return True
        try:
            address = ip_address(peer)
        except ValueError:
            return self.unix and not peer
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class _Forwarded:
    """What proxies say of a request, the nearest proxy last."""

    clients: tuple[str, ...] = ()
    scheme: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """The server as its clients see it."""

    base_url: str | None
    """Its public address, where the settings name one."""
    proxies: TrustedProxies
    hosts: re.Pattern[str] | None
    """The host names that are served, in lower case and without a port; None: any."""
    _told: set[str] = field(default_factory=set)
    """Peers whose untrusted headers were reported."""

    @classmethod
    def of(cls, base_url: str | None, *, trusted_proxies: Iterable[str], allowed_hosts: Sequence[str]) -> Self:
        """`allowed_hosts` are patterns such as `*.example.org`; `*` allows any. Raises `ConfigurationError`."""
        patterns = [translate(pattern.lower()) for pattern in allowed_hosts]
        hosts = None if "*" in allowed_hosts else re.compile("|".join(patterns))
        proxies = TrustedProxies.parse(trusted_proxies)
        return cls(base_url.rstrip("/") if base_url else None, proxies, hosts)

    def base(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """`scheme://host[:port][/prefix]` as the public sees it, without a trailing slash.

        Raises `BadRequest`, also for a second Host header, and `Misdirected`.
        """
        if len(headers) != len(scope["headers"]) and _count(scope, b"host") > 1:  # RFC 9112, section 3.2
            raise BadRequest("There is more than one Host header.")
        if self.base_url and not self.hosts:
            return self.base_url
        scheme, host, prefix = self._named(scope, headers)
        name = _host_name(scheme, host)
        if self.hosts and not self.hosts.fullmatch(name):
            raise Misdirected(f"This server does not answer for {name}.")
        # Below the path at which another application has mounted this one.
        return self.base_url or f"{scheme}://{host}{prefix}{quote(scope.get('root_path', ''))}"

    def is_shareable(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        """Whether caches may share an answer that names its base.

        Caches know it by its Host header. A host or a path that was forwarded beside that could be a client's
        invention, which a proxy passed on, unless the settings say which hosts there are.
        """
        if self.base_url or self.hosts:
            return True
        _, host, prefix = self._named(scope, headers)
        return not prefix and host.lower() == _text(headers, b"host").lower()

    def client(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Names the client: its address, or the /64 network of an IPv6 address, which one client has to itself.

        Behind trusted proxies it is the last forwarded address that is no such proxy. What is no address counts as
        the end of what is known.
        """
        peer = self._peer(scope)
        if self._is_forwarded(scope, headers):
            for address in reversed(_forwarded(headers).clients):
                if not _is_address(address):
                    break
                peer = address
                if peer not in self.proxies:
                    break
        return client_name(peer)

    def trusts(self, scope: Scope) -> bool:
        """Whether the request comes straight from a trusted proxy."""
        return self._peer(scope) in self.proxies

    def _named(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[str, str, str]:
        """Scheme, host with port, and path prefix, as the request or its proxies name them. Raises `BadRequest`."""
        scheme, host, prefix = scope["scheme"], _text(headers, b"host"), ""
        if self._is_forwarded(scope, headers):
            said = _forwarded(headers)
            scheme, host = (said.scheme or scheme).lower(), said.host or host
            host = _with_port(scheme, host, _first(headers, b"x-forwarded-port"))
            prefix = _first(headers, b"x-forwarded-prefix") or _first(headers, b"x-forwarded-path")
            if not _PREFIX.fullmatch(prefix):
                raise BadRequest("The X-Forwarded-Prefix header is not a path.")
        return scheme, host, prefix.rstrip("/")

    def _is_forwarded(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        """Whether forwarded headers are there and believed. Those of another peer are reported, once for each peer."""
        if headers.keys().isdisjoint(_FORWARDED):
            return False
        peer = self._peer(scope)
        if peer in self.proxies:
            return True
        if peer not in self._told and len(self._told) < 100:
            self._told.add(peer)
            log.warning("forwarded headers from %s are ignored: it is not in trusted_proxies", peer or "a Unix socket")
        return False

    @staticmethod
    def _peer(scope: Scope) -> str:
        client = scope.get("client")
        return client[0] if client else ""


def _count(scope: Scope, wanted: bytes) -> int:
    return sum(name == wanted for name, _ in scope["headers"])


def _forwarded(headers: Mapping[bytes, bytes]) -> _Forwarded:
    """What Forwarded says (RFC 7239), or else X-Forwarded-*. Scheme and host are those of the first proxy."""
    if b"forwarded" in headers:
        hops = [_pairs(hop) for hop in _text(headers, b"forwarded").split(",")]
        clients = tuple(_node(hop["for"]) for hop in hops if "for" in hop)
        scheme = next((hop["proto"] for hop in hops if "proto" in hop), None)
        return _Forwarded(clients, scheme, next((hop["host"] for hop in hops if "host" in hop), None))
    clients = tuple(part.strip() for part in _text(headers, b"x-forwarded-for").split(",") if part.strip())
    return _Forwarded(
        clients, _first(headers, b"x-forwarded-proto") or None, _first(headers, b"x-forwarded-host") or None
    )


def _pairs(hop: str) -> dict[str, str]:
    found = (_PAIR.fullmatch(part) for part in hop.split(";"))
    return {it[1].lower(): it[2] if it[2] is not None else it[3] for it in found if it}


def _node(text: str) -> str:
    """The address of a node, without port and brackets (RFC 7239, section 6)."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _with_port(scheme: str, host: str, port: str) -> str:
    named = _HOST.fullmatch(host)
    if not port.isdecimal() or named is None or named[2] or port == _DEFAULT_PORTS.get(scheme):
        return host
    return f"{host}:{int(port)}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def client_name(peer: str) -> str:
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    if not isinstance(address, IPv6Address):
        return peer
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


@lru_cache(maxsize=1024)
def _host_name(scheme: str, host: str) -> str:
    """The name in a Host header, in lower case and without a port."""
    named = _HOST.fullmatch(host)
    if scheme not in ("http", "https") or named is None:
        raise BadRequest("The Host header is not a host name.")
    return named[1].lower()


def _first(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return _text(headers, name).split(",")[0].strip()


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")
