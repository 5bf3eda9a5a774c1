"""The IIIF Authorization Flow 2.0, as a viewer goes through it."""

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from special.auth.access import Identity
from special.auth.flow import Flow, message_page
from special.auth.identity import Proof
from special.auth.tokens import LIFETIME_S, AccessTokens
from special.errors import ConfigurationError
from special.settings import load
from special.web.app import App
from tests.support.logins import SECRET, token

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]

LOGIN, LOGOUT = "https://login.example.org/in", "https://login.example.org/out"
VIEWER = "https://viewer.example"
CONTEXT = "http://iiif.io/api/auth/2/context.json"
BASE = "http://example.org"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    root = tmp_path_factory.mktemp("auth")
    (root / "masters").mkdir()
    for name in ("small.png", "closed.png", "free.png"):
        Image.new("RGB", (400, 300), "teal").save(root / "masters" / name)
    (root / "thumbs" / "small.png" / "open").mkdir(parents=True)
    (root / "thumbs" / "small.png" / "s.json").write_text('{"o":[[100,75]],"a":[[200,150]]}')
    Image.new("RGB", (100, 75), "teal").save(root / "thumbs" / "small.png" / "open" / "100.jpg")
    (root / "key").write_bytes(SECRET)
    settings = load(
        source=str(root / "masters"),
        thumbs=str(root / "thumbs"),
        home=root,
        decoders=1,
        rules=({"identifiers": "closed*", "roles": ("reader",)},),
        jwt_key=root / "key",
        jwt_algorithms="HS256",
        jwt_cookie="login",
        auth_profile="active",
        auth_login_url=LOGIN,
        auth_logout_url=LOGOUT,
        auth_origins=f"{VIEWER},https://other.example:8443",
    )
    app = App(settings)
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def posted(client: httpx.AsyncClient, cookie: str | None = None, **query: str) -> tuple[dict[str, Any], str]:
    """What the token service's page posts, and to which origin."""
    headers = {"Cookie": f"login={cookie}"} if cookie else {}
    answer = await client.get("/auth/token", params=query, headers=headers)
    assert answer.status_code == 200  # section 4.3: whatever the outcome
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "private, no-store"
    told, target = re.findall(r"postMessage\((\{.*\}), (\".*\")\);</script>", answer.text)[0]
    assert answer.headers["content-security-policy"].endswith(f"frame-ancestors {json.loads(target)}")
    return json.loads(told), json.loads(target)


@pytest.mark.parametrize("path", ["iiif/small.png", "iiif/3/small.png", "iiif/2/closed.png", "thumbs/small.png"])
async def test_info_of_a_restricted_image_names_the_services(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/{path}/info.json")
    document = answer.json()
    (probe,) = document["service"]
    (access,) = probe["service"]
    assert (probe["type"], probe["id"]) == ("AuthProbeService2", f"{BASE}/auth/probe/{path}")
    assert (access["type"], access["id"], access["profile"]) == ("AuthAccessService2", LOGIN, "active")
    assert access["label"] == {"en": ["Log in at login.example.org"]}
    assert [(it["type"], it["id"]) for it in access["service"]] == [
        ("AuthAccessTokenService2", f"{BASE}/auth/token"),
        ("AuthLogoutService2", LOGOUT),
    ]
    if "/2/" in path:
        assert document["@context"] == "http://iiif.io/api/image/2/context.json"
        assert probe["@context"] == CONTEXT
    else:
        assert document["@context"] == [CONTEXT, "http://iiif.io/api/image/3/context.json"]
        assert "@context" not in probe
    assert (await client.get(f"/auth/probe/{path}")).status_code == 200


@pytest.mark.parametrize(
    ("origin", "allowed", "credentials"),
    [
        pytest.param(VIEWER, VIEWER, "true", id="a viewer that is given tokens"),
        pytest.param("https://evil.example", "*", None, id="another"),
        pytest.param(f"{VIEWER}.evil.example", "*", None, id="a longer name"),
        pytest.param("null", "*", None, id="opaque"),
        pytest.param(None, "*", None, id="none"),
    ],
)
async def test_a_listed_viewer_may_ask_for_info_as_its_user(
    client: httpx.AsyncClient, origin: str | None, allowed: str, credentials: str | None
) -> None:
    """So one that has fetched info.json as a stranger's finds more in it after the login."""
    headers = {"Cookie": f"login={token('reader')}"} | ({"Origin": origin} if origin else {})
    answer = await client.get("/iiif/3/small.png/info.json", headers=headers)
    assert answer.headers["access-control-allow-origin"] == allowed
    assert answer.headers.get("access-control-allow-credentials") == credentials
    assert "Origin" in answer.headers["vary"].split(", ")
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.json()["profile"] == "level2"
    picture = await client.get("/iiif/3/small.png/full/max/0/default.jpg", headers=headers)
    assert (picture.status_code, picture.headers["access-control-allow-origin"]) == (200, allowed)


async def test_info_of_an_open_image_names_none(client: httpx.AsyncClient) -> None:
    assert "service" not in (await client.get("/iiif/free.png/info.json")).json()


@pytest.mark.parametrize(
    ("path", "substitute"),
    [
        pytest.param("iiif/3/small.png", (100, 75), id="3"),
        pytest.param("iiif/2/small.png", (100, 75), id="2"),
        pytest.param("thumbs/small.png", (100, 75), id="thumbs"),
        pytest.param("iiif/closed.png", None, id="nothing may be seen"),
    ],
)
async def test_a_stranger_is_led_to_a_substitute(
    client: httpx.AsyncClient, path: str, substitute: tuple[int, int] | None
) -> None:
    answer = await client.get(f"/auth/probe/{path}")
    assert answer.headers["content-type"] == f'application/ld+json;profile="{CONTEXT}"'
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["access-control-allow-origin"] == "*"
    result = answer.json()
    assert (result["@context"], result["type"], result["status"]) == (CONTEXT, "AuthProbeResult2", 401)
    assert result["heading"] == {"en": ["This image is restricted"]}
    assert set(result["note"]) == {"en"}
    if substitute is None:
        assert "substitute" not in result
        return
    (picture,) = result["substitute"]
    assert (picture["type"], picture["width"], picture["height"]) == ("Image", *substitute)
    shown = await client.get(picture["id"].removeprefix(BASE))
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")


async def test_from_the_cookie_to_the_token_to_the_probe(client: httpx.AsyncClient) -> None:
    cookie = token("reader")
    told, target = await posted(client, cookie, messageId="m 1", origin=VIEWER)
    assert target == VIEWER
    assert (told["@context"], told["type"], told["messageId"]) == (CONTEXT, "AuthAccessToken2", "m 1")
    assert told["expiresIn"] == LIFETIME_S
    headers = {"Authorization": f"Bearer {told['accessToken']}"}
    for path in ("iiif/small.png", "iiif/closed.png", "thumbs/small.png"):
        result = (await client.get(f"/auth/probe/{path}", headers=headers)).json()
        assert result == {"@context": CONTEXT, "type": "AuthProbeResult2", "status": 200}


async def test_an_access_token_opens_no_image_and_is_not_the_cookie(client: httpx.AsyncClient) -> None:
    """Section 4.4: any page may be given one, so it may be worth nothing but a probe."""
    cookie = token("reader")
    told, _ = await posted(client, cookie, messageId="1", origin=VIEWER)
    stolen = told["accessToken"]
    path = "/iiif/closed.png/full/max/0/default.jpg"
    assert (await client.get(path, headers={"Cookie": f"login={cookie}"})).status_code == 200
    assert (await client.get(path, headers={"Cookie": f"login={stolen}"})).status_code == 401
    assert (await client.get(path, headers={"Authorization": f"Bearer {stolen}"})).status_code == 401
    assert (await posted(client, stolen, messageId="1", origin=VIEWER))[0]["profile"] == "invalidAspect"
    assert "reader" not in stolen


@pytest.mark.parametrize(
    ("cookie", "query", "profile", "target"),
    [
        pytest.param(None, {"messageId": "1", "origin": VIEWER}, "missingAspect", VIEWER, id="no cookie"),
        pytest.param("x", {"messageId": "1", "origin": VIEWER}, "invalidAspect", VIEWER, id="bad cookie"),
        pytest.param("old", {"messageId": "1", "origin": VIEWER}, "expiredAspect", VIEWER, id="expired cookie"),
        pytest.param("good", {"origin": VIEWER}, "invalidRequest", VIEWER, id="no message"),
        pytest.param("good", {"messageId": "1" * 1025, "origin": VIEWER}, "invalidRequest", VIEWER, id="long message"),
        pytest.param("good", {"messageId": "1"}, "invalidRequest", "*", id="no origin"),
        pytest.param("good", {"messageId": "1", "origin": "*"}, "invalidRequest", "*", id="any origin"),
        pytest.param("good", {"messageId": "1", "origin": "null"}, "invalidRequest", "*", id="opaque origin"),
        pytest.param(
            "good", {"messageId": "1", "origin": f"{VIEWER}; script-src *"}, "invalidRequest", "*", id="policy"
        ),
        pytest.param("good", {"messageId": "1", "origin": f"{VIEWER}/path"}, "invalidRequest", "*", id="not an origin"),
        pytest.param(
            "good",
            {"messageId": "1", "origin": "https://evil.example"},
            "invalidOrigin",
            "https://evil.example",
            id="unlisted",
        ),
    ],
)
async def test_why_there_is_no_token(
    client: httpx.AsyncClient, cookie: str | None, query: dict[str, str], profile: str, target: str
) -> None:
    cookies = {"good": token("reader"), "old": token("reader", lasts_s=-60)}
    told, posted_to = await posted(client, cookies.get(cookie or "", cookie), **query)
    assert (told["type"], told["profile"], posted_to) == ("AuthAccessTokenError2", profile, target)
    assert told["messageId"] == query.get("messageId", "")[:1024]
    assert set(told["heading"]) == set(told["note"]) == {"en"}
    assert "accessToken" not in told


async def test_a_message_cannot_end_the_script() -> None:
    page, _ = message_page({"messageId": "</script><script>alert(1)</script>\u2028"}, VIEWER)
    assert page.count(b"<script>") == page.count(b"</script>") == 1
    assert page.isascii()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/auth/", 404, id="nothing"),
        pytest.param("/auth/token/x", 404, id="below the token service"),
        pytest.param("/auth/probe/other/small.png", 404, id="another prefix"),
        pytest.param("/auth/probe/iiif/small.png/info.json", 404, id="not an image service"),
        pytest.param("/auth/probe/iiif/none.png", 404, id="no such image"),
        pytest.param("/auth/probe/iiif/..%2Fkey", 404, id="traversal"),
    ],
)
async def test_what_is_not_there(client: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")


async def test_head_and_preflight(client: httpx.AsyncClient) -> None:
    for path in ("/auth/probe/iiif/small.png", "/auth/token"):
        assert not (await client.head(path)).content
        options = await client.options(path)
        assert options.status_code == 204
        assert "Authorization" in options.headers["access-control-allow-headers"]


@pytest.mark.parametrize(("origin", "credentials"), [(VIEWER, "true"), ("https://evil.example", None)])
async def test_a_listed_viewer_may_ask_as_its_user_after_a_preflight(
    client: httpx.AsyncClient, origin: str, credentials: str | None
) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Headers": "authorization,x-requested-with"}
    options = await client.options("/iiif/3/small.png/info.json", headers=asked)
    assert options.headers["access-control-allow-headers"] == "authorization,x-requested-with"
    assert options.headers["access-control-allow-origin"] == (origin if credentials else "*")
    assert options.headers.get("access-control-allow-credentials") == credentials


async def test_without_a_flow_there_are_no_services(tmp_path: Path) -> None:
    app = App(load(source=str(tmp_path), home=tmp_path, decoders=1))
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        assert (await client.get("/auth/token")).status_code == 404


def flow(profile: str) -> dict[str, Any]:
    login = None if profile == "external" else LOGIN
    return Flow(profile, login, None, "Library").services(BASE, f"{BASE}/iiif/x")[0]["service"][0]  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", ["external", "kiosk"])
async def test_profiles(profile: str) -> None:
    access = flow(profile)
    assert access["profile"] == profile
    assert access.get("id") == (None if profile == "external" else LOGIN)
    assert not {"heading", "note", "confirmLabel"} & set(access)
    assert [it["type"] for it in access["service"]] == ["AuthAccessTokenService2"]


async def test_access_token_golden() -> None:
    """One that an earlier version issued, with its key, is read by this one."""
    key = b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    token = (
        "gAAAAABlU_EAxO-Q_efH201wmo0nx3QpDtCluHQFjJ7xJ27JZF2QA0FdoQcQ4VLSgoBz-fPWIiBjtmhZSMKRrJieeLkkRwTshKgrmFwpWF0H"
        "AbSnJ6BCtVALQY4fRVxsE9-HdbUnGAJr7lJqvC-w-6ma_l3IEzlm3g=="
    )
    read = AccessTokens(key, clock=lambda: 1_700_000_299.0).read(token)
    assert read is not None
    assert read.roles == {"staff", "reader"}
    assert AccessTokens(key, clock=lambda: 1_700_000_300.0).read(token) is None


async def test_access_tokens_end(tmp_path: Path) -> None:
    now = [1_000_000.0]
    mine = AccessTokens.at(tmp_path / "state" / "key")
    tokens = AccessTokens((tmp_path / "state" / "key").read_bytes(), clock=lambda: now[0])
    reader = Identity(frozenset({"reader"}), known=True)
    short, lifetime_s = tokens.issue(Proof(reader, 1_000_060))
    assert lifetime_s == 60
    assert tokens.read(short) == reader
    now[0] += 60
    assert tokens.read(short) is None
    assert tokens.issue(Proof(reader, 1_000_055))[1] == 1, "inside the leeway"
    assert mine.read("rubbish") is None
    assert mine.read("é") is None
    assert AccessTokens.at(tmp_path / "other").read(short) is None


async def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    AccessTokens.at(path)
    made = path.read_bytes()
    AccessTokens.at(path)
    assert path.read_bytes() == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["key"]
    path.write_bytes(b"too short")
    with pytest.raises(ConfigurationError, match="auth_token_key"):
        AccessTokens.at(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"auth_profile": "kiosk"}, "auth_profile needs jwt_cookie", id="no cookie"),
        pytest.param(
            {"auth_profile": "active", "jwt_cookie": "c", "jwt_jwks": "x", "jwt_algorithms": "RS256"},
            "needs auth_login_url",
            id="no page",
        ),
        pytest.param({"jwt_jwks": "x", "jwt_algorithms": "HS256"}, "set jwt_key", id="secrets in a set"),
        pytest.param({"jwt_jwks": "x", "jwt_key": "y", "jwt_algorithms": "RS256"}, "not both", id="two keys"),
        pytest.param({"rules": ({"identifiers": "x", "max": 1},)}, "max", id="a rule with more than a rule has"),
    ],
)
async def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(source="x", **settings)
