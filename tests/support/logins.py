"""Tokens as login pages make them, good and bad, and such a page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt

SECRET = b"a secret of this test suite, known to nobody else at all, and 64 bytes"
ISSUER = "https://login.example.org"


def token(*roles: str, lasts_s: float = 3600, key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A JWT; `claims` replace or add some, and those that are None are left out."""
    content = {"iss": ISSUER, "roles": list(roles), "exp": int(time.time() + lasts_s)} | claims
    headers = {"kid": content.pop("kid")} if "kid" in content else None
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm=algorithm, headers=headers)


class LoginPage(BaseHTTPRequestHandler):
    """Somebody else's login page: whoever presses its button is a reader."""

    def do_GET(self) -> None:
        entered = self.path.startswith("/in")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        if entered:  # cookies know no ports: it is sent to the image server too
            self.send_header("Set-Cookie", f"login={token('reader')}; Path=/; HttpOnly; SameSite=Lax")
        self.end_headers()
        self.wfile.write(b"<script>close()</script>" if entered else b"<form action=in><button>I am a reader</button>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def login_page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), LoginPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
