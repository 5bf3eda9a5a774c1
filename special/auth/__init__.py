"""Who may see how much of an image: rules, identities, tokens, and the documents of a login."""

from special.auth import access, flow
from special.auth.access import ANONYMOUS, Grant, Identity, Rules
from special.auth.flow import AUTH_CONTEXT, MEDIA, Flow, Refusal
from special.auth.identity import Proof, Verifier, bearer
from special.auth.tokens import AccessTokens

__all__ = [
    "ANONYMOUS",
    "AUTH_CONTEXT",
    "MEDIA",
    "AccessTokens",
    "Flow",
    "Grant",
    "Identity",
    "Proof",
    "Refusal",
    "Rules",
    "Verifier",
    "access",
    "bearer",
    "flow",
]
