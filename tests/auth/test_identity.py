"""Who is asking, and which keys say so."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_encode

from special import composition
from special.auth.access import ANONYMOUS, Identity
from special.auth.identity import LEEWAY_S, Proof, Verifier
from special.auth.jwks import BELIEVED_S, REFRESH_S, RETRY_S, KeySet
from special.errors import ConfigurationError, Unreachable
from special.settings import Settings, load
from tests.support.logins import ISSUER, SECRET, token

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that it is refused is what is tested
PRIVATE = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
EC = ec.generate_private_key(ec.SECP256R1())
READER, OTHER = (Identity(frozenset({role}), known=True) for role in ("reader", "other"))
NO_ROLE = Identity(known=True)


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return kind.to_jwk(key.public_key(), as_dict=True) | ({"kid": kid} if kid else {}) | more


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def settings(folder: Path, key: bytes = SECRET, *algorithms: str, **more: Any) -> Settings:
    (folder / "key").write_bytes(key)
    return load(source="x", home=folder, jwt_key=folder / "key", jwt_algorithms=algorithms or ("HS256",), **more)


def by_header(text: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {text}".encode()}


def by_cookie(text: str) -> dict[bytes, bytes]:
    return {b"cookie": f'a="b; c; login={text}; d=e'.encode()}


@pytest.mark.parametrize(
    ("say", "identity"),
    [
        pytest.param(dict, ANONYMOUS, id="nothing"),
        pytest.param(lambda: by_header(token("reader")), READER, id="header"),
        pytest.param(
            lambda: {b"authorization": f"bearer  {token('reader')} ".encode()}, READER, id="scheme in lower case"
        ),
        pytest.param(lambda: by_cookie(token("reader")), READER, id="cookie"),
        pytest.param(
            lambda: {b"authorization": b"Basic YTpi", **by_cookie(token("reader"))}, READER, id="not a bearer"
        ),
        pytest.param(
            lambda: by_header(token("other")) | by_cookie(token("reader")),
            Identity(frozenset({"other"}), True),
            id="header first",
        ),
        pytest.param(
            lambda: by_header("rubbish") | by_cookie(token("reader")), ANONYMOUS, id="a bad header hides the cookie"
        ),
        pytest.param(lambda: by_header(token()), NO_ROLE, id="no role"),
        pytest.param(lambda: by_header(token(roles=" reader  reader ")), READER, id="words"),
        pytest.param(lambda: by_header(token(roles=["reader", 7, None])), READER, id="other things among roles"),
        pytest.param(lambda: by_header(token(roles={"reader": 1})), NO_ROLE, id="roles of another form"),
        pytest.param(lambda: by_header(token("reader", lasts_s=-LEEWAY_S - 2)), ANONYMOUS, id="expired"),
        pytest.param(lambda: by_header(token("reader", exp=None)), ANONYMOUS, id="never expires"),
        pytest.param(lambda: by_header(token("reader", exp="soon")), ANONYMOUS, id="expires in words"),
        pytest.param(lambda: by_header(token("reader", nbf=int(time.time()) + 600)), ANONYMOUS, id="not yet valid"),
        pytest.param(lambda: by_header(token("reader", key=b"x" * 64)), ANONYMOUS, id="another secret"),
        pytest.param(lambda: by_header(token("reader", key=None, algorithm="none")), ANONYMOUS, id="unsigned"),
        pytest.param(
            lambda: by_header(token("reader", algorithm="HS512")), ANONYMOUS, id="an algorithm that is not listed"
        ),
        pytest.param(
            lambda: by_header(token("reader", key=RSA, algorithm="RS256")), ANONYMOUS, id="another kind of signature"
        ),
        pytest.param(lambda: by_header(token("reader", iss="https://evil.example")), ANONYMOUS, id="another issuer"),
        pytest.param(lambda: by_header(token("reader", iss=None)), ANONYMOUS, id="no issuer"),
        pytest.param(lambda: by_header(token("reader", pad="x" * 8192)), ANONYMOUS, id="too long"),
        pytest.param(lambda: by_header("W1tbW1tbW1tbW1tb" * 400 + ".e30.eA"), ANONYMOUS, id="deeply nested"),
        pytest.param(lambda: {b"authorization": b"Bearer \xff\xfe"}, ANONYMOUS, id="not ASCII"),
    ],
)
async def test_who_is_asking(tmp_path: Path, say: Callable[[], dict[bytes, bytes]], identity: Identity) -> None:
    verifier = composition.verifier(settings(tmp_path, jwt_issuer=ISSUER, jwt_cookie="login"))
    assert await verifier.identify(say()) == identity


async def test_clocks_may_differ_a_little(tmp_path: Path) -> None:
    verifier = composition.verifier(settings(tmp_path))
    assert await verifier.identify(by_header(token("reader", lasts_s=-LEEWAY_S / 2))) == READER
    assert await verifier.examine(token("reader", lasts_s=-LEEWAY_S - 2)) == "expiredAspect"


@given(st.text(max_size=60) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,9}", fullmatch=True))
async def test_rubbish_is_nobodys(text: str) -> None:
    assert isinstance(await VERIFIER.examine(text), str)


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        pytest.param({"aud": "images"}, True, id="ours"),
        pytest.param({"aud": ["other", "images"]}, True, id="ours among others"),
        pytest.param({"aud": "other"}, False, id="somebody else's"),
        pytest.param({}, False, id="none"),
    ],
)
async def test_audience(tmp_path: Path, claims: dict[str, Any], named: bool) -> None:
    strict = composition.verifier(settings(tmp_path, jwt_audience="images"))
    assert (await strict.identify(by_header(token("reader", **claims)))).known == named
    assert (await composition.verifier(settings(tmp_path)).identify(by_header(token("reader", **claims)))).known


@pytest.mark.parametrize("claim", ["realm_access.roles", "https://example.org/roles"])
async def test_the_claim_with_the_roles_is_a_setting(tmp_path: Path, claim: str) -> None:
    verifier = composition.verifier(settings(tmp_path, jwt_roles_claim=claim))
    claims = {"realm_access": {"roles": ["reader"]}, "https://example.org/roles": "reader"}
    assert await verifier.identify(by_header(token("other", **claims))) == READER


async def test_without_a_key_everybody_is_nobody() -> None:
    verifier = composition.verifier(load(source="x"))
    assert await verifier.identify(by_header(token("reader"))) == ANONYMOUS
    assert verifier.vary == ()


async def test_public_keys(tmp_path: Path) -> None:
    verifier = composition.verifier(settings(tmp_path, pem(RSA), "RS256", "PS256"))
    for algorithm in ("RS256", "PS256"):
        assert await verifier.identify(by_header(token("reader", key=RSA, algorithm=algorithm))) == READER
    assert await verifier.identify(by_header(token("reader", key=OTHER_RSA, algorithm="RS256"))) == ANONYMOUS
    assert await verifier.identify(by_header(token("reader", key=RSA, algorithm="RS512"))) == ANONYMOUS


async def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """RFC 8725, section 2.1: whoever knows the public key signs with it as if it were a shared secret."""
    forged = forge({"alg": "HS256"}, pem(RSA))
    assert await composition.verifier(settings(tmp_path, pem(RSA), "RS256")).identify(by_header(forged)) == ANONYMOUS
    listed = KeySet("set", ["RS256"], fetch=KeyServer(jwks(jwk(RSA, None))).fetch)
    assert await Verifier(listed).identify(by_header(forged)) == ANONYMOUS


async def test_keys_that_a_token_brings_along_are_not_looked_at(tmp_path: Path) -> None:
    headers = {"jwk": jwk(OTHER_RSA, "x"), "jku": "https://evil.example/jwks", "kid": "x"}
    claims = {"roles": ["reader"], "exp": int(time.time()) + 60}
    brought = jwt.encode(claims, OTHER_RSA, algorithm="RS256", headers=headers)
    assert await composition.verifier(settings(tmp_path, pem(RSA), "RS256")).identify(by_header(brought)) == ANONYMOUS


@pytest.mark.parametrize(
    ("key", "algorithms", "message"),
    [
        pytest.param(b"short", ["HS256"], "32 bytes", id="short secret"),
        pytest.param(b"x" * 40, ["HS512"], "HS512: 64", id="secret too short for the algorithm"),
        pytest.param(pem(RSA), ["HS256"], "no secret", id="a public key as a secret"),
        pytest.param(b"x" * 64, ["RS256"], "no public key as PEM", id="a secret as a public key"),
        pytest.param(
            RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            ["RS256"],
            "no public key",
            id="private",
        ),
        pytest.param(pem(EC), ["RS256"], "not of the kind", id="another kind"),
        pytest.param(pem(WEAK_RSA), ["RS256"], "too short", id="1024 bits"),
        pytest.param(SECRET, ["none"], "'none' is none of", id="none"),
        pytest.param(SECRET, ["HS256", "RS256"], "never both", id="both kinds"),
        pytest.param(SECRET, [], "need each other", id="no algorithm"),
    ],
)
def test_keys_that_cannot_work_are_named(tmp_path: Path, key: bytes, algorithms: list[str], message: str) -> None:
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(ConfigurationError, match=message):
        composition.verifier(load(source="x", jwt_key=tmp_path / "key", jwt_algorithms=tuple(algorithms)))


class KeyServer:
    """A key set that records how often it was read; None: it cannot be."""

    def __init__(self, document: bytes | None) -> None:
        self.document = document
        self.reads = 0
        self.now_s = 1000.0

    async def fetch(self, _: str) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if self.document is None:
            raise OSError("no route to host")
        return self.document

    def keys(self, *algorithms: str) -> KeySet:
        return KeySet("set", algorithms or ("RS256",), fetch=self.fetch, clock=lambda: self.now_s)


async def found(keys: KeySet, name: str | None) -> str | None:
    key = await keys.find(name)
    return key.name if key else None


async def test_a_set_is_read_once_and_again_when_it_has_aged() -> None:
    server = KeyServer(jwks(jwk(RSA, "a"), jwk(OTHER_RSA, "b")))
    keys = server.keys()
    assert await asyncio.gather(*(found(keys, "a") for _ in range(20))) == ["a"] * 20
    assert await found(keys, "b") == "b"
    assert server.reads == 1
    server.now_s += REFRESH_S + 1
    await asyncio.gather(*(found(keys, "a") for _ in range(20)))
    assert server.reads == 2


async def test_a_new_key_is_looked_for_but_not_too_often() -> None:
    server = KeyServer(jwks(jwk(RSA, "a")))
    keys = server.keys()
    assert await found(keys, "a") == "a"
    server.document = jwks(jwk(OTHER_RSA, "b"))
    for _ in range(20):
        assert await found(keys, "b") is None
    assert server.reads == 1
    server.now_s += RETRY_S + 1
    assert await found(keys, "b") == "b"
    assert await found(keys, "a") is None, "a key that was taken away is not believed"
    assert server.reads == 2


async def test_a_set_that_cannot_be_had_is_believed_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    server = KeyServer(jwks(jwk(RSA, "a")))
    keys = server.keys()
    await found(keys, "a")
    server.document = None
    server.now_s += REFRESH_S + 1
    assert await found(keys, "a") == "a"
    assert "no route to host" in caplog.text
    server.now_s += BELIEVED_S
    with pytest.raises(Unreachable):
        await keys.find("a")
    good = token("reader", key=RSA, algorithm="RS256", kid="a")
    assert await Verifier(keys).examine(good) == "unavailable"
    assert await Verifier(keys).identify(by_header(good)) == ANONYMOUS


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(jwk(RSA, "a", use="enc"), id="for encryption"),
        pytest.param(jwk(RSA, "a", alg="RS512"), id="for another algorithm"),
        pytest.param(jwk(EC, "a"), id="of another kind"),
        pytest.param(jwk(WEAK_RSA, "a"), id="too short"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, id="a secret"),
        pytest.param({"kty": "new", "kid": "a"}, id="of a kind that is unknown"),
        pytest.param("a", id="not an object"),
    ],
)
async def test_keys_of_no_use_are_passed_by(entry: Any) -> None:
    keys = KeyServer(jwks(entry, jwk(OTHER_RSA, "b"))).keys()
    assert await found(keys, "a") is None
    assert await found(keys, None) == "b"


async def test_without_a_name_a_token_means_the_only_key() -> None:
    assert await found(KeyServer(jwks(jwk(RSA, "a"), jwk(OTHER_RSA, "b"))).keys(), None) is None
    verifier = Verifier(KeyServer(jwks(jwk(EC, None))).keys("ES256"))
    assert isinstance(await verifier.examine(token("reader", key=EC, algorithm="ES256")), Proof)


async def test_a_set_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "jwks").write_bytes(jwks(jwk(RSA, "a")))
    verifier = composition.verifier(load(source="x", jwt_jwks=str(tmp_path / "jwks"), jwt_algorithms="RS256"))
    assert await verifier.identify(by_header(token("reader", key=RSA, algorithm="RS256", kid="a"))) == READER
    (tmp_path / "jwks").write_bytes(b"{}")
    with pytest.raises(ConfigurationError, match='"keys"'):
        composition.verifier(load(source="x", jwt_jwks=str(tmp_path / "jwks"), jwt_algorithms="RS256"))


@pytest.mark.parametrize(
    ("status", "location", "known"),
    [
        pytest.param(200, None, True, id="there"),
        pytest.param(404, None, False, id="missing"),
        pytest.param(302, "/elsewhere", False, id="elsewhere"),
    ],
)
async def test_a_set_from_the_web(status: int, location: str | None, known: bool) -> None:
    async def answer(_: web.Request) -> web.Response:
        headers = {"Location": location} if location else {}
        return web.Response(status=status, body=jwks(jwk(RSA, "a")), headers=headers)

    site = web.Application()
    site.router.add_get("/jwks", answer)
    runner = web.AppRunner(site)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    host, port = runner.addresses[0][:2]
    try:
        verifier = composition.verifier(load(source="x", jwt_jwks=f"http://{host}:{port}/jwks", jwt_algorithms="RS256"))
        identity = await verifier.identify(by_header(token("reader", key=RSA, algorithm="RS256", kid="a")))
        assert identity.known == known
    finally:
        await runner.cleanup()


def forge(header: dict[str, str], secret: bytes) -> str:
    """A token signed by an HMAC that the library would not make with such a secret."""
    claims = {"roles": ["reader"], "exp": int(time.time()) + 60}
    body = b".".join(base64url_encode(json.dumps(part).encode()) for part in (header, claims))
    return (body + b"." + base64url_encode(hmac.new(secret, body, hashlib.sha256).digest())).decode()


VERIFIER = Verifier(KeyServer(jwks(jwk(RSA, "a"))).keys())
