"""Which S3 an AWS configuration means. Nothing is asked over the network here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
