"""What is taken of access logs, and what never is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from special.compare.access_log import targets
from special.compare.sample import Request, below, draw, kind_of, read
from special.errors import ConfigurationError

TARGET = "/iiif/2/a%2Fb.tif/full/!200,200/0/default.jpg"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
COMBINED = (
    f'203.0.113.9 - alice [10/Oct/2025:13:55:36 +0000] "GET {TARGET} HTTP/1.1" 200 2326 '
    f'"https://ref.example/" "{AGENT}"'
)
ALB = (
    "https 2025-10-10T13:55:36.1Z app/lb/50dc 203.0.113.9:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "
    f'"GET https://images.example.org:443{TARGET} HTTP/1.1" "{AGENT}" ECDHE TLSv1.2 arn:aws:x "Root=1-58" "-" "-" 0'
)
CLOUDFRONT = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status "
    "cs(Referer) cs(User-Agent) cs-uri-query\n"
    "2025-10-10\t13:55:36\tLHR\t2326\t203.0.113.9\tGET\td111.cloudfront.net\t"
    "/iiif/2/a%252Fb.tif/full/!200,200/0/default.jpg\t200\t-\tMozilla/5.0%20(X11)\t-"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(COMBINED, [TARGET], id="combined"),
        pytest.param(f"images.example.org:443 {COMBINED}", [TARGET], id="virtual host"),
        pytest.param(ALB, [TARGET], id="ALB"),
        pytest.param(CLOUDFRONT, [TARGET], id="CloudFront"),
        pytest.param(json.dumps({"method": "GET", "path": TARGET, "status": 200}), [TARGET], id="special"),
        pytest.param(json.dumps({"request": f"GET {TARGET} HTTP/2.0", "remote_addr": "x"}), [TARGET], id="nginx JSON"),
        pytest.param(json.dumps({"request": {"method": "GET", "uri": TARGET}}), [TARGET], id="Caddy"),
        pytest.param(
            json.dumps({"httpRequest": {"requestMethod": "GET", "requestUrl": f"https://h{TARGET}"}}),
            [TARGET],
            id="Google",
        ),
        pytest.param(json.dumps({"cs-method": "GET", "cs-uri-stem": "/a%2520b"}), ["/a%20b"], id="CloudFront JSON"),
        pytest.param(f"https://images.example.org{TARGET}\n{TARGET}\n\n", [TARGET, TARGET], id="URLs"),
        pytest.param(COMBINED.replace("GET", "POST"), [None], id="another method"),
        pytest.param(json.dumps({"request": {"method": "POST", "uri": TARGET}}), [None], id="another method, JSON"),
        pytest.param('203.0.113.9 - - [x] "\\x16\\x03\\x01" 400 0 "-" "-"', [None], id="no HTTP"),
        pytest.param("{not JSON", [None], id="no JSON"),
        pytest.param("[1, 2]", [None], id="an array"),
        pytest.param('h - - [x] "GET /\\xC3\\xA9t\\xC3\\xA9.tif HTTP/1.1" 200 1', ["/%C3%A9t%C3%A9.tif"], id="bytes"),
        pytest.param("https://h/été.tif", ["/%C3%A9t%C3%A9.tif"], id="not ASCII"),
        pytest.param('h - - [x] "GET /a b.tif HTTP/1.1" 200 1', ["/a%20b.tif"], id="a space"),
    ],
)
def test_targets(text: str, found: list[str | None]) -> None:
    assert list(targets(text.splitlines())) == found


@pytest.mark.parametrize(
    ("target", "prefix", "path"),
    [
        ("/iiif/2/x/info.json", "/iiif/2/", "x/info.json"),
        ("/iiif/2/x/info.json?token=secret", "/iiif/2/", "x/info.json"),
        ("/iiif/3/x/info.json", "/iiif/2/", None),
        ("/iipsrv.fcgi?IIIF=/x/info.json&t=1", "/iipsrv.fcgi?IIIF=", "x/info.json"),
    ],
)
def test_what_is_below_a_prefix(target: str, prefix: str, path: str | None) -> None:
    assert below(target, prefix) == path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("x/info.json", "info.json"),
        ("x/full/max/0/default.jpg", "full"),
        ("a/b/c/full/pct:50/!90/gray.png", "full"),
        ("x/square/200,/0/default.jpg", "part"),
        ("x/0,0,512,512/256,/0/default.jpg", "part"),
        ("x/pct%3A0,0,50.5,50/256,/0/default.jpg", "part"),
        ("x/0%2C0%2C512%2C512/256%2C/0/default.jpg", "part"),
        ("x/full/200,/0/native", "full"),
        ("x", None),
        ("wp-login.php", None),
        ("x/y/max/0/default.jpg", None),
    ],
)
def test_kinds_of_requests(path: str, kind: str | None) -> None:
    assert kind_of(path) == kind


def test_a_log_is_counted_by_address(tmp_path: Path) -> None:
    lines = [COMBINED, COMBINED.replace("alice", "bob"), COMBINED.replace("!200,200", "max"), "robots", COMBINED]
    (tmp_path / "one.log").write_text("\n".join(lines[:3]))
    (tmp_path / "two.log.gz").write_bytes(gzip.compress("\n".join(lines[3:]).encode()))
    found = read([str(tmp_path / "one.log"), str(tmp_path / "two.log.gz")], prefix="/iiif/2/", limit=100)
    first, second = "a%2Fb.tif/full/!200,200/0/default.jpg", "a%2Fb.tif/full/max/0/default.jpg"
    assert found.requests == (Request(first, "full", 3), Request(second, "full", 1))
    assert (found.fitting, found.others) == (4, 1)


def test_a_sample_is_even_and_the_same_each_time() -> None:
    log = [f"/{number}/info.json" for number in range(10_000)]
    chosen = draw(log, prefix="/", limit=1000)
    assert (len(chosen.requests), chosen.fitting) == (1000, 10_000)
    assert chosen == draw(log, prefix="/", limit=1000)
    numbers = [int(it.path.partition("/")[0]) for it in chosen.requests]
    assert numbers == sorted(numbers)
    # Of each tenth of the log 100 are expected: 5 standard deviations of a hypergeometric distribution are 45.
    assert all(55 < sum(low <= it < low + 1000 for it in numbers) < 145 for low in range(0, 10_000, 1000))


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(COMBINED.encode() * 100)[:-20])
    for name in ("cut.gz", "none.log"):
        with pytest.raises(ConfigurationError, match=name):
            read([str(tmp_path / name)], prefix="/", limit=10)
