"""Object stores for tests: moto in a thread, SeaweedFS in a process, both on loopback.

Moto is quick and forgiving. SeaweedFS is a real S3 server: it checks signatures, honours If-Match
and ranges, and writes an audit log of every request, which `RequestLog` takes down. moto and boto3
are imported where they are used: they take a second, and most tests need neither.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

READY_WITHIN_S = 60.0
POLL_S = 0.1
WEED = Path(sys.executable).with_name("weed")
"""Where pip puts it; the virtual environment need not be active."""
NO_OTHER_AWS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Variables that keep a client away from the configuration and the role of whoever runs the tests."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One line of the S3 server's own audit log."""

    operation: str
    """As S3 server access logs name it: `REST.GET.OBJECT`, `REST.HEAD.OBJECT`, …"""
    bucket: str
    key: str
    status: int


@dataclass(slots=True)
class RequestLog:
    """What an S3 server wrote down of the requests that it answered."""

    _lines: list[LoggedRequest] = field(default_factory=list)
    _grown: threading.Condition = field(default_factory=threading.Condition)

    def add(self, line: LoggedRequest) -> None:
        """Take down one line; called by the thread that listens to the server."""
        with self._grown:
            self._lines.append(line)
            self._grown.notify_all()

    def length(self) -> int:
        """How many lines there are; a place in the log to read on from."""
        with self._grown:
            return len(self._lines)

    def wait_for(self, key: str) -> list[LoggedRequest]:
        """All lines, once there is one that names `key`."""
        with self._grown:
            if not self._grown.wait_for(lambda: any(line.key == key for line in self._lines), READY_WITHIN_S):
                raise TimeoutError(f"the S3 server never logged a request for {key}")
            return list(self._lines)


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server and the credentials that it accepts."""

    endpoint: str
    access_key: str
    secret_key: str
    log: RequestLog | None = None
    """Its own request log, where it keeps one."""
    region: str = "us-east-1"
    pid: int | None = None
    """Its process, where it has one of its own."""

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that point any AWS client at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            **NO_OTHER_AWS,
        }

    def client(self) -> Any:
        """A boto3 client, for what a test sets up and looks at behind special's back."""
        return _client(self.endpoint, self.access_key, self.secret_key, self.region)

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"test-{uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def logged(self, bucket: str) -> list[LoggedRequest]:
        """Every request on a bucket so far, from the server's own log; waits until the log has caught up."""
        assert self.log is not None, "this server keeps no log"
        from botocore.exceptions import ClientError

        marker = f"marker-{uuid4().hex}"
        with suppress(ClientError):
            self.client().head_object(Bucket=bucket, Key=marker)
        lines = self.log.wait_for(marker)
        return [line for line in lines if line.bucket == bucket and not line.key.startswith("marker-")]


@cache
def _client(endpoint: str, access_key: str, secret_key: str, region: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


@contextmanager
def moto() -> Iterator[S3Server]:
    """Moto's server in a thread, on a free port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", "testing", "testing-secret")
    finally:
        server.stop()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class _AuditSink(socketserver.ThreadingTCPServer):
    """Takes the audit log that SeaweedFS sends in fluentd's forward protocol, as JSON."""

    daemon_threads = True

    def __init__(self) -> None:
        self.log = RequestLog()
        super().__init__(("127.0.0.1", 0), _AuditLines)


class _AuditLines(socketserver.BaseRequestHandler):
    """One connection: a stream of `["tag", time, {record}, {}]` without separators."""

    server: _AuditSink

    def handle(self) -> None:
        decoder, text, pending = json.JSONDecoder(), "", b""
        while received := self.request.recv(65536):
            pending += received
            with suppress(UnicodeDecodeError):  # the piece ends inside a character: take the next one with it
                text, pending = text + pending.decode(), b""
            with suppress(json.JSONDecodeError):  # the same for a message
                while text:
                    (_, _, record, _), end = decoder.raw_decode(text)
                    text = text[end:].lstrip()
                    self.server.log.add(
                        LoggedRequest(record["operation"], record["bucket"], record["key"], int(record["status"]))
                    )


@contextmanager
def seaweed(folder: Path, *, audited: bool = True) -> Iterator[S3Server]:
    """SeaweedFS with an S3 gateway, its data in `folder`, on free ports of the loopback address.

    Unless it is `audited` it keeps no log: a million lines are no small matter.
    """
    access_key, secret_key = "special", "a-secret-of-forty-characters-for-testing"
    with ExitStack() as stack:
        sink = stack.enter_context(_listening()) if audited else None
        _write_config(folder, access_key, secret_key)
        http, grpc = free_ports(4), free_ports(4)
        ports = dict(zip(("master", "volume", "filer", "s3"), zip(http, grpc, strict=True), strict=True))
        audit = [_audit_flag(folder, sink.server_address[1])] if sink else []
        log = stack.enter_context((folder / "weed.log").open("wb"))
        process = subprocess.Popen(
            [WEED, "-logtostderr=true", "-v=-1", "server", *_flags(folder, ports), *audit],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)  # a graceful stop takes 10 s, and nobody wants the data
        endpoint, audited_log = f"http://127.0.0.1:{ports['s3'][0]}", sink.log if sink else None
        server = S3Server(endpoint, access_key, secret_key, audited_log, pid=process.pid)
        _wait_until_ready(server, process, folder / "weed.log")
        yield server


@contextmanager
def _listening() -> Iterator[_AuditSink]:
    with _AuditSink() as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        try:
            yield sink
        finally:
            sink.shutdown()


def _audit_flag(folder: Path, sink_port: int) -> str:
    audit = {"fluent_network": "tcp", "fluent_host": "127.0.0.1", "fluent_port": sink_port, "marshal_as_json": True}
    (folder / "audit.json").write_text(json.dumps(audit))
    return f"-s3.auditLogConfig={folder / 'audit.json'}"


def _write_config(folder: Path, access_key: str, secret_key: str) -> None:
    identity = {
        "name": "special",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    # Every bucket is a collection with volumes of its own; seven of each, the default, would soon be too many.
    growth = "".join(f"copy_{copies} = 1\n" for copies in ("1", "2", "3", "other"))
    (folder / "master.toml").write_text(f"[master.volume_growth]\n{growth}")
    (folder / "data").mkdir()


def _flags(folder: Path, ports: dict[str, tuple[int, int]]) -> list[str]:
    flags = [
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-s3.config={folder / 'identities.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    for name, (port, grpc) in ports.items():
        flags += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    return flags


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.create_bucket(Bucket="readiness")
            client.put_object(Bucket="readiness", Key="probe", Body=b"ready")
        except (BotoCoreError, ClientError):
            time.sleep(POLL_S)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
