"""nginx, as three things: a store that answers like S3, a front for FastCGI, and a proxy.

As a store it is the quickest there is: GET, HEAD, ranges, ETag, If-Match and If-None-Match of
files in a folder. It checks no signature and can neither list nor write.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.bench.bench import Running, found
from tests.support.servers import NO_OTHER_AWS, POLL_S, READY_WITHIN_S, free_ports

_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  open_file_cache max=10000;
  sendfile on;
  types {{ image/jpeg jpg; application/json json; }}
  default_type application/octet-stream;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {http}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /ready {{ return 204; }}
    {server}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, server: str, *, http: str = "") -> Iterator[Running]:
    """A server on a free port with these directives in its server block and around it."""
    tool = found("nginx", "apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, server=server, http=http))
    # The user only counts where the master process is root, whose files its workers must read.
    options = ["-c", str(configuration), "-e", str(folder / "error.log"), "-g", "user root;"]
    process = subprocess.Popen([tool, *options], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, folder / "error.log")
        yield Running(url, (process.pid,))
    finally:
        process.terminate()
        process.wait()


@contextmanager
def store(folder: Path, root: Path, *, more: str = "") -> Iterator[dict[str, str]]:
    """A store whose buckets are the folders in `root`; yields the environment that points S3 clients at it.

    `more` are directives beside that.
    """
    with nginx(folder, f"root {root}; {more}") as server:
        yield {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_REGION": "us-east-1",
            **NO_OTHER_AWS,
        }


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/ready").raise_for_status()
        except httpx.TransportError:
            time.sleep(POLL_S)
        else:
            return
    raise RuntimeError(f"nginx did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
