"""What `/status` says: right over several processes, and nothing to anybody unless it is asked for."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from shutil import rmtree

import httpx
import pytest

from special.observability.slowest import COUNT, MAX_AGE_S, Slow, Slowest
from special.web.loop_monitor import LATE_S, LoopMonitor
from tests.conftest import Serve
from tests.support.live import MASTERS, LiveServer

TILE = "/iiif/3/herbarium.tif/0,0,200,200/100,/0/default.jpg"


def test_there_is_no_status_page_unless_it_is_asked_for(live_server: LiveServer) -> None:
    assert [httpx.get(f"{live_server.url}{path}").status_code for path in ("/status", "/status/figures.json")] == [
        404
    ] * 2


def test_the_figures_are_those_of_all_processes(serve: Serve) -> None:
    server = serve(MASTERS, settings={"SPECIAL_STATUS": "true", "SPECIAL_DECODERS": "1"}, workers=2)
    for _ in range(12):  # a connection each: both processes answer some
        assert httpx.get(f"{server.url}{TILE}", timeout=60).status_code == 200
    assert httpx.get(f"{server.url}/iiif/3/none/info.json").status_code == 404
    time.sleep(0.5)  # quick answers of other processes are counted a quarter of a second later
    told = [httpx.get(f"{server.url}/status/figures.json").json() for _ in range(4)]
    for each in told:
        assert each["routes"]["tile"]["answers"] == 12
        assert each["routes"]["tile"]["statuses"] == {"200": 12}
        assert sum(count for _, count in each["routes"]["tile"]["latency"]) == 12
        assert each["routes"]["none"]["statuses"] == {"404": 1}
        assert each["lanes"]["tile"] == {"running": 0, "waiting": 0, "refused": 0}
        assert each["decoders"]["jobs"]["done"] == 12
        assert each["workers"] == 2
        assert {slow["path"] for slow in each["slowest"]} <= {TILE, "/iiif/3/none/info.json"}
        assert len(each["slowest"]) == COUNT
        assert each["slowest"] == told[0]["slowest"]
    assert sum(1 for slow in told[0]["slowest"] if slow["route"] == "tile") >= COUNT - 1


def test_the_policy_allows_nothing_but_the_pages_own_files(serve: Serve) -> None:
    page = httpx.get(f"{serve(MASTERS, settings={'SPECIAL_STATUS': 'true'}).url}/status")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert " style=" not in page.text
    assert " onclick=" not in page.text


def test_the_slowest_are_kept_in_order(tmp_path: Path) -> None:
    one = Slowest(tmp_path)
    for n in range(3 * COUNT):
        one.add(f"/{n}", "tile", 200, n / 1000)
    assert [slow["ms"] for slow in one.of_all()] == [float(n) for n in reversed(range(2 * COUNT, 3 * COUNT))]
    assert [path.name for path in tmp_path.iterdir()] == [f"slowest-{os.getpid()}.json"]


def test_what_is_older_than_an_hour_is_left_out() -> None:
    slowest = Slowest(None)
    slowest._entries = [Slow(9999.0, "/old", "tile", 200, time.time() - MAX_AGE_S - 1)] * COUNT
    slowest.add("/new", "tile", 200, 0.001)
    assert [slow["path"] for slow in slowest.of_all()] == ["/new"]


async def test_the_monitor_tells_of_a_loop_that_is_held_up_and_of_its_recovery() -> None:
    monitor = LoopMonitor(interval_s=0.05)
    async with monitor.running():
        await asyncio.sleep(0)
        assert monitor.alive
        time.sleep(LATE_S + 0.5)  # noqa: ASYNC251  this is what must be noticed
        assert not monitor.alive
        assert monitor.lag_s >= LATE_S
        async with asyncio.timeout(60):
            while not monitor.alive:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_neither_store_nor_volume_decides_over_health(serve: Serve, tmp_path: Path, path: str) -> None:
    masters, volume = tmp_path / "masters", tmp_path / "volume"
    masters.mkdir()
    server = serve(masters, "--volume", str(volume))
    masters.rmdir()
    rmtree(volume)
    volume.write_text("no folder at all")
    assert httpx.get(f"{server.url}{path}").status_code == 200
