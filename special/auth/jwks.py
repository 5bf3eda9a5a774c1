"""The keys that tokens are verified with: one from a file, or a set that an identity provider publishes.

Which signatures a key may verify is decided when the key is read, from the settings and from the kind of
key. Nothing that a token says about itself widens that (RFC 8725, section 3.1).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from special.errors import ConfigurationError, Unreachable

log = logging.getLogger("special")

SECRET_BYTES = 32
"""Shortest secret (RFC 7518, section 3.2)."""
REFRESH_S = 300.0
"""Age at which a set is asked for again."""
BELIEVED_S = 3600.0
"""Age up to which a set is believed when it cannot be fetched again."""
RETRY_S = 10.0
"""A token that names an unknown key has the set asked for again, but not more often than this."""
_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """One key, ready for use."""

    name: str | None
    """Its `kid`."""
    key: Any
    """A secret's bytes, or a public key of the cryptography package."""
    algorithms: tuple[str, ...]
    """What it may verify: allowed by the settings, and of its kind."""


class Keys(Protocol):
    """Where keys are found."""

    async def find(self, name: str | None) -> Key | None:
        """The key of a name; without one the only key there is. Raises `Unreachable`."""


@dataclass(frozen=True, slots=True)
class OneKey:
    """A key that is known from the start."""

    key: Key

    async def find(self, name: str | None) -> Key | None:
        return self.key


class KeySet:
    """A JWKS (RFC 7517), read when it is first needed and again when it has aged or lacks a key."""

    def __init__(
        self,
        address: str,
        algorithms: Sequence[str],
        *,
        fetch: Callable[[str], Awaitable[bytes]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._address = address
        self._algorithms = tuple(algorithms)
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._read_at = self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, name: str | None) -> Key | None:
        # One caller reads; of the others only those wait whose key is not known.
        if self._choose(name) is None if self._reading.locked() else self._due(name):
            async with self._reading:
                if self._due(name):
                    await self._read()
        if self._clock() - self._read_at > BELIEVED_S:
            raise Unreachable(f"the keys at {self._address} cannot be fetched, so no token can be verified")
        return self._choose(name)

    def _due(self, name: str | None) -> bool:
        now = self._clock()
        wanting = self._choose(name) is None or now - self._read_at > REFRESH_S
        return wanting and now - self._tried_at > RETRY_S

    def _choose(self, name: str | None) -> Key | None:
        if name is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.name == name), None)

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = parse(await self._fetch(self._address), self._algorithms)
        except (OSError, TimeoutError, ValueError) as fault:
            log.warning("the keys at %s cannot be read: %s: %s", self._address, type(fault).__name__, fault)
        else:
            self._read_at = self._tried_at


def key_set(address: str, algorithms: Sequence[str]) -> KeySet:
    """The key set at an http(s) address or in a file, which is read once to see. Raises `ConfigurationError`."""
    if address.startswith(("https://", "http://")):
        return KeySet(address, algorithms, fetch=_download)
    try:
        parse(Path(address).read_bytes(), algorithms)
    except (OSError, ValueError) as fault:
        raise ConfigurationError(f"jwt_jwks: {address} cannot be read: {fault}") from None
    return KeySet(address, algorithms, fetch=_from_disk)


def parse(document: bytes, algorithms: Sequence[str]) -> tuple[Key, ...]:
    """The public keys of a JWKS that may verify any of the algorithms; others are left out.

    Raises `ValueError` where it is no JWKS, or has no such key.
    """
    listed = json.loads(document)
    entries = listed.get("keys") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        raise ValueError('it is not an object with "keys"')
    keys = [key for entry in entries if isinstance(entry, dict) for key in _usable(entry, algorithms)]
    if not keys:
        raise ValueError(f"it has no public key for {', '.join(algorithms)}")
    return tuple(keys)


def _usable(entry: dict[str, Any], algorithms: Sequence[str]) -> list[Key]:
    if entry.get("use", "sig") != "sig" or entry.get("kty") == "oct" or "d" in entry:
        return []  # for encryption, or a secret key
    import jwt  # here and below: most sites have no keys, and it takes longer to import than the rest of this package

    try:
        key = jwt.PyJWK.from_dict(entry).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return []
    fitting = _fitting(key, [name for name in algorithms if entry.get("alg", name) == name])
    name = entry.get("kid")
    return [Key(name if isinstance(name, str) else None, key, fitting)] if fitting else []


def _fitting(key: Any, algorithms: Sequence[str]) -> tuple[str, ...]:
    """Those algorithms that are of the key's kind, and for which it is long enough."""
    import jwt

    fitting = []
    for name in algorithms:
        algorithm = jwt.get_algorithm_by_name(name)
        try:
            if algorithm.check_key_length(algorithm.prepare_key(key)) is None:
                fitting.append(name)
        except (jwt.InvalidKeyError, TypeError, ValueError):
            continue
    return tuple(fitting)


def key_file(path: Path, algorithms: Sequence[str]) -> OneKey:
    """The one key in a file: a secret, or a public key as PEM. Raises `ConfigurationError`."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigurationError(f"jwt_key: {path} cannot be read: {fault.strerror}") from None
    if all(name.startswith("HS") for name in algorithms):  # signed with a shared secret (RFC 7518, section 3.2)
        secret = data.strip()
        fitting = _fitting(secret, algorithms)
        if len(secret) < SECRET_BYTES or not fitting:
            raise ConfigurationError(
                f"jwt_key: {path} is no secret for {', '.join(algorithms)}: "
                f"it should be random text of {SECRET_BYTES} bytes (HS384: 48, HS512: 64) or more, and no key file"
            )
        return OneKey(Key(None, secret, fitting))
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except ValueError:
        raise ConfigurationError(f"jwt_key: {path} is no public key as PEM (BEGIN PUBLIC KEY)") from None
    fitting = _fitting(key, algorithms)
    if not fitting:
        raise ConfigurationError(f"jwt_key: the key in {path} is not of the kind, or too short, for {algorithms[0]}")
    return OneKey(Key(None, key, fitting))


async def _from_disk(path: str) -> bytes:
    return await asyncio.to_thread(Path(path).read_bytes)


async def _download(url: str) -> bytes:
    import aiohttp  # a server's start need not wait for it

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"it answers {answer.status}")
            data = bytearray()
            async for chunk in answer.content.iter_chunked(65536):
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise ValueError(f"it has more than {_MAX_BYTES} bytes")
            return bytes(data)
    except aiohttp.ClientError as fault:
        raise OSError(f"{type(fault).__name__}: {fault}") from fault
