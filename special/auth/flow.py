"""Documents of the IIIF Authorization Flow API 2.0, and with them those of Authentication 1.0. Pure.

services        what info.json of a restricted image says: probe, access, token, logout (sections 3 to 6)
probe_result    whether a caller may see an image, and what they may see instead (section 5.2)
message         what the token service tells the page that opened it (sections 4.4 and 4.5)
message_page    the page that posts that message (section 4.3)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from special.auth import authentication
from special.auth.access import Grant
from special.auth.authentication import Profile, Refusal
from special.geometry import Size
from special.images import Asset

_API = "http://iiif.io/api/auth/2"
AUTH_CONTEXT = f"{_API}/context.json"
MEDIA = f'application/ld+json;profile="{AUTH_CONTEXT}"'
RESTRICTED = "This image is restricted"
_NOTES: dict[Refusal, str] = {
    "invalidRequest": "The viewer asked for a token in a way that cannot be understood.",
    "invalidOrigin": "This viewer is not one that tokens are given to.",
    "missingAspect": "You are not logged in.",
    "invalidAspect": "Your login is not known here.",
    "expiredAspect": "Your login has expired.",
    "unavailable": "Logins cannot be verified now; try again later.",
}
_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Flow:
    """How users log in."""

    profile: Profile
    """The interaction pattern (section 3.3)."""
    login_url: str | None
    """None only for `external`."""
    logout_url: str | None
    label: str
    """Names the login and its institution; empty: by the login page's host."""
    note: str = ""
    """What is said before the login, such as terms of use; empty: a sentence that fits the profile."""
    versions: frozenset[int] = frozenset({2})
    """1: Authentication 1.0, 2: Authorization Flow 2.0."""

    @property
    def tells_by_status(self) -> bool:
        """Whether the status of info.json tells what a caller may see (Authentication 1.0, section 3)."""
        return 1 in self.versions

    def services(self, base: str, uri: str) -> list[dict[str, Any]]:
        """The services of the image service at `uri`, a URI that starts with `base`, where they lie too."""
        made = {1: self._cookie_service, 2: self._probe_service}
        return [made[version](base, uri) for version in sorted(self.versions)]

    @property
    def _label(self) -> str:
        return self.label or f"Log in at {_host(self.login_url)}"

    @property
    def _texts(self) -> dict[str, str]:
        """What users read, by the names that 1.0 has for it."""
        failed = {
            "failureHeader": "The login did not work",
            "failureDescription": "No access token was given.",
            "logout": f"Log out at {_host(self.logout_url)}",
        }
        if self.profile == "active":
            asked = {"description": self.note or "Log in to see it in full.", "confirmLabel": "Log in"}
        elif self.profile == "clickthrough":
            asked = {
                "description": self.note or "Accept the terms of use to see it in full.",
                "confirmLabel": "I agree",
            }
        else:
            return failed
        return failed | asked | {"header": RESTRICTED}

    def _cookie_service(self, base: str, uri: str) -> dict[str, Any]:
        return authentication.cookie_service(
            self.profile,
            login_url=self.login_url,
            token_url=f"{base}/auth/token",
            logout_url=self.logout_url,
            label=self._label,
            texts=self._texts,
        )

    def _probe_service(self, base: str, uri: str) -> dict[str, Any]:
        texts = self._texts
        inner: list[dict[str, Any]] = [
            {
                "id": f"{base}/auth/token",
                "type": "AuthAccessTokenService2",
                "errorHeading": _text(texts["failureHeader"]),
                "errorNote": _text(texts["failureDescription"]),
            }
        ]
        if self.logout_url:
            inner.append({"id": self.logout_url, "type": "AuthLogoutService2", "label": _text(texts["logout"])})
        # Section 3.1: an external access service has no page, so it should have no id.
        access: dict[str, Any] = {} if self.profile == "external" else {"id": self.login_url}
        # Section 3.3: a clickthrough is of the active pattern.
        profile = "active" if self.profile == "clickthrough" else self.profile
        access |= {"type": "AuthAccessService2", "profile": profile, "label": _text(self._label)}
        if profile == "active":
            access |= {
                "heading": _text(texts["header"]),
                "note": _text(texts["description"]),
                "confirmLabel": _text(texts["confirmLabel"]),
            }
        return {
            "@context": AUTH_CONTEXT,
            "id": f"{base}/auth/probe{uri.removeprefix(base)}",
            "type": "AuthProbeService2",
            # Not of the API: Mirador shows nothing where a service has no profile.
            "profile": f"{_API}/probe",
            "service": [access | {"service": inner}],
            "errorHeading": _text(RESTRICTED),
            "errorNote": _text("You may see it only in part, or not at all."),
        }


def probe_result(asset: Asset, uri: str, grant: Grant, substitute: Size | None) -> dict[str, Any]:
    """What the probe service of the image at `uri` answers; `substitute` is the size that is offered instead."""
    head = {"@context": AUTH_CONTEXT, "type": "AuthProbeResult2"}
    if grant.unlimited:
        return head | {"status": 200}
    # Images answer 403 to those who are known; but section 7.1 has viewers look for a substitute at 401 alone.
    result: dict[str, Any] = head | {"status": 401, "heading": _text(RESTRICTED)}
    if substitute is None:
        return result | {"note": _text("You may not see it.")}
    picture = {
        "id": f"{uri}/full/{substitute}/0/default.jpg",
        "type": "Image",
        "format": "image/jpeg",
        "width": substitute.width,
        "height": substitute.height,
        "label": _text(f"{substitute.width} × {substitute.height} of {asset.size.width} × {asset.size.height} pixels"),
    }
    return result | {"substitute": [picture], "note": _text("You may see a smaller version of it.")}


def message(message_id: str, outcome: tuple[str, int] | Refusal) -> dict[str, Any]:
    """A token with the seconds that it is good for, or why there is none; in the words of both APIs."""
    head: dict[str, Any] = {"@context": AUTH_CONTEXT, "messageId": message_id}
    if isinstance(outcome, tuple):
        return head | {"type": "AuthAccessToken2"} | token_fields(outcome)
    explained = {"profile": outcome, "heading": _text("No access"), "note": _text(_NOTES[outcome])}
    return head | {"type": "AuthAccessTokenError2"} | explained | token_fields(outcome)


def token_fields(outcome: tuple[str, int] | Refusal) -> dict[str, Any]:
    """The same as Authentication 1.0 has it, which a client that is no browser is sent as JSON (section 2.2.3)."""
    if isinstance(outcome, tuple):
        token, lifetime_s = outcome
        return {"accessToken": token, "expiresIn": lifetime_s}
    return authentication.error(outcome, _NOTES[outcome])


def is_origin(text: str) -> bool:
    """Whether a text is a web origin: scheme, host and maybe a port, and nothing that could end a policy."""
    return _ORIGIN.fullmatch(text) is not None


def message_page(content: dict[str, Any], target: str) -> tuple[bytes, str]:
    """The page that posts a message to its opener, and the content policy that lets just that script run.

    Only a page of the `target` origin receives it, and may frame this one; `*` is any, for messages without a token.
    """
    script = f"window.parent.postMessage({_script_json(content)}, {_script_json(target)});"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = f'<!DOCTYPE html><html lang="en"><title>Access token</title><script>{script}</script></html>'
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors {target}"
    return page.encode(), policy


def _script_json(value: object) -> str:
    """JSON that may stand in a script: ASCII, and no `<` that could end it."""
    return json.dumps(value).replace("<", "\\u003c")


def _text(sentence: str) -> dict[str, list[str]]:
    return {"en": [sentence]}


def _host(url: str | None) -> str:
    return (urlsplit(url).hostname if url else None) or "this library"
