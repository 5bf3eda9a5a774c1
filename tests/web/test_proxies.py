"""Hosts, proxies and clients, and what of a stranger's words is believed."""

from __future__ import annotations

from typing import Any

import pytest

from special.errors import BadRequest, Misdirected
from special.settings import load
from special.web.proxies import PublicAddress

PROXY, STRANGER = "10.0.0.9", "203.0.113.5"
NEAR = {"trusted_proxies": f"{PROXY},::1"}


def address(**settings: Any) -> PublicAddress:
    known = load(source="x", **settings)
    return PublicAddress.of(known.base_url, trusted_proxies=known.trusted_proxies, allowed_hosts=known.allowed_hosts)


def scope(peer: str = STRANGER) -> dict[str, Any]:
    return {"type": "http", "scheme": "http", "client": (peer, 4711)}


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
    ],
)
def test_who_asks(peer: str, forwarded: str | None, client: str) -> None:
    sent = {} if forwarded is None else {"x_forwarded_for": forwarded}
    assert address(**NEAR).client(scope(peer), headers(**sent)) == client
