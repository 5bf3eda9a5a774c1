"""Hosts, proxies and clients, and what of a stranger's words is believed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from special.errors import BadRequest, ConfigurationError, Misdirected
from special.settings import load
from special.web.proxies import PublicAddress
from special.web.request import HttpRequest

PROXY, STRANGER = "10.0.0.9", "203.0.113.5"
NEAR = {"trusted_proxies": f"{PROXY},::1"}


def address(**settings: Any) -> PublicAddress:
    known = load(source="x", **settings)
    return PublicAddress.of(known.base_url, trusted_proxies=known.trusted_proxies, allowed_hosts=known.allowed_hosts)


def scope(peer: str = STRANGER, sent: dict[bytes, bytes] | None = None) -> dict[str, Any]:
    client = (peer, 4711) if peer else None
    return {"type": "http", "scheme": "http", "client": client, "headers": list((sent or {}).items())}


def headers(**named: str) -> dict[bytes, bytes]:
    return {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in named.items()}


@pytest.mark.parametrize(
    ("settings", "peer", "sent", "base"),
    [
        pytest.param({}, STRANGER, {"host": "a.example"}, "http://a.example", id="its own host"),
        pytest.param({}, STRANGER, {"host": "[::1]:8000"}, "http://[::1]:8000", id="an address"),
        pytest.param(
            NEAR,
            STRANGER,
            {"host": "a.example", "x_forwarded_host": "evil.example", "x_forwarded_proto": "https"},
            "http://a.example",
            id="a stranger forwards nothing",
        ),
        pytest.param(
            NEAR,
            PROXY,
            {"host": "inner", "x_forwarded_host": "a.example, b", "x_forwarded_proto": "https"},
            "https://a.example",
            id="a trusted proxy does",
        ),
        pytest.param(
            NEAR,
            PROXY,
            {"host": "inner", "x_forwarded_host": "a.example", "x_forwarded_proto": "HTTPS"},
            "https://a.example",
            id="a scheme in capitals",
        ),
        pytest.param(
            NEAR,
            PROXY,
            {"host": "a.example", "x_forwarded_proto": "https", "x_forwarded_port": "8443"},
            "https://a.example:8443",
            id="a port",
        ),
        pytest.param(
            NEAR,
            PROXY,
            {"host": "a.example", "x_forwarded_proto": "https", "x_forwarded_port": "443"},
            "https://a.example",
            id="the scheme's own port",
        ),
        pytest.param(
            NEAR,
            PROXY,
            {"host": "a.example", "x_forwarded_for": STRANGER, "x_forwarded_prefix": "/images/"},
            "http://a.example/images",
            id="a path prefix",
        ),
        pytest.param(
            NEAR,
            PROXY,
            {"host": "inner", "forwarded": 'for=192.0.2.43;proto=https;host="a.example:8443", for=10.0.0.9'},
            "https://a.example:8443",
            id="RFC 7239",
        ),
        pytest.param(
            {"trusted_proxies": "10.0.0.0/8"},
            PROXY,
            {"host": "inner", "x_forwarded_host": "a.example"},
            "http://a.example",
            id="a network",
        ),
        pytest.param(
            {"trusted_proxies": "unix"},
            "",
            {"host": "inner", "x_forwarded_host": "a.example"},
            "http://a.example",
            id="a Unix socket",
        ),
        pytest.param(
            {"trusted_proxies": "*"},
            STRANGER,
            {"host": "inner", "x_forwarded_host": "a.example"},
            "http://a.example",
            id="any peer",
        ),
        pytest.param({"base_url": "https://a.example/"}, STRANGER, {"host": "b"}, "https://a.example", id="by setting"),
        pytest.param(
            {"base_url": "https://a.example", "allowed_hosts": "*.example"},
            STRANGER,
            {"host": "B.example:80"},
            "https://a.example",
            id="by setting, where hosts are listed",
        ),
    ],
)
def test_the_base_url(settings: dict[str, str], peer: str, sent: dict[str, str], base: str) -> None:
    assert address(**settings).base(scope(peer), headers(**sent)) == base


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({}, id="none"),
        pytest.param({"host": "a\r\nset-cookie: x"}, id="CR LF"),
        pytest.param({"host": "a\nb"}, id="LF"),
        pytest.param({"host": "a/../b"}, id="a path"),
        pytest.param({"host": "user@a"}, id="a user"),
        pytest.param({"host": "a:port"}, id="no port"),
        pytest.param({"host": "a", "x_forwarded_host": "b\r\nx: y"}, id="CR LF, forwarded"),
        pytest.param({"host": "a", "x_forwarded_proto": "http\r\nx: y"}, id="CR LF as a scheme"),
        pytest.param({"host": "a", "x_forwarded_proto": "javascript"}, id="another scheme"),
        pytest.param({"host": "a", "x_forwarded_for": "::1", "x_forwarded_prefix": "//b"}, id="no path"),
    ],
)
def test_what_is_no_host_is_refused(sent: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        address(**NEAR).base(scope(PROXY), headers(**sent))


@pytest.mark.parametrize(
    ("host", "served"),
    [
        pytest.param("images.example.org", True, id="named"),
        pytest.param("IMAGES.example.org:8443", True, id="in capitals, with a port"),
        pytest.param("a.b.example.net", True, id="by pattern"),
        pytest.param("example.net", False, id="not by pattern"),
        pytest.param("images.example.org.evil.example", False, id="longer"),
        pytest.param("ximages.example.org", False, id="more before it"),
        pytest.param("127.0.0.1", False, id="an address"),
    ],
)
def test_only_hosts_that_are_allowed_are_served(host: str, served: bool) -> None:
    chosen = address(allowed_hosts="images.example.org, *.example.net")
    if served:
        assert chosen.base(scope(), headers(host=host)) == f"http://{host}"
    else:
        with pytest.raises(Misdirected, match="does not answer for"):
            chosen.base(scope(), headers(host=host))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param(STRANGER, None, STRANGER, id="nobody between"),
        pytest.param(STRANGER, "198.51.100.1", STRANGER, id="a stranger speaks for nobody"),
        pytest.param(PROXY, "198.51.100.1", "198.51.100.1", id="a proxy does"),
        pytest.param(PROXY, "6.6.6.6, 198.51.100.1", "198.51.100.1", id="what was there before is not believed"),
        pytest.param(PROXY, "198.51.100.1, ::1", "198.51.100.1", id="two proxies"),
        pytest.param(PROXY, "", PROXY, id="an empty one"),
        pytest.param(PROXY, "198.51.100.1, x', DROP TABLE", PROXY, id="what is no address"),
        pytest.param(PROXY, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="an IPv6 address, by its network"),
        pytest.param(PROXY, "::ffff:198.51.100.1", "198.51.100.1", id="an IPv4 address written as IPv6"),
    ],
)
def test_who_asks(peer: str, forwarded: str | None, client: str) -> None:
    sent = {} if forwarded is None else {"x_forwarded_for": forwarded}
    assert address(**NEAR).client(scope(peer), headers(**sent)) == client


def test_two_host_headers_are_refused() -> None:
    twice = {**scope(), "headers": [(b"host", b"a.example"), (b"host", b"evil.example")]}
    with pytest.raises(BadRequest, match="more than one Host"):
        address().base(twice, headers(host="evil.example"))


@pytest.mark.parametrize("name", ["proxy.example", "10.0.0.0/99", "10.0.0"])
def test_a_proxy_is_named_by_its_address(name: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"'{name}' is no address")):
        address(trusted_proxies=name)


def test_untrusted_headers_are_reported_once_for_each_peer(caplog: pytest.LogCaptureFixture) -> None:
    chosen, sent = address(**NEAR), headers(host="a.example", x_forwarded_for="198.51.100.1")
    for _ in range(3):
        chosen.client(scope(STRANGER), sent)
    assert [it.message for it in caplog.records] == [
        f"forwarded headers from {STRANGER} are ignored: it is not in trusted_proxies"
    ]


@pytest.mark.parametrize(
    ("settings", "peer", "sent", "shared"),
    [
        pytest.param({}, STRANGER, {"host": "a.example"}, True, id="its own host"),
        pytest.param(NEAR, PROXY, {"host": "A.example", "x_forwarded_host": "a.example"}, True, id="the same host"),
        pytest.param(NEAR, PROXY, {"host": "inner", "x_forwarded_host": "a.example"}, False, id="another host"),
        pytest.param(NEAR, PROXY, {"host": "inner", "forwarded": "host=a.example"}, False, id="by RFC 7239"),
        pytest.param(NEAR, PROXY, {"host": "a", "x_forwarded_for": "::1", "x_forwarded_port": "8"}, False, id="port"),
        pytest.param(
            NEAR, PROXY, {"host": "a", "x_forwarded_for": "::1", "x_forwarded_prefix": "/b"}, False, id="path"
        ),
        pytest.param(NEAR, PROXY, {"host": "a.example", "x_forwarded_proto": "https"}, True, id="the scheme alone"),
        pytest.param(NEAR, STRANGER, {"host": "a.example", "x_forwarded_host": "b"}, True, id="what is not believed"),
        pytest.param(
            NEAR | {"allowed_hosts": "a.example"},
            PROXY,
            {"host": "inner", "x_forwarded_host": "a.example"},
            True,
            id="hosts by setting",
        ),
        pytest.param(
            NEAR | {"base_url": "https://a.example"},
            PROXY,
            {"host": "inner", "x_forwarded_host": "b.example"},
            True,
            id="base by setting",
        ),
    ],
)
def test_caches_share_what_the_host_header_or_a_setting_names(
    settings: dict[str, str], peer: str, sent: dict[str, str], shared: bool
) -> None:
    assert address(**settings).is_shareable(scope(peer), headers(**sent)) is shared


@pytest.mark.parametrize(
    ("peer", "place", "offered"),
    [
        pytest.param(PROXY, "/_stored", True, id="a trusted proxy"),
        pytest.param(PROXY, "/_other", False, id="another location"),
        pytest.param(PROXY, "", False, id="no location"),
        pytest.param(STRANGER, "/_stored", False, id="a stranger"),
    ],
)
def test_offload_is_offered_by_trusted_proxies_at_the_location_of_the_settings(
    peer: str, place: str, offered: bool
) -> None:
    asked = scope(peer, headers(host="a.example", x_offload_to=place)) | {"method": "GET", "query_string": b""}
    request = HttpRequest.of(asked, "thumbs", "a/info.json", address=address(**NEAR), arrived_s=0.0)
    assert request.offers_offload("/_stored") is offered
