"""Metrics and status on a port of their own, which the public one does not have then."""

from __future__ import annotations

import resource

import httpx
import pytest

from special.machine import raise_descriptor_limit
from tests.conftest import Serve
from tests.support.live import MASTERS
from tests.support.servers import free_ports


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
