"""Which S3 an AWS configuration means, and what is said of one that cannot work."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from special.errors import ConfigurationError, SourceError
from special.storage import RetryPolicy, Span, body, check_source, open_source
from special.storage.aws import Account
from tests.support.servers import NO_OTHER_AWS


@pytest.mark.parametrize(
    ("variables", "bucket", "region", "endpoint"),
    [
        pytest.param({}, "one", "us-east-1", "https://one.s3.us-east-1.amazonaws.com", id="nothing-said"),
        pytest.param(
            {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-1"},
            "one",
            "eu-west-2",
            "https://one.s3.eu-west-2.amazonaws.com",
            id="region-of-other-sdks",
        ),
        pytest.param(
            {"AWS_DEFAULT_REGION": "eu-west-2"},
            "one",
            "eu-west-2",
            "https://one.s3.eu-west-2.amazonaws.com",
            id="region",
        ),
        pytest.param(
            {"AWS_DEFAULT_REGION": "eu-west-2"}, "a.b", "eu-west-2", "https://s3.eu-west-2.amazonaws.com", id="dotted"
        ),
        pytest.param(
            {"AWS_DEFAULT_REGION": "cn-north-1"},
            "a",
            "cn-north-1",
            "https://a.s3.cn-north-1.amazonaws.com.cn",
            id="china",
        ),
        pytest.param({"AWS_ENDPOINT_URL": "http://box:9000/"}, "a", "us-east-1", "http://box:9000", id="endpoint"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "http://box:9000", "AWS_ENDPOINT_URL_S3": "https://s3.box"},
            "a",
            "us-east-1",
            "https://s3.box",
            id="endpoint-of-s3",
        ),
        pytest.param(
            {"AWS_ENDPOINT_URL": "http://box:9000", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "a",
            "us-east-1",
            "https://a.s3.us-east-1.amazonaws.com",
            id="endpoint-ignored",
        ),
    ],
)
def test_place(
    variables: dict[str, str], bucket: str, region: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (NO_OTHER_AWS | variables).items():
        monkeypatch.setenv(name, value)
    store = Account.from_environment().store(bucket, client={}, retry={})
    assert (store.config["region"], store.config["endpoint"]) == (region, endpoint)


def test_virtual_hosts_of_another_s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\nendpoint_url = https://s3.box\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    store = Account.from_environment().store("one", client={}, retry={})
    assert store.config["endpoint"] == "https://one.s3.box"


@pytest.mark.parametrize(
    ("value", "anonymous"), [("yes", True), ("1", True), ("TRUE", True), ("no", False), ("0", False), ("", False)]
)
def test_unsigned_only_where_asked_for(value: str, anonymous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", value)
    assert Account.from_environment().anonymous is anonymous


BASE = "[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n"
ROLE = "role_arn = arn:aws:iam::123456789012:role/reader\n"
SSO = "sso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\n"


def use(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """These variables, and no other of AWS."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "SSL_"))]:
        monkeypatch.delenv(name)
    for name, value in (NO_OTHER_AWS | variables).items():
        monkeypatch.setenv(name, value)


@pytest.mark.service
@pytest.mark.parametrize(
    ("variables", "config", "sentence"),
    [
        pytest.param({}, "", "there are no AWS credentials: set AWS_PROFILE", id="none"),
        pytest.param(
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x"},
            "",
            "No such file or directory: '/no/token'",
            id="no-token-file",
        ),
        pytest.param(
            # Of AWS_REGION botocore knows nothing, and without a region it would not even ask.
            {"AWS_PROFILE": "p", "AWS_REGION": "eu-west-2", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"},
            f"[profile p]\n{ROLE}source_profile = base\n{BASE}",
            "Could not connect to the endpoint URL",
            id="role",
        ),
        pytest.param(
            {"AWS_PROFILE": "p"}, f"[profile p]\n{ROLE}source_profile = none\n", '"none" referenced', id="no-source"
        ),
        pytest.param({"AWS_PROFILE": "q"}, "", "The config profile (q) could not be found", id="no-profile"),
        pytest.param(
            {"AWS_PROFILE": "p"}, f"[profile p]\n{SSO}sso_account_id = 1\nsso_role_name = r\n", "SSO Token", id="sso"
        ),
        pytest.param(
            {"AWS_PROFILE": "p"},
            f"[profile p]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\n{SSO}",
            "SSO Token",
            id="sso-session",
        ),
        pytest.param(
            {"AWS_PROFILE": "p"}, "[profile p]\ncredential_process = /bin/false\n", "custom-process", id="program-fails"
        ),
        pytest.param(
            {"AWS_PROFILE": "p"}, "[profile p]\ncredential_process = echo hello\n", "gave no JSON", id="program-babbles"
        ),
        pytest.param(
            {"AWS_PROFILE": "p"}, "[profile p]\ncredential_process = /no/program\n", "/no/program", id="no-program"
        ),
        pytest.param(
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/x"}, "", "Unsupported host", id="container-host"
        ),
        pytest.param(
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost:9/x",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/no/token",
            },
            "",
            "/no/token",
            id="container-token",
        ),
        pytest.param({"AWS_ACCESS_KEY_ID": "a"}, "", "missing: AWS_SECRET_ACCESS_KEY", id="half"),
        pytest.param({}, "no section\n", "Unable to parse config file", id="broken-file"),
        pytest.param({"AWS_ENDPOINT_URL": "minio:9000"}, "", "'minio:9000' is no address", id="no-scheme"),
        pytest.param({"AWS_ENDPOINT_URL": "http://box:9000 "}, "", "'http://box:9000 ' is no address", id="blank"),
        pytest.param({"AWS_ENDPOINT_URL": "http:///x"}, "", "'http:///x' is no address", id="no-host"),
    ],
)
async def test_a_mistake_of_identity_is_one_sentence(
    variables: dict[str, str],
    config: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "config").write_text(config)
    use(monkeypatch, {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_MAX_ATTEMPTS": "1", **variables})
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigurationError) as raised:
        await Account.from_environment().credentials()
    said = str(raised.value)
    assert sentence in said
    assert "\n" not in said
    assert "Traceback" not in caplog.text


async def test_credentials_that_are_rewritten_are_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    file.write_text(text.format("first"))
    use(monkeypatch, {"AWS_SHARED_CREDENTIALS_FILE": str(file)})
    account = Account.from_environment()
    assert (await account.credentials())["access_key_id"] == "first"
    file.write_text(text.format("second"))
    found = await account.credentials()
    assert found["access_key_id"] == "second"
    assert (await account.read_only_credentials()).access_key == "second"
    # obstore asks again when five minutes are left.
    assert found["expires_at"] - datetime.now(UTC) < timedelta(minutes=6)


async def test_a_user_without_a_home_directory_has_credentials_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"AWS_ACCESS_KEY_ID": "first", "AWS_SECRET_ACCESS_KEY": "s"})
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "~")  # what expands to itself is no directory
    assert (await Account.from_environment().credentials())["access_key_id"] == "first"


def test_compose_passes_on_an_empty_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"AWS_PROFILE": ""})
    assert Account.from_environment().region == "us-east-1"


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_that_are_not_there(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {variable: "/no/ca.pem"})
    with pytest.raises(ConfigurationError, match=r"cannot be read from /no/ca\.pem"):
        open_source("s3://one")


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("key", ["a", "a//b"], ids=["obstore", "botocore"])
async def test_both_clients_trust_the_certificates_that_are_named(
    variable: str, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, server = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Sun, 22 Nov 2026 17:20:39 GMT\r\n'
            b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        use(
            monkeypatch,
            {
                "AWS_ENDPOINT_URL": f"https://localhost:{port}",
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                variable: str(authority),
            },
        )
        source = open_source("s3://one", retry_policy=RetryPolicy(request_s=30.0, retries=0))
        try:
            assert await body(await source.open(key)) == b"abc"
        finally:
            await source.close()


BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 36\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>"


@pytest.mark.parametrize(
    ("endpoint", "is_tls", "expected"),
    [
        pytest.param(
            "https://localhost:{port}", True, "certificate that is not trusted (UnknownIssuer)", id="authority"
        ),
        pytest.param("https://localhost:{port}", False, "speaks no TLS: write its address with http://", id="no TLS"),
        pytest.param(f"http://{'a' * 64}.invalid", False, "has a name that cannot be resolved", id="no name"),
        pytest.param("http://localhost:{port}", False, "answers 503 SlowDown: it is overloaded", id="throttled"),
    ],
)
async def test_what_is_wrong_with_an_endpoint_is_named(
    endpoint: str, is_tls: bool, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates(tmp_path)[1])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(BUSY)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context if is_tls else None) as listening:
        port = listening.sockets[0].getsockname()[1]
        use(
            monkeypatch,
            {
                "AWS_ENDPOINT_URL": endpoint.format(port=port),
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
            },
        )
        with pytest.raises(ConfigurationError) as caught:
            await check_source("s3://one", retry_policy=RetryPolicy(request_s=30.0, retries=0))
    assert str(caught.value).startswith("s3://one/ ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "data", "expected"),
    [
        pytest.param(
            b"Content-Range: bytes 0-2/9\r\nTransfer-Encoding: chunked",
            b"3\r\nabc\r\n0\r\n\r\n",
            "sends no Content-Length",
            id="no length",
        ),
        pytest.param(
            b"Content-Range: bytes 0-2/*\r\nContent-Length: 3",
            b"abc",
            "no size of the object",
            id="no size of the object",
        ),
    ],
)
async def test_a_store_whose_answers_cannot_be_used_is_asked_once_and_named(
    headers: bytes, data: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b'HTTP/1.1 206 Partial Content\r\nETag: "x"\r\nLast-Modified: Sun, 22 Nov 2026 17:20:39 GMT\r\n'
            + headers
            + b"\r\nConnection: close\r\n\r\n"
            + data
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        use(monkeypatch, {"AWS_ENDPOINT_URL": f"http://localhost:{port}", "AWS_NO_SIGN_REQUEST": "yes"})
        source = open_source("s3://one", retry_policy=RetryPolicy(request_s=30.0, retries=4))
        try:
            with pytest.raises(SourceError, match=expected) as caught:
                await source.open("a", span=Span(0, 3))
        finally:
            await source.close()
    assert (len(asked), caught.value.status) == (1, 502)


def certificates(folder: Path) -> tuple[Path, Path]:
    """A new authority's certificate, and with its key one that it signed for localhost, as PEM files."""
    now, names = datetime.now(UTC), [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, it)]) for it in ("ca", "host")]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    files = folder / "ca.pem", folder / "host.pem"
    for name, key, file, is_authority in zip(names, keys, files, (True, False), strict=True):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(keys[0], hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        if not is_authority:
            pem += key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        file.write_bytes(pem)
    return files
