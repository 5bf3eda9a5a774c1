"""What others do: image servers and mounts, as their packages install them.

Each is left out by name (`Absent`) where it is not installed.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.bench import Absent, Running
from tests.bench.webserver import nginx

IIPSRV = Path("/usr/lib/iipimage-server/iipsrv.fcgi")
"""Where Debian's iipimage-server puts it."""


@contextmanager
def iipsrv(folder: Path, masters: Path, *, processes: int = 1) -> Iterator[Running]:
    """Iipsrv behind nginx over a Unix socket, its cache of results off; it answers below `/iiif/`."""
    if not IIPSRV.exists():
        raise Absent("iipsrv (apt-get install iipimage-server)")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "iipsrv.sock"
    environ = {
        **os.environ,
        "FILESYSTEM_PREFIX": f"{masters}/",
        "MAX_IMAGE_CACHE_SIZE": "0",
        "JPEG_QUALITY": "85",
        "MAX_CVT": "10000",
        "VERBOSITY": "0",
        "LOGFILE": str(folder / "iipsrv.log"),
    }
    # FastCGI hands a process its listening socket as descriptor 0: several may share one.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1024)
        quiet = {"env": environ, "stdin": listener, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        servers = [subprocess.Popen([IIPSRV], **quiet) for _ in range(processes)]
    parameters = "".join(
        f"fastcgi_param {name} {value}; "
        for name, value in {
            "QUERY_STRING": "IIIF=$1",
            "REQUEST_METHOD": "$request_method",
            "REQUEST_URI": "$request_uri",
            "SERVER_PROTOCOL": "$server_protocol",
        }.items()
    )
    location = f"location ~ ^/iiif/(.*)$ {{ {parameters} fastcgi_pass unix:{path}; fastcgi_read_timeout 300s; }}"
    try:
        with nginx(folder / "front", location) as front:
            yield Running(front.url, (*front.processes, *(server.pid for server in servers)))
    finally:
        for server in servers:
            server.terminate()
            server.wait()
        with suppress(FileNotFoundError):
            path.unlink()
