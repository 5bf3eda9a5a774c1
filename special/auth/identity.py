"""A client's identity: roles from a verified JWT, out of the `Authorization` header or a cookie.

The token is made by a login page that is not part of this server; here it is only verified (RFC 7519). A client whose
token is wrong, expired or cannot be verified is anonymous.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import cookie_parser

from special.auth.access import ANONYMOUS, Identity
from special.auth.jwks import Keys
from special.errors import Unreachable

log = logging.getLogger("special")

LEEWAY_S = 10
"""How far the clock of a token's issuer may differ from ours."""
TOKEN_CHARACTERS = 8192
"""Longest token that is looked at."""

Flaw = Literal["missingAspect", "invalidAspect", "expiredAspect", "unavailable"]
"""Why a token proves nothing, in the words of IIIF Authorization Flow 2.0, section 4.5."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a good token proves."""

    identity: Identity
    expires_at: int
    """Seconds since 1970."""


class Verifier:
    """Finds the identity of a client, by keys and claims."""

    def __init__(
        self,
        keys: Keys | None = None,
        *,
        cookie: str | None = None,
        roles_claim: str = "roles",
        issuer: str | None = None,
        audience: str | None = None,
    ) -> None:
        self._keys = keys
        self._cookie = cookie
        self._roles_claim = roles_claim
        self._issuer = issuer
        self._audience = audience

    @property
    def vary(self) -> tuple[str, ...]:
        """The request headers that identities come from."""
        if self._keys is None:
            return ()
        return ("Authorization", "Cookie") if self._cookie else ("Authorization",)

    def has_token(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether `identify` would look at a token: without one the client is anonymous, and nothing is awaited."""
        return self._keys is not None and (bearer(headers) or self._cookie_of(headers)) is not None

    async def identify(self, headers: Mapping[bytes, bytes]) -> Identity:
        """The identity of the client that sent these headers (names in lower case); a bearer token goes first."""
        if self._keys is None:
            return ANONYMOUS
        token = bearer(headers) or self._cookie_of(headers)
        proof = await self.examine(token) if token else None
        return proof.identity if isinstance(proof, Proof) else ANONYMOUS

    async def examine_cookie(self, headers: Mapping[bytes, bytes]) -> Proof | Flaw:
        """What the cookie alone proves."""
        token = self._cookie_of(headers)
        return await self.examine(token) if token else "missingAspect"

    async def examine(self, token: str) -> Proof | Flaw:
        """What a token proves; at most one fetch of keys, mostly none."""
        if self._keys is None or len(token) > TOKEN_CHARACTERS:
            return "invalidAspect"
        import jwt  # here: most sites have no keys

        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return "invalidAspect"
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                # A token for another audience is refused, unless no audience is configured.
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )
            return Proof(Identity(_roles(claims, self._roles_claim), known=True), int(claims["exp"]))
        except Unreachable as fault:
            log.warning("%s", fault)
            return "unavailable"
        except jwt.ExpiredSignatureError:
            return "expiredAspect"
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return "invalidAspect"  # the library lets more than its own errors through where JSON is strange

    def _cookie_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        if self._cookie is None:
            return None
        return cookie_parser(headers.get(b"cookie", b"").decode("latin-1")).get(self._cookie)


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750, section 2.1)."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _roles(claims: dict[str, Any], name: str) -> frozenset[str]:
    """The roles of a claim: a list, or words as in `scope`; nested where the name has dots and is no claim itself."""
    value: Any = claims
    for part in [name] if name in claims else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, str):
        value = value.split()
    return frozenset(it for it in value if isinstance(it, str)) if isinstance(value, list) else frozenset()
