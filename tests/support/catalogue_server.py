"""An HTTP catalogue in a process of its own: answers what a file says, and writes down what it was asked.

    python -m tests.support.catalogue_server PORT FOLDER

`FOLDER/images.json` maps identifiers to documents, and is read at every request; `"__status__"` in it is the status of
every answer, `"__wait_s__"` how long each takes. `FOLDER/requests.log` has a line per request: status, identifier.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from tests.support.servers import POLL_S, READY_WITHIN_S, free_ports

TOKEN = "opensesame"


class Handler(BaseHTTPRequestHandler):
    """Answers `GET /images/{id}`, if the token is right."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_GET(self) -> None:
        identifier = unquote(self.path.removeprefix("/images/"))
        images = json.loads((self.folder / "images.json").read_text())
        time.sleep(images.get("__wait_s__", 0))
        data = json.dumps(images.get(identifier)).encode()
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        status = images.get("__status__", 200 if identifier in images else 404)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 401
        elif status == 200 and self.headers.get("If-None-Match") == etag:
            status = 304
        with (self.folder / "requests.log").open("a") as log:
            log.write(f"{status} {identifier}\n")
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        """Nothing on standard error."""


@dataclass(frozen=True, slots=True)
class CatalogueServer:
    """A running catalogue."""

    url: str
    """With `{id}`."""
    folder: Path

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    def say(self, images: dict[str, Any]) -> None:
        """What it answers from now on."""
        whole = self.folder / "images.new"
        whole.write_text(json.dumps(images))
        whole.replace(self.folder / "images.json")

    def asked(self) -> list[str]:
        """A line for each request so far: status, identifier."""
        log = self.folder / "requests.log"
        return log.read_text().splitlines() if log.exists() else []


@contextmanager
def catalogue_server(folder: Path, images: dict[str, Any]) -> Iterator[CatalogueServer]:
    """Run one on a free port of the loopback address."""
    port = free_ports(1)[0]
    server = CatalogueServer(f"http://127.0.0.1:{port}/images/{{id}}", folder)
    server.say(images)
    server.token_file.write_text(f"{TOKEN}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.catalogue_server", str(port), str(folder)],
        cwd=Path(__file__).parents[2],
    )
    try:
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until and process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/images/none")
                break
            except httpx.TransportError:
                time.sleep(POLL_S)
        (folder / "requests.log").unlink()
        yield server
    finally:
        process.terminate()
        process.wait(READY_WITHIN_S)


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
