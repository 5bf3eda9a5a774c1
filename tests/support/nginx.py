"""A running nginx with one of the configurations that the documentation names, as they stand but for the addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.servers import free_ports

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
EXAMPLES = Path(__file__).parents[2] / "special" / "docs" / "examples"
SEVERAL_MACHINES, OFFLOAD, BELOW_A_PATH = (
    EXAMPLES / f"nginx-{name}.conf" for name in ("several-machines", "offload", "below-a-path")
)
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")
_LISTEN = re.compile(r"^( +listen )\S+?( .*)?;$", re.MULTILINE)
_SERVERS = re.compile(r"^( +server )\S+?( .*)?;$(\n\1.*;$)*", re.MULTILINE)


@contextmanager
def nginx(configuration: Path, folder: Path, servers: Sequence[str]) -> Iterator[str]:
    """A running nginx before some servers, each as `host:port`; its address."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    text, listens = _LISTEN.subn(rf"\g<1>{listen}\g<2>;", configuration.read_text())
    text, upstreams = _SERVERS.subn(
        lambda found: "\n".join(f"{found[1]}{server}{found[2] or ''};" for server in servers), text
    )
    assert (listens, upstreams) == (1, 1)
    (folder / "nginx.conf").write_text(text)
    assert NGINX is not None
    with subprocess.Popen([NGINX, "-p", folder, "-c", "nginx.conf", "-g", "daemon off;"]) as process:
        try:
            yield f"{'https' if ' ssl' in text else 'http'}://{listen}"
        finally:
            process.terminate()


def certify(folder: Path) -> None:
    """Write `certificate.pem` and `key.pem`: a certificate by nobody, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.example.org")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    valid = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = valid.sign(key, hashes.SHA256())
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)


def check(configuration: str, folder: Path) -> str:
    """What `nginx -t` says of a configuration: empty where all is well."""
    (folder / "nginx.conf").write_text(configuration)
    assert NGINX is not None
    command = [NGINX, "-p", folder, "-c", "nginx.conf", "-t", "-q"]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False).stderr
