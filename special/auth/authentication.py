"""Documents of the IIIF Authentication API 1.0, which is what released viewers speak. Pure.

It needs what Authorization Flow 2.0 needs, a cookie and a token, and asks in another way: a viewer sends the token
with info.json, and knows by the status, and by the id in it, what its user may see (section 3).
"""

from __future__ import annotations

from typing import Any, Literal

from special.auth.identity import Flaw

Profile = Literal["active", "clickthrough", "external", "kiosk"]
"""The interaction patterns of both APIs; 1.0 calls `active` login, and 2.0 has `active` for a clickthrough too."""
Refusal = Flaw | Literal["invalidRequest", "invalidOrigin"]
"""Profiles of an error of the token service, as 2.0 has them."""

CONTEXT = "http://iiif.io/api/auth/1/context.json"
_API = "http://iiif.io/api/auth/1"
_ERRORS: dict[Refusal, str] = {
    "invalidRequest": "invalidRequest",
    "invalidOrigin": "invalidOrigin",
    "missingAspect": "missingCredentials",
    "invalidAspect": "invalidCredentials",
    "expiredAspect": "invalidCredentials",
    "unavailable": "unavailable",
}
"""Section 2.2.6."""
STATUS: dict[Refusal, int] = {
    "invalidRequest": 400,
    "invalidOrigin": 403,
    "missingAspect": 401,
    "invalidAspect": 401,
    "expiredAspect": 401,
    "unavailable": 503,
}
"""Of an error that is sent as JSON."""


def cookie_service(
    profile: Profile,
    *,
    login_url: str | None,
    token_url: str,
    logout_url: str | None,
    label: str,
    texts: dict[str, str],
) -> dict[str, Any]:
    """The access cookie service (section 2.1), with the token service and that of a logout in it.

    `texts`: header, description and so on. `@type` is what Presentation API 3.0 wants of services of 1.0.
    """
    inner = [{"@id": token_url, "@type": "AuthTokenService1", "profile": f"{_API}/token"}]
    if logout_url:
        out = {"@id": logout_url, "@type": "AuthLogoutService1", "profile": f"{_API}/logout"}
        inner.append(out | {"label": texts["logout"]})
    return {
        "@context": CONTEXT,
        # Clients must ignore it where the pattern is external; but Mirador asks no token without one.
        "@id": token_url if login_url is None or profile == "external" else login_url,
        "@type": "AuthCookieService1",
        "profile": f"{_API}/{'login' if profile == 'active' else profile}",
        "label": label,
        **{name: texts[name] for name in ("header", "description", "confirmLabel") if name in texts},
        "failureHeader": texts["failureHeader"],
        "failureDescription": texts["failureDescription"],
        "service": inner,
    }


def error(refusal: Refusal, description: str) -> dict[str, str]:
    """Why there is no token (section 2.2.6)."""
    return {"error": _ERRORS[refusal], "description": description}
