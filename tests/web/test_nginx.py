"""The configurations of nginx that the documentation names are real, and leave no forwarded header to clients."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from special.web import proxies
from tests.support.nginx import EXAMPLES, OFFLOAD, SEVERAL_MACHINES, check, needs_nginx

pytestmark = [pytest.mark.service, needs_nginx]

TLS = EXAMPLES.joinpath("nginx.conf").read_text("utf-8")
BELIEVED = {
    *(f"X-Forwarded-{name}" for name in ("For", "Proto", "Host", "Port", "Prefix", "Path")),
    "Forwarded",
}


@pytest.mark.parametrize("path", [SEVERAL_MACHINES, OFFLOAD], ids=lambda path: path.name)
def test_the_files_are_configurations_as_they_stand(path: Path, tmp_path: Path) -> None:
    assert check(path.read_text(), tmp_path) == ""


def test_the_lines_for_tls_are_a_server(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.example.org")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    ).sign(key, hashes.SHA256())
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
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
        pytest.param(TLS, id="TLS"),
    ],
)
def test_no_forwarded_header_is_a_client_s_own(text: str) -> None:
    assert set(re.findall(r"proxy_set_header (\S*Forwarded\S*) ", text)) == BELIEVED


def test_those_are_all_that_special_believes() -> None:
    source = Path(proxies.__file__).read_text("utf-8")
    assert set(re.findall(r'b"((?:x-)?forwarded[a-z-]*)"', source)) == {name.lower() for name in BELIEVED}
