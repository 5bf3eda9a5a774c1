"""Builds services from settings: the one module that knows both sides."""

from __future__ import annotations

from special.auth import Flow, PatternRule, Rules, Verifier, key_file, key_set
from special.images import Rule
from special.settings import AccessRule, Settings


def rules(settings: Settings) -> Rules:
    """The operator's rules for who may see how much of which images."""
    patterns = tuple(PatternRule.of(it.identifiers, _rule(it)) for it in settings.rules)
    return Rules(patterns, frozenset(settings.default_roles))


def _rule(setting: AccessRule) -> Rule:
    limit = None if setting.max_unauthorised == -1 else setting.max_unauthorised
    return Rule(limit, frozenset(setting.roles))


def verifier(settings: Settings) -> Verifier:
    """What finds a client's identity; reads key files. Raises `ConfigurationError`."""
    algorithms = settings.jwt_algorithms
    return Verifier(
        key_file(settings.jwt_key, algorithms)
        if settings.jwt_key is not None
        else key_set(settings.jwt_jwks, algorithms)
        if settings.jwt_jwks is not None
        else None,
        cookie=settings.jwt_cookie,
        roles_claim=settings.jwt_roles_claim,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


def flow(settings: Settings) -> Flow | None:
    """How users log in; None where the settings name no profile."""
    if settings.auth_profile is None:
        return None
    label = settings.auth_label or ""
    return Flow(settings.auth_profile, settings.auth_login_url, settings.auth_logout_url, label)
