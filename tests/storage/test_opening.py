"""What may be named as a source, and the sentence for what may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from special.errors import ConfigurationError
from special.storage import SCHEMES, RetryPolicy, open_source
from special.storage.source import body
from tests.support.servers import NO_OTHER_AWS, S3Server

pytestmark = pytest.mark.service

QUICK = RetryPolicy(connect_s=0.5, request_s=2.0, retries=1, backoff_s=0.01)


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account: not that of the user who runs the tests, and not the machine's."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    for name, value in NO_OTHER_AWS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        pytest.param("ftp://host/x", "'ftp://host/x' is no source: use a folder's path or one of file://", id="scheme"),
        pytest.param("/no/such/folder", "/no/such/folder is not there: create the folder", id="no-folder"),
        pytest.param("file:///no/such/folder", "/no/such/folder is not there", id="no-file-url"),
        pytest.param("file://server/share", "write file:///path with three slashes", id="other-host"),
        pytest.param(__file__, "is a file, not a folder: name the folder it is in", id="a-file"),
        pytest.param("~no-such-user/x", "no home directory for ~no-such-user/x: write the whole path", id="no-home"),
        pytest.param("s3:bucket/x", "for a bucket write s3://bucket/x", id="no-slashes"),
        pytest.param("s3://", "'s3://' names no bucket: write s3://bucket/prefix", id="no-bucket"),
        pytest.param("s3:///key", "names no bucket", id="empty-bucket"),
        pytest.param("s3://arn:aws:s3:eu-west-1:1:accesspoint/x", "write the access point's alias", id="access-point"),
        pytest.param("s3://a b/x", "'a b' is no name of a bucket", id="blank"),
        pytest.param("s3://a?b/x", "'a?b' is no name of a bucket", id="query"),
        pytest.param("gs:///key", "names no bucket: write gs://bucket/prefix", id="gs-empty"),
        pytest.param("az://container/x", "set AZURE_STORAGE_ACCOUNT_NAME", id="az-no-account"),
        pytest.param("https://me:secret@host/x", "must be a plain https://host/prefix", id="password"),
        pytest.param("https://host/x?y=z", "must be a plain https://host/prefix", id="query"),
        pytest.param("https:///x", "must be a plain https://host/prefix", id="no-host"),
    ],
)
def test_what_is_no_source_is_said_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_source(url)
    message = str(caught.value)
    assert sentence in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        open_source("s3://bucket/")


@pytest.mark.parametrize(
    ("url", "root"),
    [
        pytest.param("s3://bucket", "s3://bucket/", id="bucket"),
        pytest.param("s3://bucket/a/b", "s3://bucket/a/b/", id="prefix"),
        pytest.param("s3://bucket/a%20b/", "s3://bucket/a%20b/", id="not-unquoted"),
        pytest.param("S3://bucket/", "s3://bucket/", id="upper-case"),
        pytest.param("gs://bucket/a", "gs://bucket/a/", id="gs"),
        pytest.param("https://example.org/iiif", "https://example.org/iiif/", id="https"),
        pytest.param("http://localhost:8000", "http://localhost:8000/", id="http"),
    ],
)
async def test_the_root_is_the_url_with_a_slash(url: str, root: str) -> None:
    source = open_source(url)
    assert source.root == root
    await source.close()


async def test_az_takes_its_account_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "somebody")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    source = open_source("az://container/x")
    assert source.root == "az://container/x/"
    await source.close()


async def test_folders_are_named_by_path_or_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder/x").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    url = (tmp_path / "a folder").as_uri()
    for name in (tmp_path / "a folder", "a folder", "./a folder/", "~/a folder", url, url + "/"):
        source = open_source(str(name))
        assert source.root == url + "/"
        assert await body(await source.open("x")) == b"1"


async def test_a_folder_is_made_where_asked(tmp_path: Path) -> None:
    source = open_source(str(tmp_path / "new/er"), create=True)
    await source.check()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        open_source(str(tmp_path / "file/er"), create=True)


async def test_a_folder_that_went_away(tmp_path: Path) -> None:
    source = open_source(str(tmp_path / "new"), create=True)
    (tmp_path / "new").rmdir()
    with pytest.raises(ConfigurationError, match="there is no folder"):
        await source.check()


async def refusal(url: str) -> str:
    source = open_source(url, retry_policy=QUICK)
    try:
        with pytest.raises(ConfigurationError) as caught:
            await source.check()
    finally:
        await source.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_no_credentials() -> None:
    assert "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in await refusal("s3://bucket/x")


async def test_an_endpoint_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    assert await refusal("s3://bucket/x") == (
        "s3://bucket/x/ does not answer: check the network, and AWS_ENDPOINT_URL if it is not Amazon's"
    )
    assert "does not answer" in await refusal("http://127.0.0.1:9/x")


@pytest.mark.parametrize("server", ["moto_s3", "seaweed_s3"])
async def test_a_bucket_that_does_not_exist(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: S3Server = request.getfixturevalue(server)
    for name, value in running.environ.items():
        monkeypatch.setenv(name, value)
    assert await refusal("s3://no-such-bucket-here/x") == (
        "s3://no-such-bucket-here/x/ does not exist: create the bucket, or correct its name"
    )


@pytest.mark.parametrize(
    ("variable", "code"),
    [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId")],
)
async def test_credentials_that_are_refused(
    variable: str, code: str, seaweed_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (seaweed_s3.environ | {variable: "wrong"}).items():
        monkeypatch.setenv(name, value)
    said = await refusal(f"s3://{seaweed_s3.bucket()}/x")
    assert "refuses us" in said
    assert said.endswith(f"correct the access key and its secret, or choose another profile ({code})")


async def test_a_bucket_is_read_over_http_like_any_web_server(moto_s3: S3Server) -> None:
    bucket = moto_s3.bucket()
    moto_s3.client().put_object(
        Bucket=bucket, Key="a b/ü.jpg", Body=b"0123456789", ContentType="image/jpeg", ACL="public-read"
    )
    source = open_source(f"{moto_s3.endpoint}/{bucket}/a b")
    await source.check()
    opened = await source.open("ü.jpg")
    assert (opened.blob.size, opened.blob.media) == (10, "image/jpeg")
    assert await body(opened) == b"0123456789"
    await source.close()


def test_every_scheme_is_described() -> None:
    assert all(f"{scheme}://" in (open_source.__doc__ or "") for scheme in SCHEMES)
