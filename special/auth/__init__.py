"""Who may see how much of an image: rules, identities, tokens, and the documents of a login."""

from special.auth import access, flow
from special.auth.access import ANONYMOUS, Grant, Identity, PatternRule, Rules, RulesInForce
from special.auth.authentication import STATUS, Refusal
from special.auth.flow import AUTH_CONTEXT, MEDIA, Flow
from special.auth.identity import Proof, Verifier, bearer
from special.auth.jwks import key_file, key_set
from special.auth.tokens import AccessTokens

__all__ = [
    "ANONYMOUS",
    "AUTH_CONTEXT",
    "MEDIA",
    "STATUS",
    "AccessTokens",
    "Flow",
    "Grant",
    "Identity",
    "PatternRule",
    "Proof",
    "Refusal",
    "Rules",
    "RulesInForce",
    "Verifier",
    "access",
    "bearer",
    "flow",
    "key_file",
    "key_set",
]
