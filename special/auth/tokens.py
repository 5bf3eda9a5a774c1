"""Access tokens: what a viewer sends to the probe service, and to that alone.

Any page may be given one (IIIF Authorization Flow 2.0, section 4.4), so it tells nothing, is valid for minutes,
and is never the cookie or JWT that opens images: it is encrypted with a secret of this server's own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from special.auth.access import Identity
from special.auth.identity import Proof
from special.concurrency import temporary_file
from special.errors import ConfigurationError

LIFETIME_S = 300
"""How long a token is valid, unless its proof ends before."""


class AccessTokens:
    """Encrypts and reads access tokens. Processes and machines that share the secret read each other's."""

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        """`secret` is 32 bytes in URL-safe base64. Raises `ValueError` where it is not."""
        from cryptography.fernet import Fernet  # here and below: most sites have no login

        self._box = Fernet(secret)
        self._clock = clock

    @classmethod
    def at(cls, path: Path) -> Self:
        """Tokens with the secret in a file, which is made where there is none. Raises `ConfigurationError`."""
        try:
            if not path.exists():
                _make(path)
            return cls(path.read_bytes().strip())
        except OSError as fault:
            raise ConfigurationError(f"auth_token_key: {path} can be neither read nor made: {fault.strerror}") from None
        except ValueError:
            raise ConfigurationError(
                f"auth_token_key: {path} is not 32 random bytes in URL-safe base64; delete it and a new one is made"
            ) from None

    def issue(self, proof: Proof) -> tuple[str, int]:
        """A token for a proved identity, and the seconds that it is valid: at least 1."""
        now = int(self._clock())
        lifetime_s = max(1, min(LIFETIME_S, proof.expires_at - now))
        content = {"roles": sorted(proof.identity.roles), "until": now + lifetime_s}
        return self._box.encrypt_at_time(json.dumps(content).encode(), now).decode(), lifetime_s

    def read(self, token: str) -> Identity | None:
        """The identity that it was issued to; None where it is none of ours, or expired."""
        from cryptography.fernet import InvalidToken

        try:
            content = json.loads(self._box.decrypt(token.encode()))
        except InvalidToken:
            return None
        return Identity(frozenset(content["roles"]), known=True) if self._clock() < content["until"] else None


def _make(path: Path) -> None:
    """Write a new secret, whole or not at all; where several processes do so at once, the first one's stays."""
    from cryptography.fernet import Fernet

    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path, mode=0o600) as (file, name):
        file.write(Fernet.generate_key())
        file.flush()
        with suppress(FileExistsError):
            os.link(name, path)
