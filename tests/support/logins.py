"""Tokens as login pages make them, good and bad."""

from __future__ import annotations

import time
from typing import Any

import jwt

SECRET = b"a secret of this test suite, known to nobody else at all, and 64 bytes"
ISSUER = "https://login.example.org"


def token(*roles: str, lasts_s: float = 3600, key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A JWT; `claims` replace or add some, and those that are None are left out."""
    content = {"iss": ISSUER, "roles": list(roles), "exp": int(time.time() + lasts_s)} | claims
    headers = {"kid": content.pop("kid")} if "kid" in content else None
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm=algorithm, headers=headers)
