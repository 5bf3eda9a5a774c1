"""What others do: image servers and mounts, as their packages install them.

Each is left out by name (`Absent`) where it is not installed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.bench import Absent, Running, found
from tests.bench.webserver import nginx
from tests.support.servers import POLL_S, S3Server

IIPSRV = Path("/usr/lib/iipimage-server/iipsrv.fcgi")
"""Where Debian's iipimage-server puts it."""
MOUNTED_WITHIN_S = 10.0


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


@contextmanager
def s3fs(folder: Path, bucket: str, s3: S3Server) -> Iterator[Path]:
    """A bucket mounted by s3fs, which reads what is asked for and ahead; yields the mount point."""
    tool = found("s3fs", "apt-get install s3fs")
    folder.mkdir(parents=True)
    secret = folder / "secret"
    secret.write_text(f"{s3.access_key}:{s3.secret_key}")
    secret.chmod(0o600)
    options = f"url={s3.endpoint},use_path_request_style,passwd_file={secret}"
    with _mounted([tool, bucket, str(folder / "mount"), "-f", "-o", options], folder / "mount", {}) as mount:
        yield mount


@contextmanager
def rclone(folder: Path, bucket: str, s3: S3Server) -> Iterator[Path]:
    """A bucket mounted by rclone with its full cache on disk; yields the mount point."""
    tool = found("rclone", "apt-get install rclone")
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": s3.endpoint,
        "ACCESS_KEY_ID": s3.access_key,
        "SECRET_ACCESS_KEY": s3.secret_key,
        "FORCE_PATH_STYLE": "true",
    }
    environ = {f"RCLONE_CONFIG_STORE_{name}": value for name, value in remote.items()} | {"RCLONE_CONFIG": os.devnull}
    cache = ["--vfs-cache-mode", "full", "--cache-dir", str(folder / "cache")]
    command = [tool, "mount", f"store:{bucket}", str(folder / "mount"), "--read-only", *cache]
    with _mounted(command, folder / "mount", environ) as mount:
        yield mount


@contextmanager
def _mounted(command: list[str], mount: Path, environ: dict[str, str]) -> Iterator[Path]:
    """A FUSE mount for as long as its process runs. Raises `Absent` where mounting is not allowed."""
    mount.mkdir(parents=True)
    # rclone refuses a bundle of certificates, which plain HTTP does not need.
    inherited = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    process = subprocess.Popen(
        command,
        env=inherited | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + MOUNTED_WITHIN_S
        while not mount.is_mount():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Absent(f"{Path(command[0]).name} that may mount (FUSE)")
            time.sleep(POLL_S)
        yield mount
    finally:
        if mount.is_mount():
            subprocess.run([found("fusermount3", "apt-get install fuse3"), "-u", "-z", str(mount)], check=True)
        process.terminate()
        process.wait()
