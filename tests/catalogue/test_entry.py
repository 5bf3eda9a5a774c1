"""What a document or a row says of an image, and what is not believed."""

from __future__ import annotations

from typing import Any

import pytest

from special.catalogue import Description, Entry


def test_all_that_a_document_may_say() -> None:
    service = {"id": "https://x/", "type": "Service"}
    entry = Entry.of(
        {
            "url": "s3://b/k",
            "page": 3,
            "max_unauthorised": 400,
            "roles": ["staff"],
            "label": "Leaf",
            "filename": "leaf-3",
            "rights": "http://creativecommons.org/licenses/by/4.0/",
            "service": [service],
            "partOf": {"id": "https://x/manifest", "type": "Manifest"},
            "something": "else",
        },
        etag='"v1"',
    )
    said = Description(
        rights="http://creativecommons.org/licenses/by/4.0/",
        service=(service,),
        part_of=({"id": "https://x/manifest", "type": "Manifest"},),
    )
    assert entry == Entry(("s3://b/k",), 3, 400, frozenset({"staff"}), "Leaf", "leaf-3", said, '"v1"')


@pytest.mark.parametrize(
    ("document", "limit", "roles"),
    [
        pytest.param({}, None, None, id="nothing is restricted"),
        pytest.param({"max_unauthorised": None, "roles": None}, None, None, id="nor by empty columns"),
        pytest.param({"max_unauthorised": -1, "roles": ["staff"]}, None, {"staff"}, id="-1 is all"),
        pytest.param({"max_unauthorised": 0}, 0, None, id="0 is nothing"),
        pytest.param({"roles": ["staff"]}, 0, {"staff"}, id="roles alone restrict all"),
        pytest.param({"max_unauthorised": 200, "roles": []}, 200, set(), id="no role lifts it"),
        pytest.param({"max_unauthorised": 200, "roles": '["a", "b"]'}, 200, {"a", "b"}, id="JSON in a column"),
        pytest.param({"max_unauthorised": 200, "roles": "a, b c"}, 200, {"a", "b", "c"}, id="words in a column"),
    ],
)
def test_who_may_see_how_much(document: dict[str, Any], limit: int | None, roles: set[str] | None) -> None:
    entry = Entry.of({"url": "x", **document})
    assert (entry.max_unauthorised, entry.roles) == (limit, roles)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"url": ""},
        {"url": 5},
        {"url": "x", "page": 0},
        {"url": "x", "page": "2"},
        {"url": "x", "max_unauthorised": "400"},
        {"url": "x", "max_unauthorised": 400.5},
        {"url": "x", "max_unauthorised": True},
        {"url": "x", "max_unauthorised": -2},
        {"url": "x", "roles": {"staff": True}},
        {"url": "x", "roles": [1]},
        {"url": "x", "roles": "[broken"},
        {"url": "x", "rights": ["y"]},
        {"url": "x", "service": "text"},
        {"url": "x", "service": ["text"]},
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_never_an_open_image(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is for people, and json's differs
        Entry.of(document)
