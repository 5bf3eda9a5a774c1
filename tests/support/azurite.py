"""Azurite, Microsoft's emulator of Azure's blob store, from npm: installed once, outside the repository."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from uuid import uuid4

from tests.support.servers import POLL_S, READY_WITHIN_S, free_ports

VERSION = "3.35.0"
NPM = shutil.which("npm")
ACCOUNT = "devstoreaccount1"
# Everybody's: Azurite's documentation prints it, and it opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A running emulator."""

    endpoint: str
    """With the account, as the emulator's addresses have it."""

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that point a client at this server."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }

    def container(self) -> str:
        """The name of a new, empty container."""
        name = f"test-{uuid4().hex[:12]}"
        self._put(name, query={"restype": "container"})
        return name

    def put(self, path: str, data: bytes) -> None:
        """Store a blob as somebody else would."""
        self._put(path, body=data, headers={"x-ms-blob-type": "BlockBlob", "content-type": "image/test"})

    def _put(
        self,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        headers = {
            "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True),
            "x-ms-version": "2021-08-06",
            **(headers or {}),
        }
        import httpx

        url = httpx.URL(f"{self.endpoint}/{path}", params=query)
        # Azure Storage REST, "Authorize with Shared Key": eleven standard headers, the x-ms- ones, the resource.
        length = str(len(body)) if body else ""
        standard = ["PUT", "", "", length, "", headers.get("content-type", ""), *[""] * 6]
        own = [f"{name}:{value}" for name, value in sorted(headers.items()) if name.startswith("x-ms-")]
        resource = [
            f"/{ACCOUNT}{url.raw_path.decode().partition('?')[0]}",
            *(f"{n}:{v}" for n, v in (query or {}).items()),
        ]
        text = "\n".join([*standard, *own, *resource])
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
        headers["authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        httpx.put(url, content=body, headers=headers).raise_for_status()


@contextmanager
def azurite() -> Iterator[AzureServer]:
    """A running emulator that keeps everything in memory, on a free port of the loopback address."""
    (port,) = free_ports(1)
    command = [_installed(), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--disableTelemetry"]
    with subprocess.Popen([*command, "--inMemoryPersistence", "--skipApiVersionCheck"]) as process:
        try:
            _wait_until_ready(process, port)
            yield AzureServer(f"http://127.0.0.1:{port}/{ACCOUNT}")
        finally:
            process.kill()


def _installed() -> Path:
    """The command, fetched by npm if no earlier run has."""
    folder = Path(tempfile.gettempdir()) / f"special-azurite-{VERSION}-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    command = folder / "node_modules" / ".bin" / "azurite-blob"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not command.exists():
            assert NPM is not None
            quiet = ["--silent", "--no-audit", "--no-fund"]
            subprocess.run([NPM, "install", f"azurite@{VERSION}", *quiet], cwd=folder, check=True)
    return command


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    raise RuntimeError("Azurite did not become ready")
