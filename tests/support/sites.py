"""Another site than the image server: pages and folders of files on the loopback address, under another host name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


class _Site(SimpleHTTPRequestHandler):
    """Pages by their names, and files below the folders of the others."""

    def __init__(self, content: Mapping[str, str | Path], *arguments: object) -> None:
        self._content = content
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        name, _, rest = unquote(urlsplit(path).path)[1:].partition("/")
        folder = self._content.get(name)
        return str(folder / rest) if isinstance(folder, Path) else ""

    def do_GET(self) -> None:
        name = urlsplit(self.path).path[1:]
        page = "" if name == "favicon.ico" else self._content.get(name)
        if not isinstance(page, str):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def site(content: Mapping[str, str | Path]) -> Iterator[str]:
    """Serve pages, given as HTML, and folders; gives the address. What is added later is served too."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, content)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()
