"""From a `cantaloupe.properties` to a file for `--config`."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from special import composition
from special.cantaloupe import translate
from special.cli import cli
from special.errors import ConfigurationError
from special.images import OPEN
from special.settings import Settings, load

S3 = """
# Masters in a bucket, with all that an operator may have set.
http.enabled = true
http.host = 0.0.0.0
http.port = 8182
https.enabled = true
base_uri = https://iiif.example.org/images
slash_substitute = ~
max_pixels = 10000000
max_scale = 0
endpoint.iiif.1.enabled = true
endpoint.iiif.2.enabled = true
endpoint.iiif.restrict_to_sizes = true
endpoint.admin.enabled = true
endpoint.api.enabled = true
delegate_script.enabled = true
source.static = S3Source
source.delegate = false
FilesystemSource.BasicLookupStrategy.path_prefix = /home/myself/images/
HttpSource.BasicLookupStrategy.auth.basic.username = of another source
S3Source.endpoint = https://s3.example.org:9000
S3Source.region = eu-west-1
S3Source.access_key_id = AKIDSECRET
S3Source.secret_key = KEYSECRET
S3Source.lookup_strategy = BasicLookupStrategy
S3Source.BasicLookupStrategy.bucket.name = archive
S3Source.BasicLookupStrategy.path_prefix = masters/
S3Source.BasicLookupStrategy.path_suffix = .jp2
processor.stream_retrieval_strategy = CacheStrategy
processor.jpg.quality = 80
cache.client.max_age = 2592000
cache.server.derivative.enabled = true
FilesystemCache.pathname = /var/cache/cantaloupe/
overlays.BasicStrategy.enabled = true
log.access.ConsoleAppender.enabled = false
log.access.RollingFileAppender.enabled = true
"""


def read(tmp_path: Path, text: str, **given: str) -> Settings:
    file = tmp_path / "special.toml"
    file.write_text(translate(text), "utf-8")
    return load(file, **given)


def test_a_site_with_masters_in_s3(tmp_path: Path) -> None:
    chosen = read(tmp_path, S3)

    expected = {
        "source": "s3://archive/masters/",
        "keys": ("{id}.jp2",),
        "host": "0.0.0.0",
        "port": 8182,
        "base_url": "https://iiif.example.org/images",
        "slash_substitute": "~",
        "max_area": 10_000_000,
        "upscaling": True,
        "jpeg_quality": 80,
        "max_age_s": 2_592_000,
        "volume": Path("/var/cache/cantaloupe-special"),
    }
    assert {name: getattr(chosen, name) for name in chosen.model_fields_set - {"rules"}} == expected


@pytest.mark.parametrize(("is_enabled", "limits"), [("true", [0]), ("false", []), ("", [])])
def test_where_a_script_may_have_restricted_images_all_are(tmp_path: Path, is_enabled: str, limits: list[int]) -> None:
    text = S3.replace("delegate_script.enabled = true", f"delegate_script.enabled = {is_enabled}")
    chosen = read(tmp_path, text)
    assert [rule.max_unauthorised for rule in chosen.rules] == limits
    asset = composition.rules(chosen).govern(OPEN, "any/identifier.tif")
    assert (asset.max_unauthorised == 0) is bool(limits)


def test_what_a_site_does_otherwise_is_named_and_secrets_are_not() -> None:
    text = translate(S3)
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))

    for said in (
        'AWS_ENDPOINT_URL="https://s3.example.org:9000"',
        'AWS_REGION="eu-west-1"',
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "TLS comes from a proxy",
        "The script is not run",
        "Version 1 of the Image API is not served",
        "Only `/thumbs/` is restricted",
        "shows a page at `/status`",
        "`special forget`",
        "`special derive`",
        "Hooks draw over images",
        '`log_format = "json"`',
    ):
        assert said in comments
    assert "No password is sent" not in text
    assert "SECRET" not in text.replace("AWS_SECRET_ACCESS_KEY", "")
    named = set(re.findall(r"`(\w+) = ", text)) | set(re.findall(r"^# (\w+) = ", text, re.MULTILINE))
    assert named
    assert named <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("properties", "source", "keys"),
    [
        pytest.param(
            "source.static = FilesystemSource\n"
            "FilesystemSource.BasicLookupStrategy.path_prefix = /srv/images/\n"
            "FilesystemSource.BasicLookupStrategy.path_suffix =\n",
            "/srv/images/",
            ("{id}",),
            id="folder",
        ),
        pytest.param(
            "source.static: S3Source\n"
            "S3Source.BasicLookupStrategy.bucket.name: b\n"
            "S3Source.BasicLookupStrategy.path_prefix: a/img_\n",
            "s3://b/a/",
            ("img_{id}",),
            id="a prefix that is no folder",
        ),
        pytest.param(
            "source.static=HttpSource\n"
            "HttpSource.BasicLookupStrategy.url_prefix=https\\://host/a/\n"
            "HttpSource.BasicLookupStrategy.url_suffix=.tif\n",
            "https://host/a/",
            ("{id}.tif",),
            id="web server",
        ),
        pytest.param(
            "source.static = AzureStorageSource\nAzureStorageSource.container_name = c\n",
            "az://c/",
            ("{id}",),
            id="Azure",
        ),
        pytest.param(
            "! old\nsource.static = HttpSource\n"
            "source.static = \\\n   FilesystemSource\n"
            "FilesystemSource.BasicLookupStrategy.path_prefix = C:\\\\Bilder\\u00fc/\n",
            "C:\\Bilderü/",
            ("{id}",),
            id="as Java reads properties",
        ),
    ],
)
def test_where_masters_are(tmp_path: Path, properties: str, source: str, keys: tuple[str, ...]) -> None:
    chosen = read(tmp_path, properties)
    assert (chosen.source, chosen.keys) == (source, keys)


@pytest.mark.parametrize(
    "properties",
    [
        "source.static = JdbcSource",
        "source.delegate = true",
        "source.static = S3Source\nS3Source.lookup_strategy = ScriptLookupStrategy",
    ],
)
def test_what_only_a_script_or_a_table_knows_is_left_to_the_operator(tmp_path: Path, properties: str) -> None:
    assert "`special docs catalogue`" in translate(properties)
    assert read(tmp_path, properties, source="s3://x").source == "s3://x"


def test_no_limit_and_no_upscaling(tmp_path: Path) -> None:
    properties = "source.static = S3Source\nmax_pixels = 0\nmax_scale = 1.0\nhttps.enabled = false"
    assert read(tmp_path, properties).model_fields_set == {"source"}


@pytest.mark.parametrize("text", ["", "resolver = FilesystemResolver", "<xml/>"])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no cantaloupe\.properties of version 4 or 5"):
        translate(text)


def test_the_command_prints_it(tmp_path: Path) -> None:
    file = tmp_path / "cantaloupe.properties"
    file.write_text(S3)
    assert CliRunner().invoke(cli, ["config", "--cantaloupe", str(file)]).stdout == translate(S3)

    for wrong in (tmp_path / "none", tmp_path):
        failed = CliRunner().invoke(cli, ["config", "--cantaloupe", str(wrong)])
        assert isinstance(failed.exception, ConfigurationError)
        assert str(wrong) in str(failed.exception)
