"""What S3 has beyond the contract: keys of any form, the AWS configuration, and requests that the server logs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC
from pathlib import Path

import pytest

from special.errors import Changed, Denied, Missing, Unreachable
from special.storage import Bucket, RetryPolicy, open_source
from special.storage.blob import NotModified, Span, Unless
from special.storage.source import body
from tests.support.servers import NO_OTHER_AWS, S3Server

pytestmark = pytest.mark.service

BIG = bytes(range(256)) * 4096

Opener = Callable[..., Bucket]


@pytest.fixture
async def bucket_of(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opener]:
    """Opens a new source on a bucket with a given environment and no other."""
    sources: list[Bucket] = []

    def opener(bucket: str, variables: dict[str, str], prefix: str = "") -> Bucket:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in (NO_OTHER_AWS | variables).items():
            monkeypatch.setenv(name, value)
        source = open_source(f"s3://{bucket}/{prefix}", retry_policy=RetryPolicy(request_s=30.0, retries=0))
        assert isinstance(source, Bucket)
        sources.append(source)
        return source

    yield opener
    for source in sources:
        await source.close()


AWKWARD = ["a//b", "/lead", "//lead", "trail/", "a/./b", "a/../b", "../x", "..", ".", "/", "tab\tkey", "del\x7f"]


@pytest.mark.parametrize("key", AWKWARD, ids=ascii)
@pytest.mark.parametrize("prefix", ["", "p/"], ids=["top", "prefix"])
async def test_keys_that_only_s3_allows(key: str, prefix: str, moto_s3: S3Server, bucket_of: Opener) -> None:
    """On moto, which keeps keys as they are; SeaweedFS makes paths of them."""
    bucket = moto_s3.bucket()
    moto_s3.client().put_object(Bucket=bucket, Key=prefix + key, Body=BIG, ContentType="image/jp2")
    moto_s3.client().put_object(Bucket=bucket, Key=prefix + "other", Body=b"")
    source = bucket_of(bucket, moto_s3.environ, prefix)
    blob = await source.stat(key)
    assert (blob.key, blob.size, blob.media) == (key, len(BIG), "image/jp2")
    assert blob.modified is not None
    assert blob.modified.tzinfo is UTC
    assert await source.read(blob, [Span(3, 9), Span(500_000, 500_001)]) == [BIG[3:9], BIG[500_000:500_001]]
    for span in (None, Span(5, 2**30), Span(1, 3)):
        opened = await source.open(key, span=span, pin=blob)
        sent = Span(span.start, min(span.stop, len(BIG))) if span else Span.whole(blob)
        assert (opened.blob, opened.span) == (blob, sent)
        assert await body(opened) == BIG[sent.start : sent.stop]
    with pytest.raises(NotModified):
        await source.open(key, unless=Unless(blob.etag))
    listed = {found.key: found.etag async for found in source.list()}
    assert listed.keys() == {key, "other"}
    assert listed[key] == blob.etag
    written = await source.write(key, b"new", media="image/png", pin=blob)
    with pytest.raises(Changed):
        await source.read(blob, [Span(0, 1)])
    with pytest.raises(Changed):
        await source.write(key, b"newer", pin=blob)
    opened = await source.open(key, pin=written)
    assert await body(opened) == b"new"
    await source.delete(key)
    with pytest.raises(Missing):
        await source.stat(key)
    with pytest.raises(Missing):
        await source.open(key)


async def test_an_unread_body_of_an_odd_key_is_let_go(moto_s3: S3Server, bucket_of: Opener) -> None:
    bucket = moto_s3.bucket()
    moto_s3.client().put_object(Bucket=bucket, Key="a//b", Body=BIG)
    source = bucket_of(bucket, moto_s3.environ)
    for _ in range(3):
        chunks = (await source.open("a//b")).body
        assert not isinstance(chunks, bytes)
        await chunks.aclose()


@pytest.mark.parametrize("key", ["a", "a//b"])
async def test_an_endpoint_that_refuses_is_unreachable(key: str, bucket_of: Opener) -> None:
    variables = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "something",
    }
    source = bucket_of("bucket", variables)
    with pytest.raises(Unreachable):
        await source.open(key)
    with pytest.raises(Unreachable):
        await anext(aiter(source.list()))


@pytest.mark.parametrize("server", ["moto_s3", "seaweed_s3"])
async def test_a_master_beside_keys_below_its_name(
    server: str, request: pytest.FixtureRequest, bucket_of: Opener
) -> None:
    """As a DLCS has them: the master `1/2/foo`, and its sizes file `1/2/foo/s.json`."""
    running: S3Server = request.getfixturevalue(server)
    source = bucket_of(running.bucket(), running.environ)
    for key in ("1/2/foo/s.json", "1/2/foo", "1/2/foo/open/100.jpg"):
        await source.write(key, key.encode())
    assert [blob.key async for blob in source.list("1/2/foo")] == ["1/2/foo", "1/2/foo/open/100.jpg", "1/2/foo/s.json"]
    assert await body(await source.open("1/2/foo")) == b"1/2/foo"
    assert await body(await source.open("1/2/foo/s.json")) == b"1/2/foo/s.json"


@pytest.mark.parametrize("key", ["a", "a//b"])
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
async def test_a_wrong_secret_is_denied(key: str, variable: str, seaweed_s3: S3Server, bucket_of: Opener) -> None:
    source = bucket_of(seaweed_s3.bucket(), seaweed_s3.environ | {variable: "wrong"})
    with pytest.raises(Denied) as denied:
        await source.open(key)
    assert (denied.value.status, denied.value.public) == (502, "The image's store refuses the image server.")
    with pytest.raises(Denied):
        await source.stat(key)
    with pytest.raises(Denied):
        await source.write(key, b"x")
    with pytest.raises(Denied):
        await anext(aiter(source.list()))


@pytest.mark.parametrize("key", ["a", "a//b"])
async def test_no_credentials_are_denied_with_the_fix(key: str, seaweed_s3: S3Server, bucket_of: Opener) -> None:
    source = bucket_of(seaweed_s3.bucket(), {"AWS_ENDPOINT_URL": seaweed_s3.endpoint})
    with pytest.raises(Denied, match="set AWS_PROFILE"):
        await source.open(key)


@pytest.mark.parametrize("key", ["a", "a//b"])
async def test_nothing_is_signed_where_that_is_asked_for(key: str, seaweed_s3: S3Server, bucket_of: Opener) -> None:
    """The credentials are right, and not used: a bucket that is not public refuses, what is there and what is not."""
    bucket = seaweed_s3.bucket()
    await bucket_of(bucket, seaweed_s3.environ).write(key, b"mine")
    source = bucket_of(bucket, seaweed_s3.environ | {"AWS_NO_SIGN_REQUEST": "yes"})
    with pytest.raises(Missing):
        await source.open(key)
    with pytest.raises(Denied):
        await source.write(key, b"other")
    await source.check()


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("endpoint_url = {}", id="profile"),
        pytest.param("services = here\n[services here]\ns3 =\n  endpoint_url = {}", id="services"),
    ],
)
@pytest.mark.parametrize("key", ["a", "a//b"])
async def test_a_profile_names_account_region_and_endpoint(
    key: str, endpoint: str, seaweed_s3: S3Server, bucket_of: Opener, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"[profile library]\nregion = {seaweed_s3.region}\n{endpoint.format(seaweed_s3.endpoint)}\n"
    )
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n"
        f"[library]\naws_access_key_id = {seaweed_s3.access_key}\naws_secret_access_key = {seaweed_s3.secret_key}\n"
    )
    source = bucket_of(
        seaweed_s3.bucket(),
        {
            "AWS_PROFILE": "library",
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        },
    )
    await source.check()
    await source.write(key, b"mine")
    assert await body(await source.open(key)) == b"mine"


async def test_credentials_may_come_from_a_program(seaweed_s3: S3Server, bucket_of: Opener, tmp_path: Path) -> None:
    """Any provider of botocore's chain will do; this one shows that the chain is asked."""
    (tmp_path / "answer.json").write_text(
        f'{{"Version": 1, "AccessKeyId": "{seaweed_s3.access_key}", "SecretAccessKey": "{seaweed_s3.secret_key}"}}'
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'answer.json'}\n")
    source = bucket_of(
        seaweed_s3.bucket(),
        {"AWS_ENDPOINT_URL": seaweed_s3.endpoint, "AWS_CONFIG_FILE": str(tmp_path / "config")},
    )
    await source.write("a", b"mine")
    assert await body(await source.open("a")) == b"mine"


async def test_the_endpoint_for_s3_goes_before_the_general_one(seaweed_s3: S3Server, bucket_of: Opener) -> None:
    variables = seaweed_s3.environ | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": seaweed_s3.endpoint + "/",
    }
    source = bucket_of(seaweed_s3.bucket(), variables)
    await source.write("a", b"mine")
    await source.write("a//b", b"mine")


@pytest.mark.parametrize("key", ["dir/a", "dir//a"])
async def test_each_read_is_the_requests_that_the_server_logs(
    key: str, seaweed_s3: S3Server, bucket_of: Opener
) -> None:
    bucket = seaweed_s3.bucket()
    source = bucket_of(bucket, seaweed_s3.environ)
    await source.write(key, BIG)
    blob = await source.stat(key)
    await source.read(blob, [Span(0, 10), Span(20, 30), Span(500_000, 500_001)])
    await body(await source.open(key))
    await body(await source.open(key, span=Span(0, 65536)))
    with pytest.raises(NotModified):
        await source.open(key, unless=Unless(blob.etag))
    logged = [(line.operation, line.status) for line in seaweed_s3.logged(bucket) if line.key == "dir/a"]
    assert logged == [
        ("REST.PUT.OBJECT", 200),
        ("REST.HEAD.OBJECT", 200),
        *[("REST.GET.OBJECT", 206)] * 3,
        ("REST.GET.OBJECT", 200),
        ("REST.GET.OBJECT", 206),
        ("REST.GET.OBJECT", 304),
    ]
