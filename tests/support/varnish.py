"""A running Varnish in front of a server, with its built-in rules."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import free_ports

VARNISH = shutil.which("varnishd") or shutil.which("varnishd", path="/usr/sbin")
_RULES = """
vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "%s"; }
sub vcl_deliver {
    set resp.http.X-Cache = "MISS";
    if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; }
}
"""


@contextmanager
def varnish(port: int, folder: Path) -> Iterator[str]:
    """Its address. Every answer says in X-Cache whether it came from the cache."""
    (folder / "rules.vcl").write_text(_RULES % port)
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    assert VARNISH is not None
    # Without a jail: its users may not enter the folders of tests.
    command = [
        VARNISH,
        "-j",
        "none",
        "-F",
        "-a",
        listen,
        "-f",
        folder / "rules.vcl",
        "-n",
        folder / "state",
        "-s",
        "malloc,64m",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://{listen}"
        finally:
            process.terminate()
