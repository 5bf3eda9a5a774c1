"""What names one version of one object."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from special.storage import Blob

BLOB = Blob("s3://b/p/", "a b", '"1"', 10)


def test_a_version_is_named_by_place_tag_and_size() -> None:
    assert BLOB.version == 's3://b/p/a b "1" 10'
    assert replace(BLOB, media="image/tiff", modified=datetime(2026, 1, 1, tzinfo=UTC)).version == BLOB.version


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(BLOB, root="s3://c/p/"), id="root"),
        pytest.param(replace(BLOB, key="a"), id="key"),
        pytest.param(replace(BLOB, etag='"2"'), id="tag"),
        pytest.param(replace(BLOB, etag='W/"1"'), id="weak tag"),
        pytest.param(replace(BLOB, size=1), id="size"),
        pytest.param(replace(BLOB, key='a b "1" 10'), id="a key that looks like a version"),
    ],
)
def test_no_two_versions_share_a_name(other: Blob) -> None:
    assert other.version != BLOB.version
