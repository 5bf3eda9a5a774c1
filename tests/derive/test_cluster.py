"""The same work on a Dask cluster, one of whose workers is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from distributed import Client
from rich.console import Console

from special import settings
from special.derive.cluster import derive_on_cluster
from special.derive.inputs import InputImage
from special.derive.plan import Consent
from special.derive.run import Options, derive_images, resource_options_of
from special.errors import ConfigurationError
from tests.support.servers import free_ports

pytestmark = pytest.mark.service

MASTERS = Path(__file__).parents[2] / "fixtures" / "masters"
OPTIONS = Options(json=True)


@dataclass
class Cluster:
    address: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler and two workers of one thread, on the loopback address."""
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    processes: list[subprocess.Popen[bytes]] = []
    environ = os.environ | {"PYTHONPATH": str(MASTERS.parents[1])}  # the code under test, wherever another is installed

    def start(module: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *options, "--no-dashboard"]
        with (tmp_path / f"{len(processes)}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log))
        return processes[-1]

    try:
        start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port))
        worker = ("dask_worker", address, "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path))
        yield Cluster(address, [start(*worker), start(*worker)])
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_lost_worker_loses_nothing(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    names = [f"{number:02}.jpg" for number in range(24)]
    for name in names:
        shutil.copy(MASTERS / "moon.jpg", masters / name)
    (masters / "24.jpg").write_bytes(b"no picture")
    chosen = settings.load(source=str(masters), thumbs=str(thumbs), sizes="100")
    async with Client(cluster.address, asynchronous=True) as client:
        await client.wait_for_workers(2, timeout=60)

    async def images() -> AsyncIterator[InputImage]:
        for name in [*names, "24.jpg"]:
            yield InputImage(name)

    outcomes, resources = [], resource_options_of(chosen, Consent())
    stream = derive_on_cluster(images(), resources, OPTIONS, scheduler=cluster.address, batch=3)
    async with aclosing(stream):
        async for outcome in stream:
            outcomes.append(outcome)
            if len(outcomes) == 1:
                os.kill(cluster.workers[0].pid, signal.SIGKILL)

    assert sorted(it.identifier for it in outcomes) == [*names, "24.jpg"]
    assert [it.identifier for it in outcomes if it.result == "failed"] == ["24.jpg"]
    seen, out = io.StringIO(), io.StringIO()
    checked = Options(task="verify", scheduler=cluster.address, json=True)
    assert await derive_images(chosen, names, checked, out=out, console=Console(file=seen)) == 0
    assert {json.loads(line)["result"] for line in out.getvalue().splitlines()} == {"sound"}
    assert "24 images: 24 sound" in seen.getvalue()


async def test_scheduler_that_does_not_answer_is_said(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    chosen = settings.load(source=str(MASTERS), thumbs=str(tmp_path))
    options = Options(scheduler=f"tcp://127.0.0.1:{port}")

    with pytest.raises(ConfigurationError, match=f"no Dask scheduler answers at tcp://127.0.0.1:{port}"):
        await derive_images(chosen, ["moon.jpg"], options, console=Console(file=io.StringIO()))
