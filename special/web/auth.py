"""What answers under `/auth/`: the services of the IIIF Authorization Flow API 2.0 and of Authentication 1.0.

    probe/{prefix}/[v/]{id…}    whether the caller may see that image service's image, as JSON
    token                       a page that posts an access token to the viewer that framed it; in 1.0 also JSON
    open/{prefix}/[v/]{id…}/…   the image service as it is for strangers: the lower tier of 1.0, section 3.2

The login page itself belongs to the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from special.auth import STATUS, AccessTokens, Flow, Identity, Proof, Refusal, Verifier, access, bearer, flow
from special.geometry import Size
from special.iiif import Limits
from special.images import Asset
from special.serving import granted, listed_thumbs

MESSAGE_ID_CHARACTERS = 1024
"""Longest `messageId` that is sent back."""


@dataclass(frozen=True, slots=True)
class Auth:
    """The services of one server."""

    flow: Flow
    tokens: AccessTokens
    verifier: Verifier
    origins: frozenset[str]
    """Those that tokens are given to; empty: any."""

    def bearer_of(self, headers: Mapping[bytes, bytes], identity: Identity) -> Identity:
        """Whom an access token names; without one, the caller as images know them."""
        token = bearer(headers)
        return (self.tokens.read(token) if token else None) or identity

    def wants_json(self, query: str) -> bool:
        """Whether the token service is asked by a client that is no browser (Authentication 1.0, section 2.2.3)."""
        return self.flow.tells_by_status and "messageId" not in parse_qs(query, keep_blank_values=True)

    async def token_json(self, headers: Mapping[bytes, bytes]) -> tuple[int, dict[str, Any]]:
        """The status and JSON that it is sent."""
        outcome = await self._proved(headers)
        return 200 if isinstance(outcome, tuple) else STATUS[outcome], flow.token_fields(outcome)

    async def token_page(self, headers: Mapping[bytes, bytes], query: str) -> tuple[bytes, str]:
        """The token service's page, and its content policy (section 4.3)."""
        asked = parse_qs(query)
        message_id, origin = asked.get("messageId", [""])[0], asked.get("origin", [""])[0].removesuffix("/")
        if not flow.is_origin(origin):
            # Section 4.3 has every answer posted to the origin; where none is named, only this refusal is.
            return flow.message_page(flow.message(message_id[:MESSAGE_ID_CHARACTERS], "invalidRequest"), "*")
        outcome = await self._outcome(headers, message_id, origin)
        return flow.message_page(flow.message(message_id[:MESSAGE_ID_CHARACTERS], outcome), origin)

    async def _outcome(self, headers: Mapping[bytes, bytes], message_id: str, origin: str) -> tuple[str, int] | Refusal:
        if not 0 < len(message_id) <= MESSAGE_ID_CHARACTERS:
            return "invalidRequest"
        if self.origins and origin not in self.origins:
            return "invalidOrigin"
        return await self._proved(headers)

    async def _proved(self, headers: Mapping[bytes, bytes]) -> tuple[str, int] | Refusal:
        proof = await self.verifier.examine_cookie(headers)
        return self.tokens.issue(proof) if isinstance(proof, Proof) else proof


def probe(asset: Asset, uri: str, identity: Identity, *, limits: Limits, level0: bool) -> dict[str, Any]:
    """What the probe service of the image service at `uri` tells this caller."""
    grant = access.grant(asset, identity)
    substitute: Size | None
    if level0:
        substitute = max(listed_thumbs(asset, grant), key=lambda size: size.area, default=None)
    else:
        substitute = granted(limits, grant).reduce(asset.size) if grant.max_side else None
    return flow.probe_result(asset, uri, grant, substitute)
