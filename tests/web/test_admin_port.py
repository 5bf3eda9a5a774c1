"""Metrics and status on a port of their own, which the public one does not have then."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from special.machine import raise_descriptor_limit
from tests.conftest import Serve
from tests.support import live
from tests.support.live import MASTERS
from tests.support.servers import free_ports
from tests.support.waiting import wait_until


def test_metrics_and_status_have_a_port_of_their_own(serve: Serve) -> None:
    admin = free_ports(1)[0]
    server = serve(MASTERS, settings={"SPECIAL_ADMIN_PORT": str(admin), "SPECIAL_STATUS": "true"}, workers=2)
    pages = ("/metrics", "/status", "/status/figures.json", "/livez", "/readyz", "/", "/iiif/3/map.jp2/info.json")
    statuses = {
        base: [httpx.get(f"{base}{page}").status_code for page in pages]
        for base in (server.url, f"http://127.0.0.1:{admin}")
    }
    assert [*statuses.values()] == [[404, 404, 404, 200, 200, 200, 200], [200, 200, 200, 200, 200, 404, 404]]
    assert b"special_answers_total" in httpx.get(f"http://127.0.0.1:{admin}/metrics").content


@pytest.mark.service
def test_a_process_may_have_as_many_descriptors_as_the_system_permits(serve: Serve) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = serve(MASTERS)
    with open(f"/proc/{server.process.pid}/limits") as limits:
        (line,) = (line for line in limits if line.startswith("Max open files"))
    soft = int(line.split()[3])
    assert soft == min(hard, 1 << 20) if hard > 0 else soft == 1 << 20
    raise_descriptor_limit()  # once more does no harm


@pytest.mark.service
def test_health_is_told_when_connections_want_more_descriptors_than_there_are(tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    with live.special(MASTERS, home=tmp_path, settings={"SPECIAL_RECEIVE_S": "600"}, before=limited) as server:
        assert "there are 128 connections at most and not 4096" in server.log.read_text()
        port = int(server.url.rpartition(":")[2])
        with ExitStack() as opened:
            clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(300)]
            wait_until(lambda: sum(_has_ended(it) for it in clients) >= 300 - 128 - 16)
            assert httpx.get(f"{server.url}/livez").status_code == 200
            assert httpx.get(f"{server.url}/iiif/3/map.jp2/info.json").status_code == 503
        wait_until(lambda: httpx.get(f"{server.url}/iiif/3/map.jp2/info.json").status_code == 200)


def _has_ended(client: socket.socket) -> bool:
    """Whether the server has closed a connection by which nothing was asked."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
