"""Several sources as one: each place reaches its own, and nothing else is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from special.errors import ConfigurationError, Outside
from special.storage import Blob, S3Options, Sources, Span, body, open_source, with_endpoint


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for name in ("a", "a/inner", "b c%41"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x y%41.tif").write_bytes(name.encode())
    (tmp_path / "link").symlink_to(tmp_path / "b c%41")
    return Sources([open_source(str(tmp_path / name)) for name in ("a", "a/inner", "link")])


@pytest.mark.parametrize(
    ("place", "content"),
    [
        pytest.param("x y%41.tif", b"a", id="below the default one"),
        pytest.param("{root}/a/x y%41.tif", b"a", id="a path"),
        pytest.param("file://{root}/a/x%20y%2541.tif", b"a", id="a URL"),
        pytest.param("{root}/a/inner/x y%41.tif", b"a/inner", id="the innermost source"),
        pytest.param("{root}/b c%41/x y%41.tif", b"b c%41", id="a folder's own path"),
        pytest.param("{root}/link/x y%41.tif", b"b c%41", id="the path that was given"),
        pytest.param("FILE://{root}/link/x%20y%2541.tif", b"b c%41", id="by its URL"),
    ],
)
async def test_a_place_is_read_from_its_own_source(
    sources: Sources, tmp_path: Path, place: str, content: bytes
) -> None:
    url = sources.resolve(place.replace("{root}", str(tmp_path)))
    opened = await sources.open(url)
    assert await body(opened) == content
    assert opened.blob.url == url
    assert await sources.read(opened.blob, [Span(0, 1)]) == [content[:1]]
    assert (await sources.stat(url)).version == opened.blob.version


@pytest.mark.parametrize(
    "place",
    [
        "",
        "/etc/passwd",
        "{root}/a",
        "{root}/a/",
        "{root}/a/../secret",
        "{root}/ax",
        "file://{root}/a/%2e%2e/secret",
        "..",
        "a/../../b",
        "s3://bucket/x",
        "S3://bucket/x",
        "http://127.0.0.1/x",
    ],
)
def test_what_is_below_none_of_them_has_no_address(sources: Sources, tmp_path: Path, place: str) -> None:
    with pytest.raises(Outside):
        sources.resolve(place.replace("{root}", str(tmp_path)))


async def test_nothing_of_another_place_is_read(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(Outside):
        await sources.open("s3://bucket/x")
    with pytest.raises(Outside):
        await sources.read(Blob("s3://bucket/", "x", '"1"', 9), [Span(0, 1)])


async def test_listing_goes_on_where_it_stopped(sources: Sources) -> None:
    found = [blob.url async for blob in sources.list()]
    assert len(found) == 3  # that of `a/inner` is below `a` too, and named once
    for number, url in enumerate(found):
        assert [blob.url async for blob in sources.list(after=url)] == found[number + 1 :]


def test_the_same_place_twice_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="same place"):
        Sources([open_source(str(tmp_path)), open_source(str(tmp_path))])


def test_buckets_have_endpoints_and_accounts_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from special.storage.aws import Account

    config = tmp_path / "config"
    config.write_text(
        "[profile partner]\nregion = ap-south-1\naws_access_key_id = partner\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_NO_SIGN_REQUEST", raising=False)

    mine = Account.from_environment()
    partner = Account.from_environment(S3Options(profile="partner", requester_pays=True))
    other = Account.from_environment(S3Options("https://s3.example.org/", region="x", anonymous=True))

    assert (mine.region, mine.anonymous, mine.requester_pays) == ("eu-west-1", False, False)
    assert (partner.region, partner.requester_pays) == ("ap-south-1", True)
    assert partner.chain.current().access_key == "partner"
    assert mine.chain.current().access_key == "mine"
    assert (other.endpoint, other.region, other.anonymous, other.path_style) == (
        "https://s3.example.org",
        "x",
        True,
        True,
    )


def test_only_buckets_of_s3_have_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no bucket of S3"):
        open_source(str(tmp_path), s3=S3Options(region="x"))


def test_a_name_on_disk_says_which_store_it_is_of(sources: Sources, tmp_path: Path) -> None:
    here = open_source("s3://archive/a", s3=S3Options(endpoint="http://127.0.0.1:9000"))
    inner = open_source("s3://archive/a/b", s3=S3Options(endpoint="https://minio.example/"))
    name_of = with_endpoint(Sources([here, inner]), sources)
    assert name_of("s3://archive/a/leaf.tif") == "http://127.0.0.1:9000 s3://archive/a/leaf.tif"
    assert name_of("s3://archive/a/b/leaf.tif") == "https://minio.example s3://archive/a/b/leaf.tif"
    assert name_of(f"file://{tmp_path}/a/x.tif") == f"file://{tmp_path}/a/x.tif"
