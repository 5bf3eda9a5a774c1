"""A running nginx with one of the configurations that the documentation names, as they stand but for the addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

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


def check(configuration: str, folder: Path) -> str:
    """What `nginx -t` says of a configuration: empty where all is well."""
    (folder / "nginx.conf").write_text(configuration)
    assert NGINX is not None
    command = [NGINX, "-p", folder, "-c", "nginx.conf", "-t", "-q"]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False).stderr
