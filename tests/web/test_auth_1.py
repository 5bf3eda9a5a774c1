"""The IIIF Authentication API 1.0 beside Authorization Flow 2.0, as viewers and other clients go through it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from special.auth.flow import Flow
from special.settings import load
from special.web.app import App
from tests.support.logins import SECRET, token

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]

LOGIN, LOGOUT = "https://login.example.org/in", "https://login.example.org/out"
VIEWER = "https://viewer.example"
BASE = "http://example.org"
API = "http://iiif.io/api/auth/1"
COOKIE = {"Cookie": f"login={token('reader')}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """`small.png` is open up to 100 pixels, `closed.png` is not, `free.png` is without a rule."""
    root = tmp_path_factory.mktemp("auth")
    (root / "masters").mkdir()
    for name in ("small.png", "closed.png", "free.png"):
        Image.new("RGB", (400, 300), "teal").save(root / "masters" / name)
    (root / "key").write_bytes(SECRET)
    rules = (
        {"identifiers": "closed*", "roles": ("reader",)},
        {"identifiers": "small*", "max_unauthorised": 100, "roles": ("reader",)},
    )
    settings = load(
        source=str(root / "masters"),
        home=root,
        decoders=1,
        rules=rules,
        jwt_key=root / "key",
        jwt_algorithms="HS256",
        jwt_cookie="login",
        auth_profile="active",
        auth_versions="1,2",
        auth_login_url=LOGIN,
        auth_logout_url=LOGOUT,
    )
    app = App(settings)
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def access_token(client: httpx.AsyncClient) -> dict[str, str]:
    """The header that a viewer sends once it was given a token."""
    answer = await client.get("/auth/token", headers=COOKIE)
    return {"Authorization": f"Bearer {answer.json()['accessToken']}"}


@pytest.mark.parametrize("version", [2, 3])
async def test_what_may_be_seen_in_part_leads_to_the_lower_tier(client: httpx.AsyncClient, version: int) -> None:
    answer = await client.get(f"/iiif/{version}/small.png/info.json")
    there = f"{BASE}/auth/open/iiif/{version}/small.png"
    assert (answer.status_code, answer.headers["location"]) == (302, f"{there}/info.json")
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["access-control-allow-origin"] == "*"
    lower = await client.get(answer.headers["location"])
    document = lower.json()
    assert (lower.status_code, document.get("id", document.get("@id"))) == (200, there)  # section 3.2: another one
    assert document["sizes"] == [{"width": 100, "height": 75}]
    assert "tiles" not in document
    cookie, probe = document["service"]
    assert probe["id"] == f"{BASE}/auth/probe/iiif/{version}/small.png"  # of what a user who may would see
    assert cookie == {
        "@context": f"{API}/context.json",
        "@id": LOGIN,
        "@type": "AuthCookieService1",
        "profile": f"{API}/login",
        "label": "Log in at login.example.org",
        "header": "This image is restricted",
        "description": "Log in to see it in full.",
        "confirmLabel": "Log in",
        "failureHeader": "The login did not work",
        "failureDescription": "No access token was given.",
        "service": [
            {"@id": f"{BASE}/auth/token", "@type": "AuthTokenService1", "profile": f"{API}/token"},
            {
                "@id": LOGOUT,
                "@type": "AuthLogoutService1",
                "profile": f"{API}/logout",
                "label": "Log out at login.example.org",
            },
        ],
    }


async def test_the_lower_tier_is_what_strangers_see_whoever_asks(client: httpx.AsyncClient) -> None:
    base = "/auth/open/iiif/small.png"
    for headers in ({}, COOKIE, await access_token(client)):
        assert (await client.get(f"{base}/info.json", headers=headers)).json()["sizes"] == [
            {"width": 100, "height": 75}
        ]
        picture = await client.get(f"{base}/full/100,75/0/default.jpg", headers=headers)
        assert (picture.status_code, "public" in picture.headers["cache-control"]) == (200, True)
        for path in ("full/200,/0/default.jpg", "0,0,50,50/50,/0/default.jpg"):
            assert (await client.get(f"{base}/{path}", headers=headers)).status_code == 401
    assert (await client.get("/auth/open/iiif/closed.png/info.json", headers=COOKIE)).status_code == 401
    assert (await client.get("/auth/open/iiif/small.png")).headers["location"] == f"{BASE}{base}/info.json"
    assert (await client.get("/auth/open/iiif/free.png/info.json")).status_code == 200


@pytest.mark.parametrize("path", ["iiif/closed.png", "iiif/2/closed.png"])
async def test_what_may_not_be_seen_at_all_is_401_with_a_whole_description(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(f"/{path}/info.json", headers={"If-None-Match": "*"})
    document = answer.json()
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["cache-control"] == "private, no-store"
    assert document.get("id", document.get("@id")) == f"{BASE}/{path}"
    assert (document["width"], document["height"], len(document["tiles"])) == (400, 300, 1)  # viewers need one
    assert document["service"][0]["profile"] == f"{API}/login"
    assert document == (await client.get(f"/{path}/info.json", headers=COOKIE)).json()


@pytest.mark.parametrize("name", ["small.png", "closed.png"])
async def test_a_token_opens_info_as_the_cookie_does_and_nothing_else(client: httpx.AsyncClient, name: str) -> None:
    bearer = await access_token(client)
    for headers in (bearer, COOKIE):
        answer = await client.get(f"/iiif/3/{name}/info.json", headers=headers)
        document = answer.json()
        assert (answer.status_code, document["id"], document["profile"]) == (200, f"{BASE}/iiif/3/{name}", "level2")
        assert document["@context"][0] == "http://iiif.io/api/auth/2/context.json"
    again = await client.get(f"/iiif/3/{name}/info.json", headers=bearer | {"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    path = f"/iiif/3/{name}/0,0,50,50/50,/0/default.jpg"
    assert (await client.get(path, headers=COOKIE)).status_code == 200
    assert (await client.get(path, headers=bearer)).status_code == 401
    assert (await client.get(f"/iiif/3/{name}/info.json", headers={"Authorization": "Bearer x"})).status_code in (
        302,
        401,
    )
    preflight = await client.options(f"/iiif/3/{name}/info.json")
    assert "Authorization" in preflight.headers["access-control-allow-headers"]


async def test_an_image_without_a_rule_has_no_services(client: httpx.AsyncClient) -> None:
    answer = await client.get("/iiif/free.png/info.json")
    assert (answer.status_code, "service" in answer.json()) == (200, False)


@pytest.mark.parametrize(
    ("cookie", "status", "error"),
    [
        pytest.param(token("reader"), 200, None, id="good"),
        pytest.param(None, 401, "missingCredentials", id="none"),
        pytest.param("rubbish", 401, "invalidCredentials", id="rubbish"),
        pytest.param(token("reader", lasts_s=-60), 401, "invalidCredentials", id="expired"),
    ],
)
async def test_tokens_for_clients_that_are_no_browsers(
    client: httpx.AsyncClient, cookie: str | None, status: int, error: str | None
) -> None:
    """Section 2.2.3: without a messageId."""
    answer = await client.get("/auth/token", headers={"Cookie": f"login={cookie}"} if cookie else {})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.headers["cache-control"] == "private, no-store"
    assert "access-control-allow-origin" not in answer.headers  # no page of another origin reads it
    told = answer.json()
    assert told.get("error") == error
    assert set(told) == ({"error", "description"} if error else {"accessToken", "expiresIn"})


@pytest.mark.parametrize(
    ("cookie", "origin", "error", "target"),
    [
        pytest.param(token("reader"), f"{VIEWER}/", None, VIEWER, id="origin as 1.0 writes it"),
        pytest.param(token("reader"), VIEWER, None, VIEWER, id="origin"),
        pytest.param(None, VIEWER, "missingCredentials", VIEWER, id="no cookie"),
        pytest.param(token("reader"), f"{VIEWER}/page", "invalidRequest", "*", id="not an origin"),
    ],
)
async def test_the_message_to_a_viewer_is_one_of_both_apis(
    client: httpx.AsyncClient, cookie: str | None, origin: str, error: str | None, target: str
) -> None:
    headers = {"Cookie": f"login={cookie}"} if cookie else {}
    answer = await client.get("/auth/token", params={"messageId": "http://x/", "origin": origin}, headers=headers)
    told, posted_to = map(json.loads, re.findall(r"postMessage\((\{.*\}), (\".*\")\);</script>", answer.text)[0])
    assert (answer.status_code, told["messageId"], posted_to) == (200, "http://x/", target)
    assert told.get("error") == error
    assert ("accessToken" in told) == (error is None)
    assert told["type"] == ("AuthAccessTokenError2" if error else "AuthAccessToken2")


def services(profile: str, *, versions: frozenset[int] = frozenset({1, 2}), note: str = "") -> list[dict[str, Any]]:
    login = None if profile == "external" else LOGIN
    flow = Flow(profile, login, None, "Library", note, versions)  # type: ignore[arg-type]
    return flow.services(BASE, f"{BASE}/iiif/x")


@pytest.mark.parametrize(
    ("profile", "in_1", "in_2", "asks"),
    [
        ("active", "login", "active", True),
        ("clickthrough", "clickthrough", "active", True),
        ("kiosk", "kiosk", "kiosk", False),
        ("external", "external", "external", False),
    ],
)
async def test_the_four_patterns(profile: str, in_1: str, in_2: str, asks: bool) -> None:
    cookie, probe = services(profile, note="The terms.")
    (access,) = probe["service"]
    assert cookie["profile"] == f"{API}/{in_1}"
    assert access["profile"] == in_2
    assert cookie["@id"] == (f"{BASE}/auth/token" if profile == "external" else LOGIN)
    assert {"header", "description", "confirmLabel"} & set(cookie) == (
        {"header", "description", "confirmLabel"} if asks else set()
    )
    if asks:
        assert cookie["description"] == access["note"]["en"][0] == "The terms."
    assert [it["@type"] for it in cookie["service"]] == ["AuthTokenService1"]


async def test_one_api_alone() -> None:
    assert [it["@type"] for it in services("active", versions=frozenset({1}))] == ["AuthCookieService1"]
    assert [it["type"] for it in services("active", versions=frozenset({2}))] == ["AuthProbeService2"]


async def test_without_a_login_a_closed_image_is_401_and_there_is_no_lower_tier(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), "teal").save(tmp_path / "closed.png")
    Image.new("RGB", (400, 300), "teal").save(tmp_path / "part.png")
    rules = ({"identifiers": "closed*"}, {"identifiers": "part*", "max_unauthorised": 100})
    app = App(load(source=str(tmp_path), home=tmp_path / "home", decoders=1, rules=rules))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        closed = await client.get("/iiif/closed.png/info.json")
        assert (closed.status_code, "tiles" in closed.json(), "service" in closed.json()) == (401, True, False)
        part = await client.get("/iiif/part.png/info.json")
        assert (part.status_code, part.json()["sizes"]) == (200, [{"width": 100, "height": 75}])
        assert (await client.get("/auth/open/iiif/part.png/info.json")).status_code == 404
