"""The configurations of nginx that the documentation names are real, and leave no forwarded header to clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from special.web import proxies
from tests.support.nginx import BELOW_A_PATH, EXAMPLES, OFFLOAD, SEVERAL_MACHINES, certify, check, needs_nginx

pytestmark = [pytest.mark.service, needs_nginx]

TLS = EXAMPLES.joinpath("nginx.conf").read_text("utf-8")
BELIEVED = {
    *(f"X-Forwarded-{name}" for name in ("For", "Proto", "Host", "Port", "Prefix", "Path")),
    "Forwarded",
}


@pytest.mark.parametrize("path", [SEVERAL_MACHINES, OFFLOAD, BELOW_A_PATH], ids=lambda path: path.name)
def test_the_files_are_configurations_as_they_stand(path: Path, tmp_path: Path) -> None:
    certify(tmp_path)
    assert check(path.read_text(), tmp_path) == ""


def test_the_lines_for_tls_are_a_server(tmp_path: Path) -> None:
    certify(tmp_path)
    server = re.sub(r"ssl_certificate \S+;", f"ssl_certificate {tmp_path}/certificate.pem;", TLS)
    server = re.sub(r"ssl_certificate_key \S+;", f"ssl_certificate_key {tmp_path}/key.pem;", server)
    # 443 needs a privilege, even for a check.
    server = re.sub(r"listen 443 ", "listen 8443 ", server)
    paths = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = f"pid nginx.pid; error_log error.log; events {{}} http {{ access_log off; {paths} {server} }}"
    assert check(text, tmp_path) == ""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(SEVERAL_MACHINES.read_text(), id="several machines"),
        pytest.param(OFFLOAD.read_text(), id="offload"),
        pytest.param(BELOW_A_PATH.read_text(), id="below a path"),
        pytest.param(TLS, id="TLS"),
    ],
)
def test_no_forwarded_header_is_a_client_s_own(text: str) -> None:
    assert set(re.findall(r"proxy_set_header (\S*Forwarded\S*) ", text)) == BELIEVED


def test_those_are_all_that_special_believes() -> None:
    source = Path(proxies.__file__).read_text("utf-8")
    assert set(re.findall(r'b"((?:x-)?forwarded[a-z-]*)"', source)) == {name.lower() for name in BELIEVED}
