"""Which form of info.json an Accept header gets, by RFC 9110, section 12.5.1."""

from __future__ import annotations

import pytest

from special.iiif import Version
from special.web.negotiation import Form, preferred

LD, JSON = "application/ld+json", "application/json"
OF_2, OF_3 = (f'{LD};profile="http://iiif.io/api/image/{version}/context.json"' for version in (2, 3))
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "named", "version", "media"),
    [
        pytest.param("", None, 3, LD, id="nothing is said"),
        pytest.param("*/*", None, 3, LD, id="anything"),
        pytest.param(BROWSER, None, 3, LD, id="a browser"),
        pytest.param("image/*", None, 3, LD, id="only what is not offered"),
        pytest.param(JSON, None, 3, JSON, id="plain JSON"),
        pytest.param(f"{JSON}, {LD};q=0.5", None, 3, JSON, id="plain JSON rather than JSON-LD"),
        pytest.param(f"{LD};q=0, {JSON}", None, 3, JSON, id="no JSON-LD"),
        pytest.param(OF_2, None, 2, LD, id="2"),
        pytest.param(OF_2.replace(";", " ; "), None, 2, LD, id="2 with blanks"),
        pytest.param(OF_2.replace('"', "'"), None, 2, LD, id="2 in single quotes"),
        pytest.param(OF_2.replace("http:", "https:"), None, 2, LD, id="2 with https"),
        pytest.param(
            OF_2.upper().replace("HTTP://IIIF.IO/API/IMAGE/2/CONTEXT.JSON", OF_2[29:-1]), None, 2, LD, id="case"
        ),
        pytest.param(OF_2.replace(LD, JSON), None, 2, JSON, id="2 as plain JSON"),
        pytest.param(f"{OF_2};q=0.5, {OF_3}", None, 3, LD, id="3 rather than 2"),
        pytest.param(f"{OF_3}, {OF_2};q=0.1", None, 3, LD, id="3, or 2"),
        pytest.param(f"{OF_2}, {OF_3};q=0.9", None, 2, LD, id="2 rather than 3"),
        pytest.param(f"{OF_2}, */*;q=0.1", None, 2, LD, id="2, or anything"),
        pytest.param(f"{OF_2};q=0, */*", None, 3, LD, id="anything but 2"),
        pytest.param(f"{OF_3};q=0, {LD}", None, 2, LD, id="anything but 3"),
        pytest.param(f'text/x;a="1,{LD}"', None, 3, LD, id="a comma in quotes"),
        pytest.param(f"{LD};q=abc, {JSON}", None, 3, JSON, id="no number"),
        pytest.param(BROWSER, 2, 2, JSON, id="2 by its address"),
        pytest.param(LD, 2, 2, LD, id="2 by its address, as JSON-LD"),
        pytest.param(OF_3, 2, 2, JSON, id="2 by its address, whatever Accept says"),
        pytest.param(JSON, 3, 3, JSON, id="3 by its address, as plain JSON"),
    ],
)
def test_what_is_preferred(accept: str, named: Version | None, version: Version, media: str) -> None:
    assert preferred(accept, named) == Form(version, media)  # type: ignore[arg-type]


@pytest.mark.parametrize("accept", ['"' * 60_000, '"\\' * 30_000, ";" * 60_000, "a;b=" * 15_000, "," * 60_000])
def test_a_hostile_header_takes_no_time(accept: str) -> None:
    assert preferred(accept, None) == Form(3, "application/ld+json")  # without its bound it takes minutes
